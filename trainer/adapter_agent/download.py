"""Reads committed objects in pieces, and downloads on from where it broke off."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from urllib3.exceptions import HTTPError

from adapter_agent import content
from adapter_agent.errors import Damaged, EndpointUnreachable, disk_error
from adapter_agent.multipart import OnBytes, ignore_bytes
from adapter_agent.store import Store
from adapter_api.checkpoint import FileEntry

TRIES = 4
"""Of one file, when reading breaks off; each goes on where the one before ended."""
_CHUNK = 2**20


def chunks(store: Store, key: str, first: int = 0, last: int | None = None) -> Iterator[bytes]:
    """The bytes of an object from `first` to `last`, both included; without `last` to its end.

    Raises:
        EndpointUnreachable: reading broke off.
        ObjectMissing: there is no such object.
    """
    span = {} if first == 0 and last is None else {"Range": f"bytes={first}-{'' if last is None else last}"}
    try:
        with store.naming(key):
            body = store.client.get_object(Bucket=store.bucket, Key=store.full_key(key), **span)["Body"]  # type: ignore[arg-type]
            with body:
                while chunk := body.read(_CHUNK):
                    yield chunk
    except HTTPError as error:
        raise EndpointUnreachable(f"{store.uri_of(key)} at {store.endpoint}: reading broke off ({error})") from error


def judge(place: str, file: FileEntry, count: int, sha256: str, head: bytes) -> None:
    """Raises `Damaged` unless what was read, `head` being its first bytes, is what was committed."""
    if count != file.size:
        raise Damaged(f"{place}: has {count} bytes where {file.size} are expected")
    if sha256 != file.sha256:
        raise Damaged(f"{place}: its content is damaged: SHA-256 {sha256}, expected {file.sha256}")
    content.refuse_content(place, head)


def receive(store: Store, key: str, target: Path, file: FileEntry, on_bytes: OnBytes = ignore_bytes) -> None:
    """Downloads a file to `target`, complete or absent, and goes on with what a broken download has left beside it.

    Raises:
        Damaged: what storage holds is not what was committed, also when it is read anew from its beginning.
        EndpointUnreachable: reading broke off too often; what has arrived stays for the next call.
        StorageFull: the local disk is full.
    """
    partial = target.with_name(f".{target.name}.partial")
    told = _Told(on_bytes)
    try:
        if target.is_file():
            target.replace(partial)  # checked again like everything that an earlier call has left
        target.parent.mkdir(parents=True, exist_ok=True)
        mismatches = 0
        for last in (*[False] * (TRIES - 1), True):
            try:
                _go_on(store, key, partial, file, told)
            except EndpointUnreachable:
                if last:
                    raise
            except Damaged:
                partial.unlink()
                mismatches += 1
                if last or mismatches == 2:
                    raise
            else:
                partial.replace(target)
                return
    except OSError as error:
        raise disk_error(error, f"downloading {store.uri_of(key)}") from error


class _Told:
    """Tells each byte once, however often it is read."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._told = 0

    def __call__(self, count: int) -> None:
        if count > self._told:
            self._on_bytes(count - self._told)
            self._told = count


def _go_on(store: Store, key: str, partial: Path, file: FileEntry, told: _Told) -> None:
    digest = hashlib.sha256()
    with partial.open("a+b") as stream:
        stream.seek(0)
        head = stream.peek(content.HEAD_BYTES)[: content.HEAD_BYTES]
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
        told(stream.tell())
        if stream.tell() < file.size or file.size == 0:
            for chunk in chunks(store, key, stream.tell()):
                stream.write(chunk)
                digest.update(chunk)
                head += chunk[: content.HEAD_BYTES - len(head)]
                told(stream.tell())
                if stream.tell() > file.size:
                    break
        stream.flush()
        os.fsync(stream.fileno())
        count = stream.tell()
    judge(store.uri_of(key), file, count, digest.hexdigest(), head)
