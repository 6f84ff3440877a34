"""PURE: what changed in a status -> the Kubernetes Event that tells it, if it is worth one."""

import hashlib
from datetime import datetime
from typing import Any

from adapter_api.job import API_VERSION, KIND
from adapter_api.status import JobStatus
from adapter_operator.names import MANAGER, Key

MAX_MESSAGE = 1024
_WARNINGS = frozenset({"Failed", "Invalid", "Restarting", "Pending"})
_ORDERED = frozenset({"Changed", "Resizing", "Suspending"})
"""What the user asked for is no warning."""
_TOLD = frozenset({"Complete", "Failed", "Invalid", "Suspended", "Restarting", "Pending"})
"""States that tell something that the conditions alone may hide a moment later."""


def event(key: Key, uid: str, before: JobStatus, after: JobStatus, now: datetime) -> dict[str, Any] | None:
    """The Event of a transition. Its name depends on what it tells: told twice, it is refused as existing."""
    shown = _transition(before, after) or _trouble(before, after)
    if shown is None:
        return None
    reason, message, kind = shown
    digest = hashlib.sha256(f"{uid} {after.attempt} {reason} {after.state}".encode()).hexdigest()[:16]
    reference = {
        "apiVersion": API_VERSION, "kind": KIND, "namespace": key[0], "name": key[1], "uid": uid,
    }  # fmt: skip
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{key[1]}.{digest}", "namespace": key[0]},
        "involvedObject": reference,
        "type": kind,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


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
