"""The content of one object in order: one stream, or ranges side by side where a stream leaves this process waiting.

A stream costs the least: what comes from the socket is hashed and written while it is in the processor's cache, and no
request is sent for every few MiB. Where the network or the store gives each connection little, ranges fill the line.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HTTPError

from adapter_agent.backoff import delays
from adapter_agent.errors import Damaged, EndpointUnreachable, StorageError
from adapter_agent.storage.pace import TOO_SLOW, TooSlow, watched
from adapter_agent.storage.store import Store

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

RANGE_BYTES = 8 * 2**20
PARALLEL_RANGES = 8
"""Of all files together: with ranges of 8 MiB this bounds memory to 64 MiB."""
STREAM_BYTES = 64 * 2**20
"""Of one request of a stream; after each it is looked at how busy that has kept us."""
BUSY = 0.5
"""Cores that this process has to have used while a stream was read; with less it was the stream that was waited for."""
RANGE_TRIES = 6
"""Tries of one range without a byte of progress, or with too few."""
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.2, 5.0
BLOCK_BYTES = 256 * 2**10
"""Read, hashed and written at once: stays in the processor's cache. Large writes make the kernel look for large free pieces
of memory, which cost up to four times as much."""

Place = Callable[[int], memoryview]
"""Memory for what comes after so many bytes of a range."""


@dataclass(frozen=True)
class Expected:
    """What a file must be."""

    size: int
    sha256: str | None
    """None: nobody knows; then its ETag alone shows that all ranges are of one object."""
    etag: str | None = None


def read(
    store: Store, key: str, begin: int, expected: Expected,
    clock: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time,
) -> Generator[memoryview, None, None]:  # fmt: skip
    """The content from `begin` on, block by block; each is valid until the next is asked for.

    All but the last have BLOCK_BYTES, so that the first shows what kind of file it is.

    Raises:
        Damaged: the object has another size, or is another one by now.
        EndpointUnreachable: it could not be read, also after several tries.
    """
    if expected.size == 0:
        yield from _streamed(store, key, 0, 0, expected)
        yield memoryview(b"")
    there, length, is_busy = begin, RANGE_BYTES, True
    while there < expected.size and is_busy:
        length = min(length, expected.size - there)
        began, used = clock(), processor()
        yield from _streamed(store, key, there, length, expected)
        is_busy = processor() - used >= BUSY * (clock() - began)
        there, length = there + length, STREAM_BYTES
    for body in _ranges(store, key, there, expected):
        yield from (body[first : first + BLOCK_BYTES] for first in range(0, len(body), BLOCK_BYTES))


def _streamed(store: Store, key: str, first: int, length: int, expected: Expected) -> Iterator[memoryview]:
    block, got = memoryview(bytearray(min(BLOCK_BYTES, length))), 0

    def place(after: int) -> memoryview:
        return block[after % BLOCK_BYTES : min(BLOCK_BYTES, length - after + after % BLOCK_BYTES)]

    for count in _received(store, key, first, length, expected, place):
        got += count
        if got % BLOCK_BYTES == 0 or got == length:
            yield block[: (got - 1) % BLOCK_BYTES + 1]


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
    starts = deque(range(begin, expected.size, RANGE_BYTES))
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
    """Fills `wanted` with the content from `first` on."""
    for _ in _received(store, key, first, len(wanted), expected, lambda got: wanted[got : got + BLOCK_BYTES]):
        if stop.is_set():
            break
    return wanted


def _received(
    store: Store, key: str, first: int, length: int, expected: Expected, place: Place
) -> Generator[int, None, None]:
    """Yields how many bytes have come each time, in the memory that `place` has given; what breaks off is gone on with."""
    got, tries, pauses = 0, 0, delays(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
    while True:
        before = got
        try:
            rest = partial(_after, place, before)
            for count in _read_some(store, key, first + got, length - got, expected, rest):
                got += count
                yield count
        except EndpointUnreachable as error:
            tries = tries + 1 if got == before or isinstance(error, TooSlow) else 1
            if tries == RANGE_TRIES:
                raise
            time.sleep(next(pauses))
        else:
            return


def _after(place: Place, got: int, more: int) -> memoryview:
    return place(got + more)


def _read_some(
    store: Store, key: str, first: int, length: int, expected: Expected, place: Place
) -> Generator[int, None, None]:
    """Reads as far as one reply goes.

    Raises:
        Damaged: the object has another size, or is another one by now.
        EndpointUnreachable: the reply broke off.
    """
    address = f"{store.uri_of(key)} at {store.endpoint}"
    try:
        with store.naming(key):
            reply = _ask(store, key, first, length, expected)
            with reply["Body"] as stream, watched(stream) as pace:  # type: ignore[arg-type]
                total = _total(reply)
                if total not in (None, expected.size):
                    raise Damaged(f"{store.uri_of(key)}: has {total} bytes where {expected.size} are expected")
                if first > 0 and "ContentRange" not in reply:
                    raise StorageError(f"{address}: the store does not answer requests for ranges; use one that does")
                got = 0
                # Stubs ask for a file where any writable memory will do.
                while got < length and (count := stream.readinto(place(got))):  # type: ignore[arg-type]
                    got += count
                    pace.came(count)
                    yield count
                if pace.was_too_slow:
                    raise TooSlow(f"{address}: {TOO_SLOW}")
                if got < length:
                    raise EndpointUnreachable(f"{address}: the download broke off")
                if total is None and first + length == expected.size and stream.readinto(memoryview(bytearray(1))):  # type: ignore[arg-type]
                    raise Damaged(f"{store.uri_of(key)}: has more than the {expected.size} bytes that are expected")
    except (HTTPError, OSError) as error:
        raise EndpointUnreachable(f"{address}: the download broke off ({error})") from error


def _ask(store: Store, key: str, first: int, length: int, expected: Expected) -> "GetObjectOutputTypeDef":
    options: dict[str, Any] = {}
    if expected.etag is not None:
        options["IfMatch"] = expected.etag
    if (first, length) != (0, expected.size):
        options["Range"] = f"bytes={first}-{first + length - 1}"
    return store.data_client.get_object(Bucket=store.bucket, Key=store.full_key(key), **options)


def _total(reply: "GetObjectOutputTypeDef") -> int | None:
    """Size of the whole object; None where the reply does not tell, as proxies that compress or re-chunk have it."""
    _, separator, total = reply.get("ContentRange", "").rpartition("/")
    if separator:
        return int(total) if total.isdecimal() else None
    return reply.get("ContentLength")
