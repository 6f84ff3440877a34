"""One file from object storage: every byte hashed before it is written, never half a file by its name.

Its content is taken in order by one reader, which hashes and writes each block as it comes: one pass, and what is on the
disk is always a beginning of the file, from which an interrupted download goes on.
"""

import hashlib
import os
from contextlib import closing
from pathlib import Path
from typing import IO

from adapter_agent.errors import Damaged, UnreliableConnection, disk_error
from adapter_agent.storage import content
from adapter_agent.storage.multipart import OnBytes, ignore_bytes
from adapter_agent.storage.ranges import BLOCK_BYTES, Expected, read
from adapter_agent.storage.store import Store

DOWNLOADS = 4
"""Tries of one file whose content is not what was expected."""


def receive(
    store: Store, key: str, target: Path, expected: Expected, *, only_safe: bool, on_bytes: OnBytes = ignore_bytes
) -> None:
    """Downloads an object to `target`, complete or absent; its size, its digest (if known) and its kind are checked.

    A part of it that an interrupted call has left is gone on with. `on_bytes` is told of each byte once, also of those.

    Raises:
        Damaged: what storage holds is not what was expected, also on a second look; or it is of a refused kind.
        UnreliableConnection: other content each time, so that nothing is known about what storage holds.
        StorageFull: the local disk is full.
    """
    seen: set[str] = set()
    refused = False
    partial, told = partial_of(target), _Told(on_bytes)
    for _ in range(DOWNLOADS):
        try:
            found = _receive_once(store, key, partial, expected, only_safe=only_safe, told=told)
            if expected.sha256 in (None, found):
                partial.replace(target)
                return
        except Damaged:
            partial.unlink(missing_ok=True)
            if refused:
                raise
            refused = True
            continue
        except OSError as error:
            raise disk_error(error, f"downloading {store.uri_of(key)}") from error
        partial.unlink(missing_ok=True)
        # The same wrong content twice is what storage holds; other content each time comes from the way here.
        if found in seen:
            raise Damaged(f"{store.uri_of(key)}: its content is damaged: SHA-256 {found}, expected {expected.sha256}")
        seen.add(found)
    raise UnreliableConnection(
        f"{store.uri_of(key)} at {store.endpoint}: its content arrived damaged {DOWNLOADS} times, differently each time; "
        "look at the network, proxies and memory between here and the store"
    )


class _Told:
    """Tells of each byte once, however often it is read."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._told = 0

    def __call__(self, count: int) -> None:
        if count > self._told:
            self._on_bytes(count - self._told)
            self._told = count


def partial_of(target: Path) -> Path:
    """Where the beginning of a file stays until it is whole."""
    return target.with_name(f".{target.name}.partial")


def _receive_once(store: Store, key: str, partial: Path, expected: Expected, *, only_safe: bool, told: "_Told") -> str:
    """Completes the partial file; returns the SHA-256 of all of it."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with partial.open("ab" if expected.sha256 is not None else "wb", buffering=0) as file:
        there = _begun(partial, file, expected.size, digest)
        told(there)
        with closing(read(store, key, there, expected)) as blocks:
            for block in blocks:
                if only_safe and there == 0:
                    content.refuse_content(key, bytes(block[: content.HEAD_BYTES]))
                digest.update(block)
                _write_all(file, block)
                there += len(block)
                told(there)
        if expected.sha256 is None:
            # Of the others every byte is hashed again before they are used again, which costs less than waiting for the disk.
            os.fsync(file.fileno())
    return digest.hexdigest()


def _begun(partial: Path, file: IO[bytes], size: int, digest: "hashlib._Hash") -> int:
    """How much of the file is there already, which `digest` has then seen."""
    there = os.fstat(file.fileno()).st_size
    if there > size:
        file.truncate(0)
        return 0
    with partial.open("rb", buffering=0) as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return there


def _write_all(file: IO[bytes], body: memoryview) -> None:
    written = 0
    while written < len(body):
        written += file.write(body[written:])
