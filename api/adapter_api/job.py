"""AdapterTrainingJob: what users apply."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from adapter_api.base import Count, Flag, PositiveCount, ResourceModel
from adapter_api.kubernetes import (
    DEFAULT_GRACE_SECONDS,
    MAX_NAME,
    JobName,
    LabelName,
    LabelValue,
    QualifiedName,
    ShortText,
)
from adapter_api.messages import refuse
from adapter_api.places import Data, Output, ResumeFrom, S3Access
from adapter_api.pod import Pod, Scheduling
from adapter_api.resources import MAX_PROCESSES, Resources
from adapter_api.status import JobStatus
from adapter_api.training import TrainingConfig

GROUP = "adaptertraining.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["adaptertraining.dev/v1alpha1"] = "adaptertraining.dev/v1alpha1"
KIND: Literal["AdapterTrainingJob"] = "AdapterTrainingJob"
PLURAL = "adaptertrainingjobs"
KUEUE = "kueue.x-k8s.io"
"""Domain of Kueue's labels, which it reads on kinds that it knows."""


MAX_NODES = 4096
GENERATED = "xxxxx"
"""Stands for the five characters that the API server adds to generateName."""
MAX_SECONDS = 2**31 - 1
"""What Kubernetes' own Jobs take for a time to live: 68 years."""


class Metadata(ResourceModel):
    """The part of an object's metadata that we read; the rest belongs to the API server and is kept aside."""

    model_config = ConfigDict(extra="ignore")

    name: JobName
    """Name of the job."""
    generate_name: ShortText | None = None
    """In place of name: the cluster adds five characters to this when the job is created."""
    namespace: LabelName | None = None
    """Namespace of the job."""
    uid: ShortText | None = None
    """Identity of the object."""
    generation: Count | None = None
    """Counts changes of the specification."""
    resource_version: ShortText | None = None
    """Version of the object."""
    labels: dict[QualifiedName, LabelValue] = {}
    """Labels."""
    annotations: dict[str, str] = {}
    """Annotations."""

    @model_validator(mode="before")
    @classmethod
    def _generated(cls, given: Any) -> Any:
        """A name as long as the one that the API server makes of generateName."""
        if isinstance(given, dict) and "name" not in given and isinstance(given.get("generateName"), str):
            return {**given, "name": f"{given['generateName'][:MAX_NAME]}{GENERATED}"}
        return given


class Restart(ResourceModel):
    """How often a failed attempt is followed by another."""

    max_restarts: Annotated[Count, Field(le=10_000)] = 3
    """Only failures of the job's own making are charged; lost nodes and preemption are not."""
    backoff_seconds: Annotated[Count, Field(le=86_400)] = 10
    """Before the first charged restart; doubles with each."""
    hang_seconds: Annotated[Count, Field(le=604_800)] = 1800
    """An attempt that makes no step for so long is restarted; 0 never restarts it."""


class JobSpec(ResourceModel):
    """What is trained, on what, and where results go."""

    image: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}$")] | None = None
    """By default the operator's setting."""
    nodes: Annotated[PositiveCount, Field(le=MAX_NODES)] = 1
    """Pods; each runs one torchrun."""
    procs_per_node: Annotated[PositiveCount, Field(le=MAX_PROCESSES)] | Literal["auto"] = "auto"
    """Training processes in each pod; auto: one for each requested GPU, else 1."""
    resources: Resources = Resources()
    """Compute resources of the trainer in each pod."""
    agent_resources: Resources | None = None
    """Compute resources of each of the agent's two containers, restore and sync; by default the operator's setting."""
    training: TrainingConfig
    """What is trained and how, as in a training configuration."""
    data: Data | None = None
    """What is at /data before training starts."""
    models: S3Access | None = None
    """How the s3:// addresses of models in `training` are reached; by default as the output is."""
    output: Output
    """Where results go."""
    resume_from: ResumeFrom | None = None
    """Another run's output to start from."""
    restart: Restart = Restart()
    """What happens after a failure."""
    suspend: Flag = False
    """True: save, and run no pods until it is false."""
    active_deadline_seconds: Annotated[PositiveCount, Field(le=MAX_SECONDS)] | None = None
    """Seconds from startTime after which the job fails if it is not complete."""
    ttl_seconds_after_finished: Annotated[Count, Field(le=MAX_SECONDS)] | None = None
    """Seconds after its end when the job is deleted; what it stored stays."""
    termination_grace_period_seconds: Annotated[PositiveCount, Field(le=86_400)] | None = None
    """Seconds that a pod gets to save and upload when it is told to stop. By default 120, and in later attempts longer if
    saving and uploading were measured to take longer."""
    scheduling: Scheduling = Scheduling()
    """Where pods may run."""
    pod: Pod = Pod()
    """What is added to pods."""

    @property
    def processes(self) -> int:
        """Training processes in each pod."""
        return max(self.resources.gpus, 1) if self.procs_per_node == "auto" else self.procs_per_node

    @property
    def world_size(self) -> int:
        """Training processes in all."""
        return self.nodes * self.processes


class AdapterTrainingJob(ResourceModel):
    """One training run."""

    api_version: Literal["adaptertraining.dev/v1alpha1"]
    """adaptertraining.dev/v1alpha1."""
    kind: Literal["AdapterTrainingJob"]
    """AdapterTrainingJob."""
    metadata: Metadata
    """Name and namespace."""
    spec: JobSpec
    """What is trained, on what, and where results go."""
    status: JobStatus = JobStatus()
    """What the operator has seen."""

    @model_validator(mode="after")
    def _queued_by_specification(self) -> Self:
        given = {
            f"{KUEUE}/queue-name": "queueName", f"{KUEUE}/priority-class": "queuePriorityClassName",
        }  # fmt: skip
        refuse(
            "AdapterTrainingJob",
            (
                (
                    ("metadata", "labels", label),
                    f"holds no job here: write spec.scheduling.{field}: {value}, and remove the label",
                )
                for label, field in given.items()
                if (value := self.metadata.labels.get(label)) is not None
            ),
        )
        return self

    @property
    def grace_seconds(self) -> int:
        """Seconds that a pod of the next attempt gets to save and upload when it is told to stop."""
        given = self.spec.termination_grace_period_seconds
        return given or self.status.termination_grace_period_seconds or DEFAULT_GRACE_SECONDS
