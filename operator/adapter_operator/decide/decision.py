"""PURE: what was decided about a job: the state to show, what to do, when to look again."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from adapter_api.status import JobStatus, LastFailure, Restarts
from adapter_operator.decide.failures import Failure


class State(Enum):
    """What a job is doing: shown to people, never an input to a decision."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    RESTARTING = "Restarting"
    COMPLETE = "Complete"
    FAILED = "Failed"
    INVALID = "Invalid"


@dataclass(frozen=True)
class Launch:
    """Create what the attempt needs, unless it exists."""

    attempt: int


@dataclass(frozen=True)
class Announce:
    """Give node 0 the name by which the others find it; to be done before it is told that the attempt runs.

    Not at launch: before it has an address its name leads nowhere, and telling so costs the cluster two writes.
    """

    attempt: int


@dataclass(frozen=True)
class Remove:
    """Delete the child Job and the pods of an attempt."""

    attempt: int


@dataclass(frozen=True)
class RemoveJob:
    """Delete the AdapterTrainingJob: its time to live is over."""


Action = Launch | Announce | Remove | RemoveJob


@dataclass(frozen=True)
class Decision:
    """What to write, then what to do, then when to look again."""

    state: State
    reason: str
    """CamelCase, for the condition that the state is shown by."""
    message: str
    attempt: int
    restarts: Restarts
    last_failure: LastFailure | None
    start_time: datetime | None
    actions: tuple[Action, ...] = ()
    look_at: datetime | None = None
    failure: Failure | None = None
    """The failure that this decision answers, if it does."""
    needs_fresh_view: bool = False
    """Whether it rests on something being absent, which a cache may only have missed."""


def is_shown_running(status: JobStatus) -> bool:
    """Whether the job has been told to run."""
    return any(c.type == "Running" and c.status == "True" for c in status.conditions)
