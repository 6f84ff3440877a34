"""PURE: what all jobs of a namespace come to, for metrics: states, the oldest newest commit, the share of productive time."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from adapter_api.status import JobState

STATES = frozenset(get_args(JobState))
UNKNOWN = "Unknown"
"""The state of a job whose status another version, or somebody else, has written: a label must not take any text."""
RUNNING = "Running"


@dataclass(slots=True)
class Summary:
    """One namespace's jobs."""

    states: Counter[str] = field(default_factory=Counter)
    """How many jobs are in which state."""
    commit_age: float | None = None
    """Seconds since the newest commit, or the start, of the running job that has gone longest without one."""
    productive: list[float] = field(default_factory=list)
    """Of each running job that knows it, the share of its time that went into steps that stand, 0 to 1."""

    @property
    def goodput(self) -> float | None:
        """The mean share of running jobs; None while none knows its own."""
        return sum(self.productive) / len(self.productive) if self.productive else None


def summaries(jobs: Iterable[tuple[str, Mapping[str, Any]]], now: datetime) -> dict[str, Summary]:
    """By namespace. What a status says is believed only as far as it has the right type: users may edit it.

    Args:
        jobs: Namespace and status, as it is stored, of each.
        now: The API server's time.
    """
    found: dict[str, Summary] = {}
    for namespace, status in jobs:
        summary = found.setdefault(namespace, Summary())
        state = status.get("state", "Pending")
        summary.states[state if isinstance(state, str) and state in STATES else UNKNOWN] += 1
        if state != RUNNING:
            continue
        checkpoint = status.get("checkpoint")
        committed = checkpoint.get("committedAt") if isinstance(checkpoint, dict) else None
        since = _moment(committed) or _moment(status.get("startTime"))
        if since is not None:
            summary.commit_age = max(summary.commit_age or 0.0, (now - since).total_seconds())
        percent = status.get("goodputPercent")
        if isinstance(percent, int | float) and 0 <= percent <= 100:
            summary.productive.append(percent / 100)
    return found


def _moment(value: Any) -> datetime | None:
    """A time with its zone, as the API writes it; None for anything else."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else None
