"""Decides when a status change is written: a new state at once, figures now and then, a passing state perhaps never."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from adapter_api.status import JobStatus
from adapter_operator.decide.decision import State
from adapter_operator.names import Key
from adapter_operator.observe.progress import interval
from adapter_operator.settings import Settings
from adapter_operator.tell import job_status

COUNTS_SECONDS = 15.0
"""Seconds between two counts of the pods of an attempt that does not run yet; the next state reports them anyway."""
PASSING_SECONDS = 2.0
"""Seconds for which the status does not say that an attempt starts: most pods run sooner, and then it says that."""
PASSING_EACH_SECONDS = 0.2
"""Seconds between two such reports when many attempts start at once, to spare the API server."""
PASSING_AT_MOST_SECONDS = 30.0
"""Seconds after which the start is reported in any case."""


@dataclass
class Pacing:
    """The pacing of all jobs. What it remembers only saves writes."""

    settings: Settings
    clock: Callable[[], float] = time.monotonic
    _written: dict[Key, float] = field(default_factory=dict)
    _due: dict[Key, float] = field(default_factory=dict)
    """When each start is reported if the attempt does not run before."""
    _last_due: float = float("-inf")

    def wait(self, key: Key, before: JobStatus, after: JobStatus, running: int) -> float:
        """Returns the seconds until a change may be written.

        Args:
            key: The job.
            before: The present status.
            after: The status that would be written.
            running: Number of running jobs: the more run, the less often figures are written.
        """
        now = self.clock()
        if job_status.is_passing(before, after):
            return max(0.0, self._passing(key, now) - now)
        if job_status.is_urgent(before, after):
            return 0.0
        pause = interval(self.settings, running)
        if after.state != State.RUNNING.value:
            pause = max(pause, COUNTS_SECONDS)
        return max(0.0, self._written.get(key, float("-inf")) + pause - now)

    def _passing(self, key: Key, now: float) -> float:
        if key not in self._due:
            due = max(now + PASSING_SECONDS, self._last_due + PASSING_EACH_SECONDS)
            self._due[key] = self._last_due = min(due, now + PASSING_AT_MOST_SECONDS)
        return self._due[key]

    def written(self, key: Key) -> None:
        """Records that a status has been written."""
        self._written[key] = self.clock()
        self._due.pop(key, None)

    def forget(self, key: Key) -> None:
        """Forgets a job that is gone."""
        self._written.pop(key, None)
        self._due.pop(key, None)
