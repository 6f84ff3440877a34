"""Ends replies that come too slowly: a store that sends a byte now and then never runs into the timeout of a read."""

import threading
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
        self._ended = threading.Event()
        self.was_too_slow = False
        """Whether it was shut down, so that its end is not the content's."""

    def came(self, count: int) -> None:
        """So many bytes have come."""
        self._came += count

    def end(self) -> None:
        """Nothing more is read."""
        self._ended.set()

    def watch(self) -> None:
        """Looks until the end; shuts the connection down when nothing has come between two looks."""
        before = 0
        while not self._ended.wait(SECONDS):
            if self._came == before:
                self.was_too_slow = True
                with suppress(OSError, ValueError, RuntimeError):  # it has ended this very moment
                    self._stream.shutdown()
                return
            before = self._came


@contextmanager
def watched(stream: Stream) -> Iterator[Pace]:
    """While the block reads `stream`, and tells what comes, somebody looks whether anything does."""
    pace = Pace(stream)
    thread = threading.Thread(target=pace.watch, name="pace", daemon=True)
    thread.start()
    try:
        yield pace
    finally:
        pace.end()
