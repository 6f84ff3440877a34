"""Data between object storage and a folder: staged before training, uploaded by the command line."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from adapter_agent import local, parallel
from adapter_agent.download import Expected, receive
from adapter_agent.errors import Damaged, NothingThere, PreconditionFailed, disk_error
from adapter_agent.multipart import OnBytes, ignore_bytes
from adapter_agent.store import ObjectFacts, Store
from adapter_agent.transfer import Condition, send

PARALLEL_FILES = 8
RECORD_NAME = ".staged.json"
"""In the data folder: {path: [size, ETag, the local file's modification time in ns]} of what was downloaded."""

log = logging.getLogger(__name__)

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
    record = _read_record(folder)
    objects = list(_files(store))
    if not objects:
        raise NothingThere(
            f"{store.uri} at {store.endpoint} holds no data; correct spec.data.s3.uri, or upload it first"
        )
    wanted = [facts for facts in objects if not _is_staged(folder, record, facts)]

    def download(facts: ObjectFacts) -> None:
        target = folder / facts.key
        receive(store, facts.key, target, Expected(facts.size, None, facts.etag), only_safe=False, on_bytes=on_bytes)
        record[facts.key] = (facts.size, facts.etag, target.stat().st_mtime_ns)

    try:
        parallel.each(download, wanted, PARALLEL_FILES)
    finally:
        try:
            local.write_whole(folder / RECORD_NAME, json.dumps(record).encode())
        except OSError as error:
            raise disk_error(error, f"staging {store.uri}") from error
    log.info("%s: %d of %d files fetched, the others were there", folder, len(wanted), len(objects))
    return len(wanted)


def _files(store: Store) -> Iterator[ObjectFacts]:
    for facts in store.list():
        if facts.key.endswith("/"):
            continue  # how some tools mark a folder
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
        facts = local.facts_of(folder / path)
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
        return sum(parallel.each(upload, local.files_below(folder), PARALLEL_FILES))
    except OSError as error:
        raise disk_error(error, f"uploading {folder} to {store.uri}") from error
