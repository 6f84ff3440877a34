"""What kube-controller-manager does on the API server stand-in: namespaces, garbage collection, and Jobs with their pods."""

import copy
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.operator.support.stand_in.objects import key_of, stamp
from tests.operator.support.stand_in.resources import CONFIG_MAPS, EVENTS, JOBS, NAMESPACES, PODS, SERVICE_ACCOUNTS
from tests.operator.support.stand_in.store import Change, Key
from tests.operator.support.stand_in.verbs import Options, Verbs

Plain = dict[str, Any]
Later = Callable[[float, Callable[[], None]], None]
"""Calls something so many seconds later."""

AGAIN_SECONDS = 0.5
"""Before pods that were refused are tried again."""
BATCH_SECONDS = 1.0
"""So much later than its pods a Job is looked at, as by the real controller: what they tell meanwhile is taken together."""
TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its Job has counted it."""
INDEX = "batch.kubernetes.io/job-completion-index"
ENDED = frozenset({"Failed", "Succeeded"})
_OPTIONS = Options(manager="kube-controller-manager")


def has_ended(pod: Plain) -> bool:
    """Whether its containers run no more."""
    return pod.get("status", {}).get("phase") in ENDED


class NamespaceController:
    """Gives a namespace what every namespace has, and empties one that is deleted."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def react(self, change: Change) -> None:
        namespace = change.key.name if change.key.resource == NAMESPACES else change.key.namespace
        found = self._verbs.store.get(Key(NAMESPACES, "", namespace))
        if found is None:
            return
        if "deletionTimestamp" in found["metadata"]:
            self._empty(namespace, is_new=change.key.resource == NAMESPACES)
        elif change.key.resource == NAMESPACES and change.before is None:
            for resource, name in ((SERVICE_ACCOUNTS, "default"), (CONFIG_MAPS, "kube-root-ca.crt")):
                self._verbs.create(Key(resource, namespace, name), {"metadata": {"name": name}}, _OPTIONS)

    def _empty(self, namespace: str, *, is_new: bool) -> None:
        store = self._verbs.store
        inside = [key for key, _ in store.all() if key.namespace == namespace]
        for key in inside if is_new else ():
            if store.get(key) is not None:
                self._verbs.delete(key, {"propagationPolicy": "Background"})
        if not any(key.namespace == namespace for key, _ in store.all()):
            self._verbs.gone(Key(NAMESPACES, "", namespace))


class GarbageCollector:
    """Deletes what has owners, none of which is there."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def react(self, change: Change) -> None:
        if change.after is None and change.before is not None:
            uid = change.before["metadata"]["uid"]
            for key, found in self._verbs.store.all():
                if uid in _owners(found):
                    self._collect(key, found)
        elif change.before is None and change.after is not None:
            self._collect(change.key, change.after)

    def _collect(self, key: Key, found: Plain) -> None:
        store, owners = self._verbs.store, _owners(found)
        there = store.get(key)
        if not owners or there is None or there["metadata"]["uid"] != found["metadata"]["uid"]:
            return
        if not any(store.has_uid(uid) for uid in owners):
            self._verbs.delete(key, {"propagationPolicy": "Background"})


class JobController:
    """Makes the pods of a Job, counts how they end, and says when the Job is over.

    One with a pod that may not fail (`backoffLimit`) fails, and what still runs of it is deleted; nothing is made again
    before the old pod has ended (`podReplacementPolicy: Failed`); a suspended one loses its pods. It leaves out parallelism
    below completions, pod failure policies, success policies, deadlines and the time to live.
    """

    def __init__(self, verbs: Verbs, later: Later, refused: dict[str, str]) -> None:
        self._verbs, self._later, self._refused = verbs, later, refused
        self._due: set[Key] = set()

    def react(self, change: Change) -> None:
        if change.key.resource == JOBS and change.after is not None:
            self._sync(change.key)
        elif change.key.resource == JOBS:
            for pod in self._verbs.store.of(PODS, change.key.namespace):
                if change.object["metadata"]["uid"] in _owners(pod):
                    self._verbs.release(key_of(PODS, pod), TRACKING)
        elif change.key.resource == PODS:
            self._of_pod(change)

    def _of_pod(self, change: Change) -> None:
        pod = change.object
        owner = next((each for each in pod["metadata"].get("ownerReferences") or () if each["kind"] == "Job"), None)
        if owner is None:
            return
        key = Key(JOBS, change.key.namespace, owner["name"])
        job = self._verbs.store.get(key)
        if job is None or job["metadata"]["uid"] != owner["uid"]:
            self._verbs.release(change.key, TRACKING)
        elif key not in self._due:
            self._due.add(key)
            self._later(BATCH_SECONDS, lambda: self._sync(key))

    def _sync(self, key: Key) -> None:
        self._due.discard(key)
        store = self._verbs.store
        job = store.get(key)
        if job is None:
            return
        uid, spec, status = job["metadata"]["uid"], job["spec"], copy.deepcopy(job.get("status") or {})
        pods = [pod for pod in store.of(PODS, key.namespace) if uid in _owners(pod)]
        self._count(pods, status)
        live = [pod for pod in pods if not has_ended(pod)]
        if not any(each["type"] in {"Complete", "Failed"} for each in status.get("conditions") or ()):
            now = stamp(datetime.now(UTC))
            status.setdefault("startTime", now)
            failed_too_often = status.get("failed", 0) > spec.get("backoffLimit", 6)
            if failed_too_often or spec.get("suspend"):
                self._delete(live)
            else:
                live += self._make(key, job, pods, live, status)
            if failed_too_often and not live:
                _conclude(status, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit", now)
            elif status.get("succeeded", 0) >= spec.get("completions", 1):
                _conclude(status, "Complete", "CompletionsReached", "Reached expected number of succeeded pods", now)
        status["active"] = sum("deletionTimestamp" not in pod["metadata"] for pod in live)
        self._verbs.set_status(key, {name: value for name, value in status.items() if value != 0})

    def _count(self, pods: list[Plain], status: Plain) -> None:
        """Counts, once each, pods that have ended; one that never had a node ends by being deleted."""
        for pod in pods:
            was_never_there = "deletionTimestamp" in pod["metadata"] and "nodeName" not in pod["spec"]
            if TRACKING not in pod["metadata"].get("finalizers", ()) or not (has_ended(pod) or was_never_there):
                continue
            has_succeeded = pod["status"]["phase"] == "Succeeded"
            counted = "succeeded" if has_succeeded else "failed"
            status[counted] = status.get(counted, 0) + 1
            index = (pod["metadata"].get("labels") or {}).get(INDEX)
            if has_succeeded and index is not None:
                indexes = {*filter(None, status.get("completedIndexes", "").split(",")), index}
                status["completedIndexes"] = ",".join(sorted(indexes, key=int))
            self._verbs.release(key_of(PODS, pod), TRACKING)

    def _make(self, key: Key, job: Plain, pods: list[Plain], live: list[Plain], status: Plain) -> list[Plain]:
        """The pods that are missing."""
        spec = job["spec"]
        if spec.get("completionMode") != "Indexed":
            missing = spec.get("completions", 1) - status.get("succeeded", 0) - len(live)
            return [self._pod(key, job, None) for _ in range(missing)]
        done = set(filter(None, status.get("completedIndexes", "").split(",")))
        there = {pod["metadata"]["labels"].get(INDEX) for pod in pods if not has_ended(pod)}
        wanted = [str(index) for index in range(spec["completions"])]
        missing = [index for index in wanted if index not in done | there]
        if missing and (why := self._refused.get(key.namespace)) is not None:
            self._tell_refusal(key, job, why)
            self._later(AGAIN_SECONDS, lambda: self._sync(key))
            return []
        return [self._pod(key, job, index) for index in missing]

    def _tell_refusal(self, key: Key, job: Plain, why: str) -> None:
        name = f"{key.name}.{secrets.token_hex(8)}"
        about = {"kind": "Job", "namespace": key.namespace, "name": key.name, "uid": job["metadata"]["uid"]}
        event = {
            "metadata": {"name": name}, "involvedObject": about, "type": "Warning", "reason": "FailedCreate",
            "message": f"Error creating: {why}", "lastTimestamp": stamp(datetime.now(UTC)),
        }  # fmt: skip
        self._verbs.create(Key(EVENTS, key.namespace, name), event, _OPTIONS)

    def _pod(self, key: Key, job: Plain, index: str | None) -> Plain:
        template, uid = job["spec"]["template"], job["metadata"]["uid"]
        given = template.get("metadata") or {}
        base = key.name if index is None else f"{key.name}-{index}"
        labels = {
            **(given.get("labels") or {}), "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
            "batch.kubernetes.io/job-name": key.name, "job-name": key.name, **({} if index is None else {INDEX: index}),
        }  # fmt: skip
        annotations = {**(given.get("annotations") or {}), **({} if index is None else {INDEX: index})}
        owner = {
            "apiVersion": "batch/v1", "kind": "Job", "name": key.name, "uid": uid, "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        name = f"{base}-{secrets.token_hex(3)[:5]}"
        metadata = {
            "name": name, "generateName": f"{base}-", "labels": labels, "annotations": annotations,
            "ownerReferences": [owner], "finalizers": [TRACKING],
        }  # fmt: skip
        hostname = {} if index is None else {"hostname": base}
        body = {"metadata": metadata, "spec": {**template["spec"], **hostname}}
        return self._verbs.create(Key(PODS, key.namespace, name), body, _OPTIONS)

    def _delete(self, pods: list[Plain]) -> None:
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self._verbs.delete(key_of(PODS, pod), {})


def _conclude(status: Plain, kind: str, reason: str, message: str, now: str) -> None:
    """Adds the condition that ends a Job."""
    told = {"type": kind, "status": "True", "reason": reason, "message": message, "lastProbeTime": now, "lastTransitionTime": now}  # fmt: skip
    status["conditions"] = [*(status.get("conditions") or []), told]
    if kind == "Complete":
        status["completionTime"] = now


def _owners(found: Plain) -> list[str]:
    return [each["uid"] for each in found["metadata"].get("ownerReferences") or ()]
