"""Keys to work on: each by one worker at a time, again after a failure with growing delays, or at a given time."""

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from adapter_operator.names import Key

FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 30.0


@dataclass
class _Entry:
    ready_at: float
    since: float
    """When it became ready, or was asked for."""


@dataclass
class WorkQueue:
    """A key that is added while a worker has it is handed out again afterwards, once.

    Args:
        clock: Seconds that only grow.
        jitter: A number from 0 to 1; delays are spread by it.
    """

    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    _waiting: dict[Key, _Entry] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _taken: set[Key] = field(default_factory=set)
    _failures: dict[Key, int] = field(default_factory=dict)
    _held: dict[Key, float] = field(default_factory=dict)
    """Until when the server has asked for time."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Hands the key out after `delay` seconds, or sooner if that was asked for before."""
        ready_at = max(self.clock() + delay, self._held.get(key, 0.0))
        entry = self._waiting.get(key)
        if entry is not None and entry.ready_at <= ready_at:
            return
        self._waiting[key] = _Entry(ready_at, ready_at)
        heapq.heappush(self._heap, (ready_at, key))
        self._changed.set()

    async def take(self) -> Key:
        """The next key that is ready and that no other worker has."""
        # One worker waits, the others wait for their turn to: a key then wakes one of them, not all.
        async with self._turn:
            while True:
                self._changed.clear()
                key, wait = self._next()
                if key is not None:
                    return key
                # Not wait_for: in Python 3.11 that swallows being cancelled at the moment at which a key comes.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._changed.wait()

    def _next(self) -> tuple[Key | None, float | None]:
        now, held = self.clock(), []
        found: Key | None = None
        while self._heap and self._heap[0][0] <= now:
            ready_at, key = heapq.heappop(self._heap)
            entry = self._waiting.get(key)
            if entry is None or entry.ready_at != ready_at:
                continue
            if key in self._taken:
                held.append((ready_at, key))
                continue
            del self._waiting[key]
            self._taken.add(key)
            found = key
            break
        for item in held:
            heapq.heappush(self._heap, item)
        if found is not None:
            return found, None
        # Held keys are ready, but only `done` can free them.
        upcoming = min((ready_at for ready_at, key in self._heap if key not in self._taken), default=None)
        return None, None if upcoming is None else max(0.0, upcoming - now)

    def done(self, key: Key, again_in: float | None = None) -> None:
        """The worker has succeeded."""
        self._taken.discard(key)
        self._failures.pop(key, None)
        self._held.pop(key, None)
        if again_in is not None:
            self.add(key, again_in)
        self._changed.set()

    def failed(self, key: Key, at_least: float = 0.0) -> float:
        """The worker has not: the key comes again after a delay, which is returned.

        An event may bring it earlier, but not before the `at_least` seconds that the server has asked for.
        """
        self._taken.discard(key)
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(FIRST_DELAY_SECONDS * float(2 ** min(count, 16)), LONGEST_DELAY_SECONDS)
        delay = max(delay * (0.5 + 0.5 * self.jitter()), at_least)
        self._held[key] = self.clock() + at_least
        # What was added meanwhile must not run before its time: the fault may be the server's load.
        self._waiting.pop(key, None)
        self.add(key, delay)
        self._changed.set()
        return delay

    def __len__(self) -> int:
        """Keys that are ready and not taken."""
        now = self.clock()
        return sum(entry.ready_at <= now for entry in self._waiting.values())

    def oldest(self) -> float:
        """Seconds that the first of them has waited."""
        now = self.clock()
        return max((now - entry.since for entry in self._waiting.values() if entry.ready_at <= now), default=0.0)
