"""PURE: what a child Job and its pods tell schedulers of the newest committed checkpoint, so that they can preempt what loses least."""

from datetime import UTC

from adapter_api.job import GROUP
from adapter_api.status import CheckpointStatus

STEP_ANNOTATION = f"{GROUP}/checkpoint-step"
TIME_ANNOTATION = f"{GROUP}/checkpoint-time"


def commit_marks(checkpoint: CheckpointStatus | None) -> dict[str, str]:
    """Annotations: the step, and the time of the commit as RFC 3339 in UTC. None before the first commit."""
    if checkpoint is None:
        return {}
    moment = checkpoint.committed_at.astimezone(UTC).replace(microsecond=0)
    return {STEP_ANNOTATION: str(checkpoint.step), TIME_ANNOTATION: moment.isoformat().replace("+00:00", "Z")}
