"""PURE: what changed in a status -> the Kubernetes Event that tells it, if it is worth one."""

import hashlib
from datetime import datetime
from typing import Any

from adapter_api.job import API_VERSION, KIND, JobStatus
from adapter_operator.names import MANAGER, Key

MAX_MESSAGE = 1024
_WARNINGS = frozenset({"Failed", "Invalid", "Restarting", "Pending"})
_ORDERED = frozenset({"Resizing", "Suspending"})
"""What the user asked for is no warning."""
_TOLD = frozenset({"Complete", "Failed", "Invalid", "Suspended", "Restarting", "Pending"})
"""States that tell something that the conditions alone may hide a moment later."""


def event(key: Key, uid: str, before: JobStatus, after: JobStatus, now: datetime) -> dict[str, Any] | None:
    """The Event of a transition. Its name depends on what it tells: told twice, it is refused as existing."""
    shown = _shown(after)
    if shown is None or after.state not in _TOLD or shown == _shown(before):
        return None
    reason, message = shown
    if reason == "Suspending":
        return None
    if after.state == "Restarting" and (before.attempt, before.restarts) == (after.attempt, after.restarts):
        return None
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
        "type": "Warning" if after.state in _WARNINGS and reason not in _ORDERED else "Normal",
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def _shown(status: JobStatus) -> tuple[str, str] | None:
    for name in ("Failed", "Complete"):
        for condition in status.conditions:
            if condition.type == name and condition.status == "True":
                return condition.reason, condition.message
    for condition in status.conditions:
        if condition.type == "Accepted" and condition.status == "False":
            return condition.reason, condition.message
    return next(((c.reason, c.message) for c in status.conditions if c.type == "Running"), None)
