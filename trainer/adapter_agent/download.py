"""One file from object storage: ranges side by side, every byte hashed before it is written, never half a file by its name.

Ranges are taken in order by one reader a file, which hashes and writes each as it comes: one pass, and what is on the disk
is always a beginning of the file, from which an interrupted download goes on.
"""

import hashlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from adapter_agent import content
from adapter_agent.backoff import delays
from adapter_agent.errors import Damaged, EndpointUnreachable, StorageError, UnreliableConnection, disk_error
from adapter_agent.multipart import OnBytes, ignore_bytes
from adapter_agent.store import Store

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

RANGE_BYTES = 8 * 2**20
PARALLEL_RANGES = 8
"""Of all files together: with ranges of 8 MiB this bounds memory to 64 MiB."""
RANGE_TRIES = 6
"""Tries of one range without a byte of progress."""
DOWNLOADS = 4
"""Tries of one file whose content is not what was expected."""
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.2, 5.0
_BLOCK = 256 * 2**10
"""Read, hashed and written at once: stays in the processor's cache. Writes of megabytes cost the kernel up to six times more."""


@dataclass(frozen=True)
class Expected:
    """What a file must be."""

    size: int
    sha256: str | None
    """None: nobody knows; then its ETag alone shows that all ranges are of one object."""
    etag: str | None = None


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
        with closing(_ranges(store, key, there, expected)) as ranges:
            for body in ranges:
                if only_safe and there == 0:
                    content.refuse_content(key, bytes(body[: content.HEAD_BYTES]))
                for block in _blocks(body):
                    digest.update(block)
                    _write_all(file, block)
                there += len(body)
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
        while block := stream.read(_BLOCK):
            digest.update(block)
    return there


def _blocks(body: memoryview) -> Iterator[memoryview]:
    return (body[first : first + _BLOCK] for first in range(0, len(body), _BLOCK))


def _write_all(file: IO[bytes], body: memoryview) -> None:
    written = 0
    while written < len(body):
        written += file.write(body[written:])


class _Memory:
    """Buffers for ranges, made once and lent."""

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._left = PARALLEL_RANGES
        self._lock = threading.Lock()

    def take(self, *, wait: bool) -> bytearray | None:
        """A buffer; without `wait`, only if one is free."""
        with self._lock:
            if self._left > 0 and self._free.empty():
                self._left -= 1
                return bytearray(RANGE_BYTES)
        try:
            return self._free.get(block=wait)
        except queue.Empty:
            return None

    def give(self, buffer: bytearray) -> None:
        """Back."""
        self._free.put(buffer)


_memory = _Memory()
_threads = ThreadPoolExecutor(PARALLEL_RANGES, thread_name_prefix="range")


def _ranges(store: Store, key: str, begin: int, expected: Expected) -> Generator[memoryview, None, None]:
    """The content from `begin` on, range by range in order; each is valid until the next is asked for.

    Buffers are taken in the file's order, so whoever holds any holds the one that is needed next: nobody waits for ever.
    """
    starts = deque(range(begin, expected.size, RANGE_BYTES) or ([0] if expected.size == 0 else []))
    under_way: deque[tuple[bytearray, Future[memoryview]]] = deque()
    stop = threading.Event()
    try:
        while starts or under_way:
            while starts and (buffer := _memory.take(wait=not under_way)) is not None:
                first = starts.popleft()
                wanted = memoryview(buffer)[: min(RANGE_BYTES, expected.size - first)]
                under_way.append((buffer, _threads.submit(_read_range, store, key, first, wanted, expected, stop)))
            buffer, future = under_way[0]
            yield future.result()
            under_way.popleft()
            _memory.give(buffer)
    finally:
        stop.set()
        for buffer, future in under_way:
            if not future.cancel():
                future.exception()
            _memory.give(buffer)


def _read_range(
    store: Store, key: str, first: int, wanted: memoryview, expected: Expected, stop: threading.Event
) -> memoryview:
    """Fills `wanted` with the content from `first` on; what breaks off is gone on with."""
    got, tries, pauses = 0, 0, delays(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
    while True:
        before = got
        try:
            for count in _read_some(store, key, first + got, wanted[got:], expected):
                got += count
                if stop.is_set():
                    return wanted[:0]
        except EndpointUnreachable:
            tries = tries + 1 if got == before else 1
            if tries == RANGE_TRIES:
                raise
            time.sleep(next(pauses))
        else:
            return wanted


def _read_some(store: Store, key: str, first: int, wanted: memoryview, expected: Expected) -> Iterator[int]:
    """Fills `wanted` as far as one reply goes; yields how many bytes have come each time.

    Raises:
        Damaged: the object has another size, or is another one by now.
        EndpointUnreachable: the reply broke off.
    """
    place = f"{store.uri_of(key)} at {store.endpoint}"
    try:
        with store.naming(key):
            reply = _ask(store, key, first, len(wanted), expected)
            with reply["Body"] as stream:
                total = _total(reply)
                if total != expected.size:
                    raise Damaged(f"{store.uri_of(key)}: has {total} bytes where {expected.size} are expected")
                if first > 0 and "ContentRange" not in reply:
                    raise StorageError(f"{place}: the store does not answer requests for ranges; use one that does")
                got = 0
                # Stubs ask for a file where any writable memory will do.
                while got < len(wanted) and (count := stream.readinto(wanted[got : got + _BLOCK])):  # type: ignore[arg-type]
                    got += count
                    yield count
                if got < len(wanted):
                    raise EndpointUnreachable(f"{place}: the download broke off")
    except (HTTPError, OSError) as error:
        raise EndpointUnreachable(f"{place}: the download broke off ({error})") from error


def _ask(store: Store, key: str, first: int, length: int, expected: Expected) -> "GetObjectOutputTypeDef":
    options: dict[str, Any] = {}
    if expected.etag is not None:
        options["IfMatch"] = expected.etag
    if (first, length) != (0, expected.size):
        options["Range"] = f"bytes={first}-{first + length - 1}"
    return store.data_client.get_object(Bucket=store.bucket, Key=store.full_key(key), **options)


def _total(reply: "GetObjectOutputTypeDef") -> int:
    """Size of the whole object."""
    _, separator, total = reply.get("ContentRange", "").rpartition("/")
    return int(total) if separator and total.isdecimal() else reply["ContentLength"]
