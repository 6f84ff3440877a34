"""Waits for an event, and says which one did not come and what was there instead."""

import time
from collections.abc import Callable

_PATIENCE = 5
"""Times that a question's own duration is waited for before the next."""
_LONGEST_PAUSE_SECONDS = 5.0
"""A question that took half a minute, because it did something on the way, is not asked again after minutes only."""


def wait_until(
    what: str,
    holds: Callable[[], object],
    seconds: float = 240,
    *,
    state: Callable[[], object] = str,
    pause: float = 0.02,
) -> None:
    """Return once `holds()` is true.

    Args:
        what: The event, as a statement: "checkpoint 10 is committed".
        holds: Whether it has happened; asked every `pause` seconds.
        seconds: A limit for when all is lost: a busy machine takes many times as long as an idle one.
        state: Describes how things stand, for the message.
        pause: Seconds between two questions; more where a question itself takes long, so that asking slows nobody down.

    Raises:
        AssertionError: it has not happened in time.
    """
    end = time.monotonic() + seconds
    asked = time.monotonic()
    while not holds():
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"not within {seconds:g} s: {what}\n{state()}")
        time.sleep(max(pause, min(_PATIENCE * (now - asked), _LONGEST_PAUSE_SECONDS)))
        asked = time.monotonic()
