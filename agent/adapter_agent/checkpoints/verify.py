"""Reads every byte of a committed checkpoint without keeping any, and says what is not as it was committed."""

import hashlib
from dataclasses import dataclass

from adapter_agent import parallel
from adapter_agent.checkpoints.fetch import read_manifest
from adapter_agent.errors import Damaged, EndpointUnreachable, ObjectMissing, StorageError
from adapter_agent.storage import content
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.reading import TRIES, chunks, judge
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import MANIFEST_NAME, FileEntry, IndexEntry

PARALLEL_FILES = 4


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file of a checkpoint."""

    path: str
    what: str


def verify(store: Store, entry: IndexEntry, on_bytes: OnBytes = ignore_bytes) -> list[Fault]:
    """Reads every byte of a committed checkpoint; returns what is not as it was committed.

    Raises:
        EndpointUnreachable, CredentialsRefused: storage could not be read, which says nothing about the checkpoint.
    """
    try:
        manifest = read_manifest(store, entry).manifest
    except (Damaged, ObjectMissing) as error:
        return [_fault(store, entry, MANIFEST_NAME, error)]

    def fault_of(file: FileEntry) -> Fault | None:
        try:
            _read_whole(store, f"{entry.folder}/{file.path}", file, on_bytes)
        except (Damaged, ObjectMissing) as error:
            return _fault(store, entry, file.path, error)
        return None

    return [fault for fault in parallel.each(fault_of, manifest.files, PARALLEL_FILES) if fault is not None]


def _fault(store: Store, entry: IndexEntry, path: str, error: StorageError) -> Fault:
    place = store.uri_of(f"{entry.folder}/{path}")
    return Fault(path, str(error).removeprefix(place).removeprefix(": ").strip())


def _read_whole(store: Store, key: str, file: FileEntry, on_bytes: OnBytes) -> None:
    digest, head, count = hashlib.sha256(), b"", 0
    for last in (*[False] * (TRIES - 1), True):
        try:
            for chunk in chunks(store, key, count) if count < file.size or count == 0 else ():
                digest.update(chunk)
                head += chunk[: content.HEAD_BYTES - len(head)]
                count += len(chunk)
                on_bytes(len(chunk))
            break
        except EndpointUnreachable:
            if last:
                raise
    judge(store.uri_of(key), file, count, digest.hexdigest(), head)
