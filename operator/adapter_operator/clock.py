"""The time of the API server: the same for every operator, whatever the clock of its own machine says."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

TOLERANCE = timedelta(seconds=2)
"""Headers show whole seconds, and answers take their time."""


def _machine() -> datetime:
    return datetime.now(UTC)


class ServerClock:
    """Set by the header Date of answers, and carried on by a clock that only grows.

    Deadlines and backoffs count from times in objects, which the API server or an earlier operator wrote: the clock of this
    machine may be an hour off, or be set while the operator runs.

    Args:
        monotonic: Seconds that only grow.
        machine: Used until the first answer.
    """

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, machine: Callable[[], datetime] = _machine
    ) -> None:
        self._monotonic, self._machine = monotonic, machine
        self._set: tuple[datetime, float] | None = None

    def hear(self, date: str | None) -> None:
        """The header Date of an answer; one that is absent or means nothing changes nothing."""
        try:
            told = parsedate_to_datetime(date or "").astimezone(UTC)
        except ValueError:
            return
        if self._set is None or abs(told - self.now()) > TOLERANCE:
            self._set = (told, self._monotonic())

    def now(self) -> datetime:
        """The API server's time, to two seconds."""
        if self._set is None:
            return self._machine()
        told, at = self._set
        return told + timedelta(seconds=self._monotonic() - at)
