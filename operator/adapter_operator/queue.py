"""Keys to work on: each by one worker at a time, by turns of namespaces, again after a failure or at a given time."""

import asyncio
import contextlib
import heapq
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from adapter_operator import metrics
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
    """What is not ready yet."""
    _ready: dict[str, deque[tuple[float, Key]]] = field(default_factory=dict)
    """What is, by namespace, the one whose turn it is first: a namespace with many jobs holds up no other."""
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
        if entry is None:
            metrics.queue_adds.inc()
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
        now = self.clock()
        while self._heap and self._heap[0][0] <= now:
            ready_at, key = heapq.heappop(self._heap)
            self._ready.setdefault(key[0], deque()).append((ready_at, key))
        for namespace in list(self._ready):
            found = self._first(namespace)
            if found is not None:
                if namespace in self._ready:  # the others have their turn first
                    self._ready[namespace] = self._ready.pop(namespace)
                metrics.queue_seconds.observe(now - self._waiting.pop(found).since)
                self._taken.add(found)
                return found, None
        # What is ready and taken only `done` can free.
        return None, max(0.0, self._heap[0][0] - now) if self._heap else None

    def _first(self, namespace: str) -> Key | None:
        """The first ready key of a namespace that no worker has; those that were put off since are forgotten."""
        ready, held = self._ready[namespace], []
        found = None
        while ready and found is None:
            ready_at, key = ready.popleft()
            entry = self._waiting.get(key)
            if entry is None or entry.ready_at != ready_at:
                continue
            if key in self._taken:
                held.append((ready_at, key))
            else:
                found = key
        ready.extendleft(reversed(held))
        if not ready:
            del self._ready[namespace]
        return found

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
        metrics.queue_retries.inc()
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
