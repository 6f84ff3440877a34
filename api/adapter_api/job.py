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
MAX_BACKOFF_SECONDS = 3600
GENERATED = "xxxxx"
"""Stands for the five characters that the API server adds to generateName."""
MAX_SECONDS = 2**31 - 1
"""What Kubernetes' own Jobs take for a time to live: 68 years."""


class Metadata(ResourceModel):
    """The metadata that this project reads; the API server owns the rest."""

    model_config = ConfigDict(extra="ignore")

    name: JobName
    """Name of the job."""
    generate_name: ShortText | None = None
    """In place of name: the cluster adds five characters to this when the job is created."""
    namespace: LabelName | None = None
    """Namespace of the job."""
    uid: ShortText | None = None
    """UID of the object."""
    generation: Count | None = None
    """Generation of the specification: a counter that each change increases."""
    resource_version: ShortText | None = None
    """Resource version of the object."""
    labels: dict[QualifiedName, LabelValue] = {}
    """Labels of the job."""
    annotations: dict[str, str] = {}
    """Annotations of the job."""

    @model_validator(mode="before")
    @classmethod
    def _generated(cls, given: Any) -> Any:
        """A name as long as the one that the API server makes of generateName."""
        if isinstance(given, dict) and "name" not in given and isinstance(given.get("generateName"), str):
            return {**given, "name": f"{given['generateName'][:MAX_NAME]}{GENERATED}"}
        return given


class Restart(ResourceModel):
    """When and how often a failed attempt is followed by a new one."""

    max_restarts: Annotated[Count, Field(le=10_000)] = 3
    """Number of charged restarts after which the job fails. Failures that the job causes are charged; lost nodes and
    preemption are not."""
    backoff_seconds: Annotated[Count, Field(le=86_400)] = 10
    """Seconds before the first charged restart; the delay doubles with each further one."""
    hang_seconds: Annotated[Count, Field(le=604_800)] = 1800
    """Seconds without a training step after which an attempt counts as hanging and is restarted; 0 disables the
    check."""

    def backoff(self, restart: int) -> int:
        """Seconds before a charged restart, counted from 1: twice as many as before the one before it, up to an hour."""
        factor: int = 2 ** min(restart - 1, 20)
        return min(self.backoff_seconds * factor, MAX_BACKOFF_SECONDS)


class JobSpec(ResourceModel):
    """What is trained, on which resources, and where the results go."""

    image: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}$")] | None = None
    """Container image of the trainer; by default the one set in the operator."""
    nodes: Annotated[PositiveCount, Field(le=MAX_NODES)] = 1
    """Number of pods; each pod runs one torchrun."""
    procs_per_node: Annotated[PositiveCount, Field(le=MAX_PROCESSES)] | Literal["auto"] = "auto"
    """Training processes in each pod; auto: one per requested GPU, or 1 without GPUs."""
    resources: Resources = Resources()
    """Compute resources of the trainer container in each pod."""
    agent_resources: Resources | None = None
    """Compute resources of each agent container, restore and sync; by default those set in the operator."""
    training: TrainingConfig
    """Training configuration; the same fields as in configs/*.yaml."""
    data: Data | None = None
    """Source of the training data, which is available at /data."""
    models: S3Access | None = None
    """How to access models that `training` names by an s3:// address; by default with the access of the output."""
    output: Output
    """Where the results are stored."""
    resume_from: ResumeFrom | None = None
    """Checkpoint of another run to start from."""
    restart: Restart = Restart()
    """What happens after a failure."""
    suspend: Flag = False
    """Whether the job is suspended. True saves a checkpoint and deletes the pods; false continues from it."""
    active_deadline_seconds: Annotated[PositiveCount, Field(le=MAX_SECONDS)] | None = None
    """Seconds after startTime at which an unfinished job fails; by default there is no deadline."""
    ttl_seconds_after_finished: Annotated[Count, Field(le=MAX_SECONDS)] | None = None
    """Seconds after the end of the job at which it is deleted; its checkpoints are kept. By default it is not
    deleted."""
    termination_grace_period_seconds: Annotated[PositiveCount, Field(le=86_400)] | None = None
    """Seconds that a stopping pod has to save and upload a checkpoint. By default 120, and in later attempts longer if
    saving and uploading took longer."""
    scheduling: Scheduling = Scheduling()
    """Where the pods may run."""
    pod: Pod = Pod()
    """Additional settings of the pods."""

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
    """Version of the API: adaptertraining.dev/v1alpha1."""
    kind: Literal["AdapterTrainingJob"]
    """Kind of the object: AdapterTrainingJob."""
    metadata: Metadata
    """Name, namespace, labels and annotations."""
    spec: JobSpec
    """What is trained, on which resources, and where the results go."""
    status: JobStatus = JobStatus()
    """What the operator has observed; the operator writes it."""

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
