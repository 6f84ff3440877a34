"""Ends replies that arrive too slowly: a store that sends a byte now and then never exceeds the timeout of a read."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from adapter_agent.errors import EndpointUnreachable

SECONDS = 60.0
"""Seconds in which at least one block of the reader's size must arrive: 256 KiB of a file, 64 KiB of a document."""


TOO_SLOW = "the requested data arrive too slowly; look at the store and the network"


class TooSlow(EndpointUnreachable):
    """So little of a reply arrived that it is no longer waited for."""


class Stream(Protocol):
    """The body of a reply, as urllib3 and this agent have it."""

    def shutdown(self) -> None:
        """Ends a read that waits in another thread, as if nothing more arrived."""


class Pace:
    """Counts what arrives of one reply."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._came = 0
        self._came_before = 0
        self.was_too_slow = False
        """Whether the reply was shut down, so that its end is not the end of the content."""

    def came(self, count: int) -> None:
        """Records that so many bytes have arrived."""
        self._came += count

    def has_moved(self) -> bool:
        """Whether anything has arrived since the last call."""
        before, self._came_before = self._came_before, self._came
        return self._came != before

    def shut_down(self) -> None:
        """Ends the reading of a reply that arrives too slowly."""
        self.was_too_slow = True
        with suppress(OSError, ValueError, RuntimeError):  # it has ended this very moment
            self._stream.shutdown()


class _Watcher:
    """One thread that looks at all replies, at each once in SECONDS."""

    def __init__(self) -> None:
        self._looks: dict[Pace, float] = {}
        """Time of the next look at each reply."""
        self._changed = threading.Condition()
        self._sleeps_until = math.inf
        self._thread: threading.Thread | None = None

    def begin(self, pace: Pace) -> None:
        """Watches a reply from now on."""
        with self._changed:
            due = self._looks[pace] = time.monotonic() + SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="pace", daemon=True)
                self._thread.start()
            elif due < self._sleeps_until:
                self._changed.notify()

    def end(self, pace: Pace) -> None:
        """Stops watching a reply."""
        with self._changed:
            self._looks.pop(pace, None)

    def _watch(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                slow = [pace for pace, due in self._looks.items() if due <= now and not pace.has_moved()]
                for pace in slow:
                    del self._looks[pace]
                self._looks.update({pace: now + SECONDS for pace, due in self._looks.items() if due <= now})
                if not slow:
                    self._sleeps_until = min(self._looks.values(), default=math.inf)
                    self._changed.wait(None if self._sleeps_until == math.inf else self._sleeps_until - now)
            for pace in slow:
                pace.shut_down()


_watcher = _Watcher()


@contextmanager
def watched(stream: Stream) -> Iterator[Pace]:
    """Watches, while the block reads `stream` and counts what arrives, whether anything does."""
    pace = Pace(stream)
    _watcher.begin(pace)
    try:
        yield pace
    finally:
        _watcher.end(pace)
