"""The trimmed objects that watches and lists have shown: jobs, their pods, their child Jobs, and their progress."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from adapter_api.document import MAX_BYTES, MAX_DEPTH
from adapter_api.names import JOB_LABEL
from adapter_api.progress import Progress
from adapter_api.scalars import visible
from adapter_operator.guarded import taken
from adapter_operator.names import Key, attempt_of
from adapter_operator.observe.observed import (
    MAX_TEXT,
    UNREACHABLE_SECONDS,
    BatchJob,
    Observed,
    ObservedPod,
    Unreachable,
    batch_job_of,
    pod_of,
)

Plain = dict[str, Any]
NOT_YET_TOLD = datetime.max.replace(tzinfo=UTC)
"""Seconds after which a deleted pod's grace period counts as over, until the API server gives the time."""


@dataclass(slots=True)
class CachedJob:
    """An AdapterTrainingJob: its specification as compact JSON, and the other fields that are read."""

    uid: str
    created: str
    resource_version: int
    generation: int
    deleting: bool
    spec: bytes
    status: Plain
    fault: str | None = None
    """Why the specification is not kept, if it is not."""

    @property
    def state(self) -> str:
        """The status as the object shows it."""
        return str(self.status.get("state", "Pending"))

    def raw(self, key: Key) -> Plain:
        """Returns the parts of the object that are read."""
        metadata = {"namespace": key[0], "name": key[1], "uid": self.uid, "generation": self.generation}
        return {"metadata": metadata, "spec": orjson.loads(self.spec), "status": self.status}


@dataclass(slots=True)
class _Run:
    """The objects that belong to one job, without the job itself."""

    pods: dict[str, ObservedPod] = field(default_factory=dict)
    batch_jobs: dict[int, BatchJob] = field(default_factory=dict)
    progress: Progress | None = None
    advanced_at: datetime | None = None
    answered_at: datetime | None = None
    unreachable: Unreachable | None = None
    refused: tuple[int, str] | None = None
    announced: int = 0


class Cache:
    """The cache. One task fills it, and reconcilers of the same event loop read it: no method waits."""

    def __init__(self) -> None:
        self._jobs: dict[Key, CachedJob] = {}
        self._runs: dict[Key, _Run] = {}
        self.states: Counter[str] = Counter()
        """Number of jobs in each state."""

    def jobs(self) -> Iterator[tuple[Key, CachedJob]]:
        """Keys of all jobs."""
        return iter(list(self._jobs.items()))

    def job(self, key: Key) -> CachedJob | None:
        """Returns one job."""
        return self._jobs.get(key)

    def observed(self, key: Key) -> Observed:
        """Returns what is known of a job's attempts."""
        run, job = self._runs.get(key), self._jobs.get(key)
        created = None if job is None else datetime.fromisoformat(job.created)
        if run is None:
            return Observed(created=created)
        # Labels anybody can set: a Job that is not owned is not ours.
        mine = {n: each for n, each in run.batch_jobs.items() if job is None or each.owner == job.uid}
        return Observed(
            tuple(run.pods.values()), mine, run.progress, run.advanced_at, run.answered_at, run.unreachable, run.refused,
            run.announced, created,
        )  # fmt: skip

    def put_job(self, raw: Plain) -> Key:
        """Stores a job from an event, a list or a reply. An older version than the known one changes nothing."""
        metadata = raw["metadata"]
        key: Key = (metadata["namespace"], metadata["name"])
        version = int(metadata["resourceVersion"])
        spec, fault = _compact(raw.get("spec"))
        known = self._jobs.get(key)
        if known is not None and known.uid == metadata["uid"]:
            # Not by generation: under a CRD that has changed, a specification is served differently without being changed.
            if (known.resource_version, known.spec) == (version, spec) or known.resource_version > version:
                return key
            spec = known.spec if known.spec == spec else spec
        elif known is not None:
            if known.resource_version > version:
                return key  # a predecessor of the same name: what is told of two objects may come in any order
            self._runs.pop(key, None)
        if known is not None:
            self.states[known.state] -= 1
        status = raw.get("status")
        job = self._jobs[key] = CachedJob(
            uid=metadata["uid"],
            created=metadata["creationTimestamp"],
            resource_version=version,
            generation=metadata["generation"],
            deleting="deletionTimestamp" in metadata,
            spec=spec,
            fault=fault,
            # One that is no object, as another version's schema may have let in, must not stop the other jobs.
            status=status if isinstance(status, dict) else {},
        )
        self.states[job.state] += 1
        return key

    def drop_job(self, raw: Plain) -> Key:
        """Removes a job that is gone."""
        metadata = raw["metadata"]
        key: Key = (metadata["namespace"], metadata["name"])
        known = self._jobs.get(key)
        if known is not None and known.uid == metadata["uid"]:
            self._forget(key)
        return key

    def keep_jobs(self, keys: set[Key]) -> list[Key]:
        """Forgets all jobs except these. Returns those that were forgotten."""
        lost = [key for key in self._jobs if key not in keys]
        for key in lost:
            self._forget(key)
        return lost

    def _forget(self, key: Key) -> None:
        self.states[self._jobs.pop(key).state] -= 1
        self._runs.pop(key, None)

    def put_pod(self, raw: Plain) -> Key | None:
        """Stores a pod from an event. Returns the job that it belongs to, if the event is news."""
        pod = pod_of(raw)
        return pod.job if pod is not None and self._put(pod) else None

    def _put(self, pod: ObservedPod) -> bool:
        """Whether the pod differs from the known one."""
        pods = self._run(pod.job).pods
        known = pods.get(pod.name)
        if known is not None and known.uid == pod.uid and known.version > pod.version:
            return False
        if known is not None and known.uid == pod.uid and pod.deleted_at is None:
            pod = replace(pod, deleted_at=known.deleted_at)  # no deletion is taken back: what lacks it is from before
        pods[pod.name] = pod
        return known != pod

    def pods_leave(self, key: Key, batch_jobs: set[str]) -> None:
        """Marks pods that have just been deleted, by the uid of their child Job, until the watch shows it."""
        pods = self._run(key).pods
        for pod in list(pods.values()):
            if pod.batch_job_uid in batch_jobs and pod.deleted_at is None:
                pods[pod.name] = replace(pod, deleted_at=NOT_YET_TOLD)

    def drop_pod(self, raw: Plain) -> Key | None:
        """Removes a pod that is gone."""
        pod = pod_of(raw)
        if pod is None:
            return None
        run = self._runs.get(pod.job)
        known = None if run is None else run.pods.get(pod.name)
        if run is not None and known is not None and known.uid == pod.uid:
            del run.pods[pod.name]
        return pod.job

    def set_pods(self, key: Key, raws: Iterable[Plain]) -> None:
        """Stores all pods of one job from a list."""
        pods = [pod for raw in raws if (pod := taken(pod_of, raw)) is not None and pod.job == key]
        self._run(key).pods = {pod.name: pod for pod in pods}

    def set_all_pods(self, found: Iterable[ObservedPod], listed_before: set[str]) -> set[Key]:
        """Stores all pods from a list. Forgets the known pods in `listed_before` that the list does not contain.

        Returns the jobs whose pods changed. What the watch reported while the list was made is newer than the list: a pod
        that appeared is kept, and a pod that ended does not come back.
        """
        names = {(pod.job, pod.name, pod.uid): pod for pod in found}
        went = listed_before - self.pod_uids()
        changed: set[Key] = set()
        for key, run in self._runs.items():
            for pod in list(run.pods.values()):
                if pod.uid in listed_before and (key, pod.name, pod.uid) not in names:
                    del run.pods[pod.name]
                    changed.add(key)
        changed.update(pod.job for pod in names.values() if pod.uid not in went and self._put(pod))
        return changed

    def pod_uids(self) -> set[str]:
        """Versions of all known pods."""
        return {pod.uid for run in self._runs.values() for pod in run.pods.values()}

    def put_batch_job(self, raw: Plain) -> None:
        """Stores a child Job from a list or a reply."""
        job = raw["metadata"].get("labels", {}).get(JOB_LABEL)
        if job is not None and (attempt := attempt_of(raw["metadata"]["name"], job)) is not None:
            self._run((raw["metadata"]["namespace"], job)).batch_jobs[attempt] = batch_job_of(raw)

    def drop_batch_job(self, key: Key, attempt: int) -> None:
        """Removes a child Job that is gone."""
        if (run := self._runs.get(key)) is not None:
            run.batch_jobs.pop(attempt, None)

    def set_all_batch_jobs(self, raws: Iterable[Plain], known_before: set[str]) -> None:
        """Stores all child Jobs from a list. Jobs created while the list was made are kept."""
        found = list(raws)
        uids = {raw["metadata"]["uid"] for raw in found}
        for run in self._runs.values():
            for attempt, batch_job in list(run.batch_jobs.items()):
                if batch_job.uid in known_before and batch_job.uid not in uids:
                    del run.batch_jobs[attempt]
        for raw in found:
            taken(self.put_batch_job, raw)

    def batch_job_uids(self) -> set[str]:
        """Versions of all known child Jobs."""
        return {batch_job.uid for run in self._runs.values() for batch_job in run.batch_jobs.values()}

    def put_progress(self, key: Key, progress: Progress, now: datetime) -> bool:
        """Stores an agent's answer. Returns whether it is news."""
        run = self._runs.get(key)
        if run is None or key not in self._jobs:
            return False
        before = run.progress
        if before is None or _advance(progress) != _advance(before):
            run.advanced_at = now
        was_unreachable, run.unreachable = run.unreachable is not None, None
        run.progress, run.answered_at = progress, now
        return was_unreachable or before is None or _news(before) != _news(progress)

    def put_unreachable(self, key: Key, why: str, now: datetime) -> bool:
        """Records that an agent did not answer. Returns whether that has lasted long enough to be reported now."""
        run = self._runs.get(key)
        if run is None or key not in self._jobs:
            return False
        if run.unreachable is None:
            run.unreachable = Unreachable(now, why)
            return False
        before = run.unreachable
        run.unreachable = replace(before, why=why)
        return (now - before.since).total_seconds() >= UNREACHABLE_SECONDS

    def put_refused(self, key: Key, attempt: int, why: str | None) -> bool:
        """Stores why an attempt's pods are not created, or None if no reason is known. Returns whether that is news."""
        run = self._run(key)
        before, run.refused = run.refused, None if why is None else (attempt, visible(why[:MAX_TEXT]))
        return run.refused != before

    def put_announced(self, key: Key, attempt: int) -> None:
        """Records that the nodes of an attempt can find each other."""
        self._run(key).announced = attempt

    def forget_progress(self, key: Key) -> None:
        """Forgets the progress: a new attempt reports its own."""
        if (run := self._runs.get(key)) is not None:
            run.progress, run.advanced_at, run.answered_at, run.unreachable = None, None, None, None

    def _run(self, key: Key) -> _Run:
        return self._runs.setdefault(key, _Run())


def _compact(spec: object) -> tuple[bytes, str | None]:
    """Returns a specification as JSON, or None and the reason: a specification that cannot be a job's is not kept."""
    try:
        compact = orjson.dumps(spec)
    except TypeError:  # what came as JSON goes back to it, unless it is deeper than the encoder goes
        return b"null", f"spec: is nested deeper than {MAX_DEPTH} levels; flatten it"
    if len(compact) > MAX_BYTES:
        return b"null", f"spec: is {len(compact)} bytes; at most {MAX_BYTES} are accepted: move bulk data into files"
    return compact, None


def _news(progress: Progress) -> object:
    """The parts of a status whose change is news at once."""
    return progress.step, progress.checkpoint, progress.upload_error is None, progress.restore_warning


def _advance(progress: Progress) -> tuple[object, ...]:
    """The figures that change while a run makes progress; a run that hangs keeps them."""
    return progress.step, progress.phase, progress.encoded
