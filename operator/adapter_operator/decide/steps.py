"""PURE: a decision -> the steps that carry it out, in their order."""

from dataclasses import dataclass

from adapter_api.status import JobStatus
from adapter_operator.decide.decision import Announce, Decision, Launch, Remove, RemoveJob, State

NAME_CONFLICT, REFUSED = "NameConflict", "Refused"
"""Reasons of a condition that says what prevents the next step."""


@dataclass(frozen=True)
class Tell:
    """Write the status that the decision gives the job, if it is another."""


@dataclass(frozen=True)
class Restore:
    """Create again, now and then, what somebody has deleted from under an attempt that runs: no watch tells of it."""

    attempt: int


Step = Announce | Tell | Launch | Remove | RemoveJob | Restore


def steps_of(decision: Decision, status: JobStatus) -> tuple[Step, ...]:
    """What to do, one after the other; each may be repeated, and after each the operator may end.

    The status is written before anything is created or deleted: it holds the attempt's number, without which what was
    created would be nobody's. Only where it says already that this attempt cannot be created, it is written afterwards:
    else it would say in turns that the attempt starts, and that it cannot.
    """
    announced = tuple(action for action in decision.actions if isinstance(action, Announce))
    actions = tuple(action for action in decision.actions if not isinstance(action, Announce))
    if is_prevented(status, decision.attempt):
        steps: tuple[Step, ...] = (*announced, *actions, Tell())
    else:
        steps = (*announced, Tell(), *actions)
    if decision.state is State.RUNNING and not decision.actions:
        steps = (*steps, Restore(decision.attempt))
    return steps


def is_prevented(status: JobStatus, attempt: int) -> bool:
    """Whether the status says that this attempt could not be created."""
    running = next((condition for condition in status.conditions if condition.type == "Running"), None)
    return running is not None and running.reason in {NAME_CONFLICT, REFUSED} and status.attempt == attempt
