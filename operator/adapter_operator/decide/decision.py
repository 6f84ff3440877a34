"""PURE: the result of a decision about a job: the state to show, the actions, and when to look again."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from adapter_api.status import JobStatus, LastFailure, Restarts
from adapter_operator.decide.failures import Failure


class State(Enum):
    """What a job is doing. It is shown to people, and is never an input to a decision."""

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
    """Create the objects that the attempt needs, unless they exist."""

    attempt: int


@dataclass(frozen=True)
class Announce:
    """Create the Service by whose name the others find node 0, before the status says that the attempt runs.

    It is not created at launch: until node 0 has an address, the name leads nowhere, and publishing that would cost the
    cluster two writes.
    """

    attempt: int


@dataclass(frozen=True)
class Remove:
    """Delete the child Job and the pods of an attempt."""

    attempt: int


@dataclass(frozen=True)
class RemoveJob:
    """Delete the AdapterTrainingJob, whose time to live is over."""


Action = Launch | Announce | Remove | RemoveJob


@dataclass(frozen=True)
class Decision:
    """What the operator writes, then what it does, and when it looks again."""

    state: State
    reason: str
    """Reason, in CamelCase, of the condition that shows the state."""
    message: str
    attempt: int
    restarts: Restarts
    last_failure: LastFailure | None
    start_time: datetime | None
    actions: tuple[Action, ...] = ()
    look_at: datetime | None = None
    failure: Failure | None = None
    """The failure that this decision answers, if there is one."""
    needs_fresh_view: bool = False
    """Whether the decision relies on an object being absent, which the cache may only have missed."""


def is_shown_running(status: JobStatus) -> bool:
    """Whether the status already says that the job runs."""
    return any(c.type == "Running" and c.status == "True" for c in status.conditions)
