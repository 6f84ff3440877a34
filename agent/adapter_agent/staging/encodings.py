"""Encodings between a node's cache and object storage: fetched before training and while nodes encode, created there once.

    <cache uri>/<kind>-<what made it>/<digest of the keys inside>.safetensors

A file's name follows from what is in it, so what is there is not fetched or sent again. What was refused when it was
fetched, or is not what was fetched any more because the trainer has refused and remade it, replaces the object that was
refused, and no other.
"""

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from adapter_agent import local_files, parallel
from adapter_agent.errors import Damaged, ObjectMissing, PreconditionFailed, StorageError
from adapter_agent.staging import staged_files
from adapter_agent.storage.download import receive
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.ranges import Expected
from adapter_agent.storage.store import ObjectFacts, Store
from adapter_agent.storage.transfer import Condition, send

FIELD = "data.params.cache.uri"
RECORD_NAME = "encodings.json"
"""In the agent's folder: {path: [ETag, the local file's size, its modification time in ns]} of what storage holds."""
LOOK_SECONDS = 3.0
"""How often storage is asked what other nodes have encoded."""
REFUSED = (-1, -1)
"""Stands for size and time where storage holds something that was refused."""

log = logging.getLogger(__name__)

_Version = tuple[int, int]
_Record = dict[str, tuple[str, _Version]]
_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)
_FILE = re.compile(r"[a-z][a-z-]*-[0-9a-f]{16}/[0-9a-f]{32}\.safetensors")


def stage(store: Store, folder: Path, record_folder: Path) -> int:
    """Downloads every file of encodings that is not in `folder`; what is damaged is said, and left to be made anew.

    Args:
        store: At the cache's address, which may hold nothing yet.
        folder: The trainer's cache.
        record_folder: The agent's own.

    Returns:
        Number of files that were fetched.

    Raises:
        StorageError: storage or the disk cannot be used; the message names the field.
    """
    with _naming_field():
        there = _files(store)
        known = _fetch(store, folder, [facts for facts in there if not (folder / facts.key).exists()])
    _write(record_folder, {**_read(record_folder), **known})
    count = _came(known)
    log.info("%s: %d of %d files of encodings fetched from %s", folder, count, len(there), store.uri)
    return count


@contextmanager
def _naming_field() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise type(error)(f"{FIELD}: {error}") from error


def _files(store: Store) -> list[ObjectFacts]:
    return [facts for facts in store.list() if _FILE.fullmatch(facts.key)]


def _fetch(store: Store, folder: Path, wanted: list[ObjectFacts]) -> _Record:
    """Side by side; what is now known of those that were not replaced meanwhile."""
    versions = parallel.each(lambda facts: _fetched(store, folder, facts), wanted, staged_files.PARALLEL_FILES)
    return {
        facts.key: (facts.etag, version) for facts, version in zip(wanted, versions, strict=True) if version is not None
    }


def _came(known: _Record) -> int:
    return sum(version != REFUSED for _, version in known.values())


def _fetched(store: Store, folder: Path, facts: ObjectFacts) -> _Version | None:
    """The version of the file that it has become; None if it was replaced meanwhile."""
    try:
        target = folder / facts.key
        expected = Expected(facts.size, _uploaded_sha256(store, facts), facts.etag)
        receive(store, facts.key, target, expected, only_safe=True)
        return _version(target)
    except (PreconditionFailed, ObjectMissing):
        return None
    except Damaged as error:
        log.warning("refused, and encoded again if needed: %s", error)
        return REFUSED


def _uploaded_sha256(store: Store, facts: ObjectFacts) -> str:
    digest = staged_files.recorded_sha256(store, facts)
    if digest is None:
        raise Damaged(f"{store.uri_of(facts.key)}: does not say the SHA-256 that it was uploaded with")
    return digest


class Exchange:
    """Sends what the trainer has encoded, and fetches what other nodes' trainers have. Used by one thread."""

    def __init__(self, store: Store, folder: Path, record_folder: Path, on_bytes: OnBytes = ignore_bytes) -> None:
        self._store = store
        self._folder = folder
        self._record_folder = record_folder
        self._on_bytes = on_bytes
        self._record = _read(record_folder)
        self._seen: list[tuple[str, int]] | None = None
        """Folders and their times of change at a look that found nothing to send."""
        self._coming: list[ObjectFacts] = []
        """What others have sent and this node lacks, as of the last look."""
        self._next_look = 0.0

    def send_next(self, *, look: bool = False) -> bool:
        """Sends one file that storage does not have; False if there is none, as far as folders tell, or after a `look`.

        Raises:
            StorageError: it could not be sent; the message names the field.
        """
        folders = self._folders()
        if folders == self._seen and not look:
            return False
        for path in local_files.files_below(self._folder):
            if _FILE.fullmatch(path) and (version := self._unsent(path)) is not None:
                with _naming_field():
                    self._send(path, version)
                return True
        self._seen = folders
        return False

    def fetch_some(self) -> int:
        """Fetches a few files that this node lacks; returns how many came.

        What was here once, and is gone, the trainer has refused: it makes that anew.

        Raises:
            StorageError: they could not be fetched; the message names the field.
        """
        with _naming_field():
            if not self._coming and time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + LOOK_SECONDS
                self._coming = _files(self._store)
            lacking = [facts for facts in self._coming if self._lacks(facts)]
            some, self._coming = lacking[: staged_files.PARALLEL_FILES], lacking[staged_files.PARALLEL_FILES :]
            known = _fetch(self._store, self._folder, some)
        if known:
            self._record |= known
            _write(self._record_folder, self._record)
        return _came(known)

    def _lacks(self, facts: ObjectFacts) -> bool:
        known = self._record.get(facts.key)
        return (known is None or known[0] != facts.etag) and not (self._folder / facts.key).exists()

    def _folders(self) -> list[tuple[str, int]]:
        if not self._folder.is_dir():
            return []
        return sorted((each.name, each.stat().st_mtime_ns) for each in self._folder.iterdir() if each.is_dir())

    def _unsent(self, path: str) -> _Version | None:
        version = _version(self._folder / path)
        known = self._record.get(path)
        return None if version is None or (known is not None and known[1] == version) else version

    def _send(self, path: str, version: _Version) -> None:
        found, known = self._store.head(path), self._record.get(path)
        if found is None or (known is not None and known[0] == found.etag):
            try:
                facts = local_files.facts_of(self._folder / path)
                condition = Condition(None if found is None else found.etag)
                send(self._store, path, self._folder / path, facts, {"sha256": facts.sha256}, condition, self._on_bytes)
            except FileNotFoundError:
                return  # the trainer has found it damaged
            except PreconditionFailed:
                pass  # another run was faster, or a reply was lost
            found = self._store.head(path)
        if found is not None:
            self._record[path] = found.etag, version
            _write(self._record_folder, self._record)


def _version(path: Path) -> _Version | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(folder: Path) -> _Record:
    try:
        return _RECORD.validate_json((folder / RECORD_NAME).read_bytes())
    except (OSError, ValidationError):
        return {}


def _write(folder: Path, record: _Record) -> None:
    local_files.write_whole(folder / RECORD_NAME, json.dumps(record).encode())
