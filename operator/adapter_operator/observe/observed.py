"""PURE: what is kept of the cluster's objects, and what a decision sees of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from adapter_api.launch import NODES_ARGUMENT
from adapter_api.names import JOB_LABEL, RESTORE, TRAINER
from adapter_api.progress import Ending, Progress
from adapter_api.scalars import visible
from adapter_operator.names import SPECIFICATION_ANNOTATION, Key, attempt_of, number

MAX_TEXT = 2048
"""Characters that are kept of a message."""
UNREACHABLE_SECONDS = 60
"""An agent that has not answered for so long is told of."""
GONE_AFTER_SECONDS = 30
"""A pod that is still there so long after its grace period is on a node that does not answer. Fencing makes what may
still run there harmless."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something is as it is, as the cluster says it."""

    reason: str
    """In one word."""
    message: str


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """How a container ended."""

    exit_code: int
    reason: str
    """The kubelet's, such as OOMKilled."""
    message: str
    """Termination message, or the end of the log."""
    finished_at: datetime | None

    @property
    def ending(self) -> Ending | None:
        """The agent's last word, if the message is one."""
        try:
            return Ending.model_validate_json(self.message)
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """One node of an attempt."""

    name: str
    uid: str
    job: Key
    attempt: int
    index: int
    nodes: int
    batch_job_uid: str
    phase: str
    is_running: bool
    """Whether the trainer's container runs."""
    ip: str | None = None
    deleted_at: datetime | None = None
    """When its grace period ends or ended, once it is being deleted."""
    unscheduled: str | None = None
    """Why no node takes it."""
    waiting: Cause | None = None
    """Of a container that cannot start."""
    disruption: str | None = None
    """Reason of the condition DisruptionTarget."""
    failure: Cause | None = None
    """Of the pod's own status, such as Evicted."""
    trainer: ContainerEnd | None = None
    restore: ContainerEnd | None = None
    version: int = field(default=0, compare=False)
    """Its resourceVersion: the higher, the newer."""

    @property
    def has_succeeded(self) -> bool:
        """Whether its training is complete and committed."""
        return self.phase == "Succeeded" or (self.trainer is not None and self.trainer.exit_code == 0)

    @property
    def has_failed(self) -> bool:
        """Whether it ended otherwise."""
        ends = (self.trainer, self.restore)
        return self.phase == "Failed" or any(end is not None and end.exit_code != 0 for end in ends)

    def is_gone(self, now: datetime) -> bool:
        """Whether nothing of it holds up a new attempt any more: it has been deleted and is long past its grace."""
        return self.deleted_at is not None and (now - self.deleted_at).total_seconds() > GONE_AFTER_SECONDS


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The child Job of one attempt."""

    uid: str
    is_suspended: bool = False
    failed: Cause | None = None
    """Of its condition Failed."""
    owner: str | None = None
    """uid of the AdapterTrainingJob that it belongs to."""
    specification: str | None = None
    """Digest of what its pods are made from; None if an older version made it."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An agent that does not answer."""

    since: datetime
    why: str


@dataclass(frozen=True)
class Observed:
    """Everything about one job that a decision is made from."""

    pods: tuple[ObservedPod, ...] = ()
    batch_jobs: dict[int, BatchJob] = field(default_factory=dict)
    """Attempt -> its child Job."""
    progress: Progress | None = None
    """What node 0's agent last said."""
    advanced_at: datetime | None = None
    """When that first showed the step that it shows."""
    answered_at: datetime | None = None
    """When node 0's agent last answered."""
    unreachable: Unreachable | None = None
    """Since when it has not, if it does not."""
    refused: tuple[int, str] | None = None
    """The attempt whose pods the API server does not let be created, and why."""
    announced: int = 0
    """The attempt whose node 0 this process has given its name."""
    created: datetime | None = None
    """When the job was, by its creationTimestamp: a whole second."""

    def of(self, attempt: int) -> tuple[ObservedPod, ...]:
        """Pods of an attempt, by index. A pod that has been replaced under the same index counts once, as its newest."""
        batch_job = self.batch_jobs.get(attempt)
        mine = [
            pod
            for pod in self.pods
            if pod.attempt == attempt and (batch_job is None or pod.batch_job_uid == batch_job.uid)
        ]
        return tuple(sorted(mine, key=lambda pod: (pod.index, pod.name)))


def pod_of(raw: dict[str, Any]) -> ObservedPod | None:
    """The pod in an object of the API; None if it is no node of a job."""
    metadata, status = raw.get("metadata", {}), raw.get("status", {})
    job = (metadata.get("labels") or {}).get(JOB_LABEL)
    owner = next((o for o in metadata.get("ownerReferences", ()) if o.get("controller") and o["kind"] == "Job"), None)
    if job is None or owner is None or (attempt := attempt_of(owner["name"], job)) is None:
        return None
    # Labels anybody can edit; a pod's name and its containers' commands nobody can.
    index, nodes = _index(metadata["name"], owner["name"]), _nodes(raw.get("spec") or {})
    if index is None or nodes is None:
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or []
    init_containers = status.get("initContainerStatuses") or []
    trainer: dict[str, Any] = next((c for c in containers if c["name"] == TRAINER), {})
    restore: dict[str, Any] = next((c for c in init_containers if c["name"] == RESTORE), {})
    scheduled = conditions.get("PodScheduled", {})
    disruption = conditions.get("DisruptionTarget", {})
    reason = status.get("reason")
    return ObservedPod(
        name=metadata["name"],
        uid=metadata["uid"],
        job=(metadata["namespace"], job),
        attempt=attempt,
        index=index,
        nodes=nodes,
        batch_job_uid=owner["uid"],
        phase=status.get("phase", "Pending"),
        is_running=_is_running(status, trainer),
        ip=status.get("podIP"),
        deleted_at=time_of(metadata.get("deletionTimestamp")),
        unscheduled=_text(scheduled.get("message")) if scheduled.get("reason") == "Unschedulable" else None,
        waiting=_waiting([*init_containers, *containers]),
        disruption=disruption.get("reason", "DisruptionTarget") if disruption.get("status") == "True" else None,
        failure=Cause(reason, _text(status.get("message"))) if reason else None,
        trainer=_end(trainer),
        restore=_end(restore),
        version=int(metadata.get("resourceVersion", 0)),
    )


def batch_job_of(raw: dict[str, Any]) -> BatchJob:
    """The child Job in an object of the API."""
    conditions = (raw.get("status") or {}).get("conditions") or ()
    failed = next((c for c in conditions if c["type"] == "Failed" and c["status"] == "True"), None)
    return BatchJob(
        uid=raw["metadata"]["uid"],
        owner=next((o["uid"] for o in raw["metadata"].get("ownerReferences") or () if o.get("controller")), None),
        specification=(raw["metadata"].get("annotations") or {}).get(SPECIFICATION_ANNOTATION),
        is_suspended=bool(raw.get("spec", {}).get("suspend")),
        failed=None if failed is None else Cause(failed.get("reason", "Failed"), _text(failed.get("message"))),
    )


def _index(pod: str, batch_job: str) -> int | None:
    """The index of a pod, as the Job controller has named it: <Job>-<index>-<five characters>."""
    given = pod.removeprefix(f"{batch_job}-").rpartition("-")[0]
    return number(given) if pod.startswith(f"{batch_job}-") else None


def _nodes(spec: dict[str, Any]) -> int | None:
    """How many nodes a pod was launched to train with."""
    for container in spec.get("containers") or ():
        if container.get("name") == TRAINER:
            for argument in container.get("command") or ():
                if argument.startswith(NODES_ARGUMENT):
                    return number(argument.removeprefix(NODES_ARGUMENT)) or None
    return None


def time_of(text: str | None) -> datetime | None:
    """A timestamp of the API."""
    return None if text is None else datetime.fromisoformat(text)


def _is_running(status: dict[str, Any], trainer: dict[str, Any]) -> bool:
    if status.get("phase") != "Running":
        return False
    return "running" in trainer.get("state", {}) if trainer else True


def _end(container: dict[str, Any]) -> ContainerEnd | None:
    ended = container.get("state", {}).get("terminated")
    if ended is None:
        return None
    return ContainerEnd(
        ended.get("exitCode", 0),
        ended.get("reason", ""),
        visible(ended.get("message", "")[:4096]),
        time_of(ended.get("finishedAt")),
    )


def all_running(pods: tuple[ObservedPod, ...]) -> bool:
    """Whether there are pods, and each runs or has succeeded."""
    return all(pod.is_running or pod.has_succeeded for pod in pods) and bool(pods)


_NORMAL_WAITING = frozenset({"PodInitializing", "ContainerCreating"})


def _waiting(containers: Iterable[dict[str, Any]]) -> Cause | None:
    for container in containers:
        waiting = container.get("state", {}).get("waiting")
        if waiting is not None and waiting.get("reason", "PodInitializing") not in _NORMAL_WAITING:
            return Cause(waiting["reason"], _text(waiting.get("message")))
    return None


def _text(text: str | None) -> str:
    return visible((text or "")[:MAX_TEXT])
