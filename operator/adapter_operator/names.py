"""PURE: names and labels of what belongs to a job and its attempts."""

from adapter_api.job import GROUP, KUEUE
from adapter_api.names import ATTEMPT_LABEL, JOB_LABEL, NODES_LABEL

MANAGER = "adapter-training-operator"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
CONTROLLER_LABEL = "batch.kubernetes.io/controller-uid"
"""The Job controller's own: uid of the Job that a pod belongs to."""
SPECIFICATION_ANNOTATION = f"{GROUP}/specification"
"""Digest of what an attempt's pods were made from; see specification.py."""
QUEUE_LABEL, QUEUE_PRIORITY_LABEL = f"{KUEUE}/queue-name", f"{KUEUE}/priority-class"
OURS = f"{MANAGED_BY_LABEL}={MANAGER}"
"""Selects every object that we have made."""

AGENT_PORT = 8081
"""Where the agent of a pod answers how far its node is."""

Key = tuple[str, str]
"""Namespace and name of a job."""


def attempt_name(job: str, attempt: int) -> str:
    """Name of the batch Job of one attempt."""
    return f"{job}-{attempt}"


def attempt_of(batch_job: str, job: str) -> int | None:
    """The attempt whose batch Job has this name, which nobody can edit; None if it is none of the job's."""
    owner, _, attempt = batch_job.rpartition("-")
    return number(attempt) if owner == job else None


def labels(job: str) -> dict[str, str]:
    """Labels of everything that belongs to a job."""
    return {MANAGED_BY_LABEL: MANAGER, JOB_LABEL: job}


def attempt_labels(job: str, attempt: int, nodes: int) -> dict[str, str]:
    """Labels of what belongs to one attempt."""
    return {**labels(job), ATTEMPT_LABEL: str(attempt), NODES_LABEL: str(nodes)}


def number(text: str | None) -> int | None:
    """A count from a label that anybody may have edited; None if it is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None
