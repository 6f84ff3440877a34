"""When a status is worth a write: a change of state at once, figures now and then, what passes by itself perhaps never."""

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
"""How often the pods of an attempt that is not running yet are counted in the status: the next state tells them anyway."""
PASSING_SECONDS = 2.0
"""How long it is not told that an attempt starts: most pods run sooner, and then that is told."""
PASSING_EACH_SECONDS = 0.2
"""Where many start at once, the API server has other things to do: they are told of one by one."""
PASSING_AT_MOST_SECONDS = 30.0
"""But none later than this."""


@dataclass
class Pacing:
    """For all jobs. What it remembers only saves writes."""

    settings: Settings
    clock: Callable[[], float] = time.monotonic
    _written: dict[Key, float] = field(default_factory=dict)
    _due: dict[Key, float] = field(default_factory=dict)
    """When to tell what may pass before."""
    _last_due: float = float("-inf")

    def wait(self, key: Key, before: JobStatus, after: JobStatus, running: int) -> float:
        """Seconds until a change may be written.

        Args:
            key: The job.
            before: What stands.
            after: What would be written.
            running: How many jobs run: the more, the rarer are figures.
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
        """A status has been written."""
        self._written[key] = self.clock()
        self._due.pop(key, None)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._written.pop(key, None)
        self._due.pop(key, None)
