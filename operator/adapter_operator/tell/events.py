"""PURE: what changed in a status -> the Kubernetes Events that tell it, if it is worth one."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from adapter_api.job import API_VERSION, KIND
from adapter_api.status import Condition, JobStatus
from adapter_operator.names import MANAGER, Key

MAX_MESSAGE, MAX_INSTANCE = 1024, 128
"""Characters that the API server takes of a note, and of the name of who reports."""
ACTION = "Reconcile"
COMMITS_SECONDS = 60
"""Of the checkpoints that are committed within so long, one is told."""
_WARNINGS = frozenset({"Failed", "Invalid", "Restarting", "Pending"})
_ORDERED = frozenset({"Changed", "Resizing", "Suspending"})
"""What the user asked for is no warning."""
_TOLD = frozenset({"Complete", "Failed", "Invalid", "Suspended", "Restarting", "Pending"})
"""States that tell something that the conditions alone may hide a moment later."""


@dataclass(frozen=True)
class About:
    """The job that Events tell of, and who reports."""

    key: Key
    uid: str
    created: datetime
    reporter: str
    """Name of the operator's pod."""


@dataclass(frozen=True)
class _Told:
    reason: str
    message: str
    kind: str
    once: str
    """What tells it from others of the same reason in an attempt."""


def events(about: About, before: JobStatus, after: JobStatus, now: datetime) -> list[dict[str, Any]]:
    """The Events of a change. The name of each depends on what it tells: told twice, it is refused as existing."""
    change = _transition(before, after) or _trouble(before, after)
    found = [] if change is None else [_Told(*change, str(after.state))]
    found += [told for told in (_start(before, after), _run(about, before, after, now), _commit(before, after)) if told]
    return [_event(about, after, told, now) for told in found]


def _event(about: About, after: JobStatus, told: _Told, now: datetime) -> dict[str, Any]:
    namespace, name = about.key
    digest = hashlib.sha256(f"{about.uid} {after.attempt} {told.reason} {told.once}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{digest}", "namespace": namespace},
        "regarding": {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name, "uid": about.uid},
        "type": told.kind,
        "reason": told.reason,
        "action": ACTION,
        "note": told.message[:MAX_MESSAGE],
        "reportingController": MANAGER,
        "reportingInstance": about.reporter[:MAX_INSTANCE],
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }


def _start(before: JobStatus, after: JobStatus) -> _Told | None:
    """That an attempt starts, where that takes so long that the status tells it."""
    if after.state != "Starting" or (before.state, before.attempt) == (after.state, after.attempt):
        return None
    return _Told("Started", f"attempt {after.attempt} starts", "Normal", "")


def _run(about: About, before: JobStatus, after: JobStatus, now: datetime) -> _Told | None:
    """That an attempt runs, how long that took, and what it goes on from."""
    if after.state != "Running" or (before.state == "Running" and before.attempt == after.attempt):
        return None
    stopped = _condition(before, "Running")
    since = about.created if after.attempt <= 1 or stopped is None else stopped.last_transition_time
    took = max(now - since, timedelta(0)).total_seconds()
    nodes = after.nodes.ready
    told = f"attempt {after.attempt} runs on {nodes} {'node' if nodes == 1 else 'nodes'} after {took:.0f} s"
    if after.attempt > 1 and after.checkpoint is not None:
        return _Told("Resumed", f"{told}, from step {after.checkpoint.step}: {after.checkpoint.uri}", "Normal", "")
    return _Told("Running", told, "Normal", "")


def _commit(before: JobStatus, after: JobStatus) -> _Told | None:
    """That a checkpoint is committed: the first of each minute, by the time of its commit, so that nobody has to remember."""
    if after.checkpoint is None or after.checkpoint == before.checkpoint:
        return None
    minute = int(after.checkpoint.committed_at.timestamp()) // COMMITS_SECONDS
    if before.checkpoint is not None and int(before.checkpoint.committed_at.timestamp()) // COMMITS_SECONDS == minute:
        return None
    told = f"checkpoint {after.checkpoint.step} is committed: {after.checkpoint.uri}"
    return _Told("CheckpointCommitted", told, "Normal", str(minute))


def _condition(status: JobStatus, kind: str) -> Condition | None:
    return next((each for each in status.conditions if each.type == kind), None)


def _transition(before: JobStatus, after: JobStatus) -> tuple[str, str, str] | None:
    """Reason, message and type of a change of state that is worth telling."""
    shown = _shown(after)
    if shown is None or after.state not in _TOLD or shown == _shown(before) or shown[0] == "Suspending":
        return None
    if after.state == "Restarting" and (before.attempt, before.restarts) == (after.attempt, after.restarts):
        return None
    return *shown, "Warning" if after.state in _WARNINGS and shown[0] not in _ORDERED else "Normal"


def _trouble(before: JobStatus, after: JobStatus) -> tuple[str, str, str] | None:
    """The same of trouble with object storage, which changes no state: training goes on."""

    def found(status: JobStatus) -> tuple[str, str] | None:
        conditions = (c for c in status.conditions if c.type == "StorageHealthy" and c.status == "False")
        return next(((c.reason, c.message) for c in conditions), None)

    now = found(after)
    if now is None or now[0] == (found(before) or ("",))[0]:
        return None
    return *now, "Warning"


def _shown(status: JobStatus) -> tuple[str, str] | None:
    for name in ("Failed", "Complete"):
        for condition in status.conditions:
            if condition.type == name and condition.status == "True":
                return condition.reason, condition.message
    for condition in status.conditions:
        if condition.type == "Accepted" and condition.status == "False":
            return condition.reason, condition.message
    return next(((c.reason, c.message) for c in status.conditions if c.type == "Running"), None)
