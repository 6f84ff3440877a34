"""Files between object storage and a folder: staged before training, uploaded by the command line."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from adapter_agent import local_files, parallel
from adapter_agent.errors import Damaged, NothingThere, PreconditionFailed, disk_error
from adapter_agent.storage.download import receive
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_agent.storage.transfer import Condition, send

PARALLEL_FILES = 8
RECORD_NAME = ".staged.json"
"""In the data folder: {path: [size, ETag, the local file's modification time in ns]} of what was downloaded."""

RECORD_SECONDS = 5.0
"""Between two writings of it."""

log = logging.getLogger(__name__)

_SHA256 = re.compile(r"[0-9a-f]{64}")

_Record = dict[str, tuple[int, str, int]]
_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)


def stage_folder(store: Store, folder: Path, on_bytes: OnBytes = ignore_bytes) -> int:
    """Downloads everything below the store's address to `folder`, each file complete or absent.

    A file that was downloaded before, and has changed neither here nor there, is not fetched again.

    Returns:
        Number of files that were fetched.

    Raises:
        NothingThere: the address holds no object.
        Damaged: a key is not a path inside a folder, or content differs from its recorded digest.
        StorageFull: the disk is full.
    """
    objects = list(files(store))
    if not objects:
        raise NothingThere(
            f"{store.uri} at {store.endpoint} holds no data; correct spec.data.s3.uri, or upload it first; "
            "for `atj run`, spec.data.folder names a folder instead"
        )
    return fetch(store, folder, objects, on_bytes)


def fetch(
    store: Store, folder: Path, objects: Sequence[ObjectFacts], on_bytes: OnBytes = ignore_bytes, *,
    is_model: bool = False,
) -> int:  # fmt: skip
    """Downloads these objects to `folder`, as `stage_folder` does with all.

    Args:
        store: Where they are.
        folder: Where they go, by their keys.
        objects: As `files` lists them.
        on_bytes: Told of each byte that arrives.
        is_model: They are few and large: each is asked for the SHA-256 that its uploader may have recorded, by which it
            is verified and gone on with in the middle; and only safetensors and text are accepted.

    Returns:
        Number of files that were fetched.
    """
    record = _read_record(folder)
    wanted = [facts for facts in objects if not _is_staged(folder, record, facts)]
    keeper = _Keeper(folder, record, f"staging {store.uri}")

    def download(facts: ObjectFacts) -> None:
        target = folder / facts.key
        expected = Expected(facts.size, recorded_sha256(store, facts) if is_model else None, facts.etag)
        receive(store, facts.key, target, expected, only_safe=is_model, on_bytes=on_bytes)
        keeper.add(facts, target.stat().st_mtime_ns)

    try:
        parallel.each(download, wanted, PARALLEL_FILES)
    finally:
        keeper.write()
    log.info("%s: %d of %d files fetched, the others were there", folder, len(wanted), len(objects))
    return len(wanted)


def recorded_sha256(store: Store, facts: ObjectFacts) -> str | None:
    """The digest that an object's uploader has recorded with it, if there is one."""
    found = store.head(facts.key)
    recorded = None if found is None else found.metadata.get("sha256")
    return recorded if recorded is not None and _SHA256.fullmatch(recorded) else None


class _Keeper:
    """Writes the record now and then, so that a staging that is killed has not been in vain."""

    def __init__(self, folder: Path, record: _Record, doing: str) -> None:
        self._path = folder / RECORD_NAME
        self._record = record
        self._doing = doing
        self._lock = threading.Lock()
        self._written = time.monotonic()

    def add(self, facts: ObjectFacts, modified: int) -> None:
        """A file that has been fetched."""
        with self._lock:
            self._record[facts.key] = (facts.size, facts.etag, modified)
            is_due = time.monotonic() - self._written >= RECORD_SECONDS
        if is_due:
            self.write()

    def write(self) -> None:
        """What has been fetched until now, on disk."""
        with self._lock:
            try:
                local_files.write_whole(self._path, json.dumps(self._record).encode())
            except OSError as error:
                raise disk_error(error, self._doing) from error
            self._written = time.monotonic()


def files(store: Store) -> Iterator[ObjectFacts]:
    """Every object below the store's address.

    Raises:
        Damaged: a key is not a path inside a folder.
    """
    for facts in store.list():
        if facts.is_marker:
            continue
        if any(part in {"", ".", ".."} for part in facts.key.split("/")) or "\0" in facts.key:
            raise Damaged(f"{store.uri_of(facts.key)}: its key is not a path inside a folder; rename the object")
        yield facts


def _is_staged(folder: Path, record: _Record, facts: ObjectFacts) -> bool:
    try:
        status = (folder / facts.key).stat()
    except OSError:
        return False
    return record.get(facts.key) == (facts.size, facts.etag, status.st_mtime_ns) and status.st_size == facts.size


def _read_record(folder: Path) -> _Record:
    try:
        return _RECORD.validate_json((folder / RECORD_NAME).read_bytes())
    except (OSError, ValidationError):
        return {}


def upload_folder(store: Store, folder: Path, on_bytes: OnBytes = ignore_bytes) -> int:
    """Makes the store hold every file below `folder`, replacing what differs and removing nothing.

    Returns:
        Number of files that were sent.
    """

    def upload(path: str) -> bool:
        facts = local_files.facts_of(folder / path)
        metadata = {"sha256": facts.sha256}
        found = store.head(path)
        if found is not None and (found.size, found.metadata.get("sha256")) == (facts.size, facts.sha256):
            return False
        condition = Condition(found.etag if found else None)
        try:
            send(store, path, folder / path, facts, metadata, condition, on_bytes)
        except PreconditionFailed:
            found = store.head(path)
            if found is None or found.metadata.get("sha256") != facts.sha256:
                raise
        return True

    try:
        return sum(parallel.each(upload, local_files.files_below(folder), PARALLEL_FILES))
    except OSError as error:
        raise disk_error(error, f"uploading {folder} to {store.uri}") from error
