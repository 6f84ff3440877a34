"""PURE: a job as the API server gives it -> its status in types, whatever version of the operator wrote it."""

from typing import Any

from adapter_api.status import JobStatus
from adapter_api.stored_status import status_of

Plain = dict[str, Any]


def status_in(job: Plain) -> JobStatus:
    """The status of a job; empty before the operator has seen it."""
    return status_of(job.get("status") or {})


def state_in(job: Plain) -> str:
    """What the job is doing, in the operator's own word: a later version may have one that this one does not know."""
    state = (job.get("status") or {}).get("state")
    return str(state) if state else "Pending"


def holds(job: Plain, condition: str) -> bool:
    """Whether a condition of the job is True."""
    return any(each.type == condition and each.status == "True" for each in status_in(job).conditions)


def has_ended(job: Plain) -> bool:
    """Whether the job is complete, or has failed for good."""
    return holds(job, "Complete") or holds(job, "Failed")


def where(job: Plain) -> str:
    """A job's state, and its step."""
    progress = status_in(job).progress
    at = "" if progress is None else f", step {progress.step} of {progress.total_steps}"
    return f"{state_in(job)}{at}"


def why(job: Plain) -> str:
    """What is said of a job that has failed, or does not run yet; empty where nothing is."""
    said = {condition.type: condition.message for condition in status_in(job).conditions if condition.message}
    return said.get("Failed") or said.get("Running") or ""
