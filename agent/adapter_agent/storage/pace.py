"""Ends replies that come too slowly: a store that sends a byte now and then never runs into the timeout of a read."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from adapter_agent.errors import EndpointUnreachable

SECONDS = 60.0
"""In which at least one block has to come, of those that the reader asks for: 256 KiB of a file, 64 KiB of a document."""


TOO_SLOW = "the requested data arrive too slowly; look at the store and the network"


class TooSlow(EndpointUnreachable):
    """So little came that it was not waited for any longer."""


class Stream(Protocol):
    """The body of a reply, as urllib3 and we have it."""

    def shutdown(self) -> None:
        """Makes a read that waits in another thread end, as if nothing more came."""


class Pace:
    """Counts what comes of one reply."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._came = 0
        self._came_before = 0
        self.was_too_slow = False
        """Whether it was shut down, so that its end is not the content's."""

    def came(self, count: int) -> None:
        """So many bytes have come."""
        self._came += count

    def has_moved(self) -> bool:
        """Whether something has come since it was asked last."""
        before, self._came_before = self._came_before, self._came
        return self._came != before

    def shut_down(self) -> None:
        """Ends the reading, which came too slowly."""
        self.was_too_slow = True
        with suppress(OSError, ValueError, RuntimeError):  # it has ended this very moment
            self._stream.shutdown()


class _Watcher:
    """One thread that looks at all replies, each once in so many seconds."""

    def __init__(self) -> None:
        self._looks: dict[Pace, float] = {}
        """When each is looked at next."""
        self._changed = threading.Condition()
        self._sleeps_until = math.inf
        self._thread: threading.Thread | None = None

    def begin(self, pace: Pace) -> None:
        """Looks at it from now on."""
        with self._changed:
            due = self._looks[pace] = time.monotonic() + SECONDS
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="pace", daemon=True)
                self._thread.start()
            elif due < self._sleeps_until:
                self._changed.notify()

    def end(self, pace: Pace) -> None:
        """Nothing more is read."""
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
    """While the block reads `stream`, and tells what comes, somebody looks whether anything does."""
    pace = Pace(stream)
    _watcher.begin(pace)
    try:
        yield pace
    finally:
        _watcher.end(pace)
