"""Builds the cache: every process encodes what is not there yet, beginning with a share of its own.

No process waits for another one while there is work. One that has done its share looks for what the others have written
meanwhile, here, on shared storage, or brought by the agent, and goes on with what they have not, from the end of their
shares; who is helped so notices, and leaves out what is done. So nodes need not say whether they share the folder, and one
that is slow, or gone, holds nobody up.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from adapter_trainer.data.cache.encodings import Encoding
from adapter_trainer.data.cache.shards import Item
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import StopRequest
from adapter_trainer.errors import DiskFull, InvalidConfig, InvalidData, Stopped

SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 20.0
"""A file is written when it has so many bytes, or this long after its first item: a kill loses no more."""
THREADS = 8
"""That read and decode pictures for one process."""
REPORT_SECONDS = 5.0
REFRESH_SECONDS = 2.0
"""How often a process looks whether others have helped it."""

Chunk = list[tuple[str, Any]]
"""Keys and sources of one forward pass."""


@dataclass
class Build:
    """One process's part in building a run's encodings."""

    processes: Processes
    stop: StopRequest
    batch_size: int
    show: Callable[[str], None]
    progress: Callable[[int], None]
    """Takes the number of items that are there."""
    clock: Callable[[], float] = time.monotonic
    _reported: float = field(default=float("-inf"), init=False)

    def run(self, encodings: list[Encoding]) -> None:
        """Encodes all of them, and returns when every process has.

        Raises:
            InvalidData: a picture cannot be read; what was encoded before it stays.
            DiskFull: no room; what was written stays.
            Stopped: SIGTERM or SIGINT; what was encoded stays.
        """
        for encoding in encodings:
            if missing := missing_of(encoding):
                self.show(f"encoding {encoding.name}: {missing} of {len(encoding.sources)} are not in the cache")
            own, others = self._shares(encoding)
            self._encode(encoding, self._missing(encoding, own, every_seconds=REFRESH_SECONDS))
            self._encode(encoding, self._missing(encoding, others, every_seconds=0.0))
        self.processes.wait(self._check_stop)

    def _encode(self, encoding: Encoding, chunks: Iterator[Chunk]) -> None:
        pending: dict[str, Item] = {}
        begun = self.clock()
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                for chunk in _with_loaded(encoding, chunks, pool):
                    if not pending:
                        begun = self.clock()
                    keys, loaded = chunk
                    made = encoding.encode(loaded)
                    _check_finite(encoding, keys, made)
                    for index, key in enumerate(keys):
                        pending[key] = {part: value[index].clone() for part, value in made.items()}
                    if _bytes(pending) >= SHARD_BYTES or self.clock() - begun >= SHARD_SECONDS:
                        self._write(encoding, pending)
                    self._report(encoding, len(pending))
                    self._check_stop()
        finally:
            self._write(encoding, pending)

    def _shares(self, encoding: Encoding) -> tuple[list[Chunk], list[Chunk]]:
        """What this process begins with, and what it may help with, in this order."""
        chunks = chunks_of(encoding, self.batch_size)
        rank, world_size = self.processes.rank, self.processes.world_size
        shares = [
            chunks[index * len(chunks) // world_size : (index + 1) * len(chunks) // world_size]
            for index in range(world_size)
        ]
        following = [shares[(rank + offset) % world_size][::-1] for offset in range(1, world_size)]
        return shares[rank], [chunk for share in following for chunk in share]

    def _missing(self, encoding: Encoding, chunks: list[Chunk], *, every_seconds: float) -> Iterator[Chunk]:
        """What of the chunks nobody has encoded yet, as far as was looked `every_seconds`."""
        looked = float("-inf")
        for chunk in chunks:
            if (now := self.clock()) - looked >= every_seconds:
                looked = now
                encoding.shards.refresh()
            if left := [(key, source) for key, source in chunk if key not in encoding.shards]:
                yield left

    def _write(self, encoding: Encoding, pending: dict[str, Item]) -> None:
        if not pending:
            return
        try:
            encoding.shards.write(pending)
        except Exception as error:
            from adapter_trainer.checkpoint.checkpoint_folder import is_full

            if is_full(error):
                raise DiskFull(f"{encoding.shards.folder}: {NO_ROOM}; earlier results are kept") from None
            raise
        pending.clear()

    def _report(self, encoding: Encoding, pending: int) -> None:
        if self.clock() - self._reported < REPORT_SECONDS:
            return
        self._reported = self.clock()
        done = len(encoding.sources) - missing_of(encoding) + pending
        self.progress(done)
        self.show(f"encoding {encoding.name}: {done} of {len(encoding.sources)}")

    def _check_stop(self) -> None:
        if self.stop.signal_number:
            raise Stopped("stopped while encoding, before the first step; run again to continue")


NO_ROOM = (
    "no space left on the device for the cache; free some, name another folder in data.params.cache.folder, or set "
    "data.params.cache.precision to half or data.params.cache.mode to off"
)


def _check_finite(encoding: Encoding, keys: list[str], made: Item) -> None:
    """What overflows, or comes from damaged weights, would else be kept, and spoil every epoch."""
    for value in made.values():
        bad = ~value.isfinite().flatten(1).all(dim=1)
        if bad.any():
            first = encoding.sources[keys[int(bad.nonzero()[0])]]
            raise InvalidConfig(
                f"encoding {encoding.name}: {_name_of(first)} becomes NaN or infinite in {value.dtype}; set "
                "data.params.cache.precision to exact and optimization.mixed_precision to bf16 or no; if it is so already, "
                "the encoder's weights are damaged"
            )


def _with_loaded(
    encoding: Encoding, chunks: Iterator[Chunk], pool: ThreadPoolExecutor
) -> Iterator[tuple[list[str], list[Any]]]:
    """Keys and contents of the chunks, each read while the one before it is encoded."""
    ahead: tuple[list[str], list[Any]] | None = None
    for chunk in chunks:
        keys = [key for key, _ in chunk]
        upcoming = keys, [pool.submit(_loaded, encoding, source) for _, source in chunk]
        if ahead is not None:
            yield ahead[0], [future.result() for future in ahead[1]]
        ahead = upcoming
    if ahead is not None:
        yield ahead[0], [future.result() for future in ahead[1]]


def missing_of(encoding: Encoding) -> int:
    """Number of items that no known file holds."""
    return sum(key not in encoding.shards for key in encoding.sources)


def chunks_of(encoding: Encoding, batch_size: int) -> list[Chunk]:
    """PURE: all items, in the same order in every process, as batches of one group each."""
    ordered = sorted(encoding.sources.items(), key=lambda item: (repr(encoding.group(item[1])), item[0]))
    chunks = []
    for _, same in groupby(ordered, key=lambda item: encoding.group(item[1])):
        members = list(same)
        chunks += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    return chunks


def bytes_needed(encoding: Encoding) -> int:
    """About how much the missing items will take on disk: one of them is encoded to find out.

    Raises:
        InvalidData: that one cannot be read.
    """
    missing = [source for key, source in encoding.sources.items() if key not in encoding.shards]
    if not missing:
        return 0
    item = encoding.encode([_loaded(encoding, missing[0])])
    return len(missing) * (_bytes({"": item}) + HEADER_BYTES)


HEADER_BYTES = 256
"""About what a file's header says of one item."""


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is on, or will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _bytes(items: dict[str, Item]) -> int:
    return sum(value.numel() * value.element_size() for item in items.values() for value in item.values())


def _loaded(encoding: Encoding, source: Any) -> Any:
    try:
        return encoding.load(source)
    except InvalidData as error:
        raise InvalidData(f"encoding {encoding.name}: {_name_of(source)}: {error}") from None
    except OSError as error:
        raise InvalidData(f"encoding {encoding.name}: {_name_of(source)} cannot be read: {error.strerror}") from None


def _name_of(source: Any) -> Any:
    return source[0] if isinstance(source, tuple) else source
