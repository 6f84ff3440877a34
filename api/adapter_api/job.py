"""AdapterTrainingJob: what users apply, and the status that they watch."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from adapter_api.base import S3URI, Count, Flag, PositiveCount, Real, ResourceModel
from adapter_api.messages import shown
from adapter_api.progress import MAX_METRICS, MetricName
from adapter_api.training import TrainingConfig

GROUP = "adaptertraining.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["adaptertraining.dev/v1alpha1"] = "adaptertraining.dev/v1alpha1"
KIND: Literal["AdapterTrainingJob"] = "AdapterTrainingJob"
PLURAL = "adaptertrainingjobs"

GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "habana.ai/gaudi")

_JOB_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._/-]*)?")
_QUANTITY = re.compile(r"([0-9]+|[0-9]*\.[0-9]+|[0-9]+\.)(([KMGTPE]i)|[numkMGTPE]|[eE][-+]?[0-9]+)?")
MAX_NAME = 52
"""A job's name becomes the prefix of <name>-<attempt>-<index>, which Kubernetes holds to 63 characters."""
MAX_NODES = 4096
MAX_PROCESSES = 64
"""Training processes in one pod."""


def _job_name(value: str) -> str:
    if len(value) > MAX_NAME or not _JOB_NAME.fullmatch(value):
        raise ValueError(
            f"{value[:64]!r} is not a job name: at most {MAX_NAME} lower-case letters, digits and dashes, "
            "starting with a letter and ending with a letter or digit"
        )
    return value


def _object_name(value: str) -> str:
    if len(value) > 253 or not all(_DNS_LABEL.fullmatch(part) for part in value.split(".")):
        raise ValueError(
            f"{value[:64]!r} is not the name of a Kubernetes object: lower-case letters, digits, dashes and dots"
        )
    return value


def _quantity(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > 32 or not _QUANTITY.fullmatch(text):
        raise ValueError(f"{shown(value)} is not a quantity; write for example 500m, 2 or 4Gi")
    return text


def _endpoint(value: str) -> str:
    # The value is not repeated: what does not fit is often an address that carries a password.
    if not _ENDPOINT.fullmatch(value) or not _reachable(value):
        raise ValueError("is not an endpoint; write http(s)://host:port, with credentials in secretRef only")
    return value.rstrip("/")


def _reachable(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, an unfinished IPv6 address
        return False


JobName = Annotated[str, AfterValidator(_job_name)]
ObjectName = Annotated[str, AfterValidator(_object_name)]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 32}]}, mode="validation"),
]
"""A Kubernetes quantity; a number is taken for its text."""
ResourceName = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Endpoint = Annotated[str, Field(max_length=512), AfterValidator(_endpoint)]
ShortText = Annotated[str, Field(max_length=4096)]
LabelMap = dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=4096)]]


class Metadata(ResourceModel):
    """The part of an object's metadata that we read; the rest belongs to the API server and is kept aside."""

    model_config = ConfigDict(extra="ignore")

    name: JobName
    """Name of the job."""
    namespace: ObjectName | None = None
    """Namespace of the job."""
    uid: ShortText | None = None
    """Identity of the object."""
    generation: Count | None = None
    """Counts changes of the specification."""
    resource_version: ShortText | None = None
    """Version of the object."""
    labels: LabelMap = {}
    """Labels."""
    annotations: dict[str, str] = {}
    """Annotations."""


class Resources(ResourceModel):
    """Compute resources of one pod, as in a container."""

    limits: dict[ResourceName, Quantity] = {}
    """Upper bounds, such as cpu, memory and nvidia.com/gpu."""
    requests: dict[ResourceName, Quantity] = {}
    """What is reserved; by default the limits."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        for name, value in {**self.requests, **self.limits}.items():
            if name in GPU_RESOURCES and not (value.isdigit() and int(value) <= MAX_PROCESSES):
                raise ValueError(f"{name} {value!r}: give a whole number of GPUs, at most {MAX_PROCESSES}")
        return self

    @property
    def gpus(self) -> int:
        """GPUs of any vendor that one pod asks for."""
        merged = {**self.requests, **self.limits}
        return sum(int(merged.get(name, 0)) for name in GPU_RESOURCES)


class SecretRef(ResourceModel):
    """A Secret in the job's own namespace."""

    name: ObjectName
    """Name of the object."""


class S3Access(ResourceModel):
    """How to reach object storage."""

    endpoint_url: Endpoint | None = Field(default=None, alias="endpointURL")
    """Of an S3-compatible store; by default AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    """Region of the bucket."""
    secret_ref: SecretRef | None = None
    """Holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; by default the pod's own identity."""


class S3Location(S3Access):
    """A place in object storage and how to reach it."""

    uri: S3URI
    """Address, s3://bucket/prefix."""


class OutputLocation(S3Location):
    """Where checkpoints go."""

    conditional_writes: Flag = True
    """False for a store without conditional writes, which is refused otherwise. Every attempt then writes below a prefix of
    its own, attempts/<n>/; nobody else can pin or delete, and an output address must never serve two jobs at once."""


class ClaimSource(ResourceModel):
    """A folder on a PersistentVolumeClaim."""

    claim_name: ObjectName
    """Name of the PersistentVolumeClaim."""
    path: ShortText = ""
    """Folder inside the volume."""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} must be relative to the volume and stay inside it")
        return self


class Data(ResourceModel):
    """What is at /data before training starts: exactly one source."""

    s3: S3Location | None = None
    """A folder in object storage, staged to each node before training."""
    pvc: ClaimSource | None = None
    """A folder on a volume that exists."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.s3 is None) == (self.pvc is None):
            raise ValueError("give exactly one of s3 and pvc")
        return self


class Output(ResourceModel):
    """Where results go."""

    s3: OutputLocation
    """A place in object storage."""


class ResumeFrom(S3Location):
    """Another run's output, or the folder of one checkpoint wherever it was copied to, to start from it."""

    step: Count | None = None
    """By default the newest of the run."""


class Restart(ResourceModel):
    """How often a failed attempt is followed by another."""

    max_restarts: Annotated[Count, Field(le=10_000)] = 3
    """Only failures of the job's own making are charged; lost nodes and preemption are not."""
    backoff_seconds: Annotated[Count, Field(le=86_400)] = 10
    """Before the first charged restart; doubles with each."""
    hang_seconds: Annotated[Count, Field(le=604_800)] = 1800
    """An attempt that makes no step for so long is restarted; 0 never restarts it."""


class Toleration(ResourceModel):
    """A taint that pods tolerate."""

    key: ShortText | None = None
    """Key of the taint; absent: every key."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the value is compared; by default Equal."""
    value: ShortText | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: every effect."""
    toleration_seconds: int | None = None
    """How long NoExecute is tolerated; absent: for ever."""


class Scheduling(ResourceModel):
    """Where pods may run."""

    node_selector: LabelMap = {}
    """Labels that nodes must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Taints that pods tolerate, as in a pod."""
    affinity: dict[str, Any] | None = None
    """Affinity, as in a pod."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    scheduler_name: ObjectName | None = None
    """Scheduler that places the pods."""
    queue_name: ObjectName | None = None
    """Kueue's LocalQueue in which every attempt waits for quota."""
    topology_key: ShortText | None = None
    """Node label whose value all pods of an attempt should share."""


class SecretKeyRef(SecretRef):
    """One entry of a Secret."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]
    """Key of the entry."""


class EnvVar(ResourceModel):
    """One environment variable of the trainer."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    """Name of the variable."""
    value: ShortText | None = None
    """Its value."""
    secret_key_ref: SecretKeyRef | None = None
    """An entry of a Secret that holds its value."""

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.name.startswith(("PET_", "TORCHELASTIC_", "ADAPTER_TRAINING_")) or self.name in (
            "RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
            "JOB_COMPLETION_INDEX",
        ):  # fmt: skip
            raise ValueError(f"{self.name} is set by the launch; remove it")
        if (self.value is None) == (self.secret_key_ref is None):
            raise ValueError(f"{self.name}: give exactly one of value and secretKeyRef")
        return self


class EmptyDir(ResourceModel):
    """A folder that is empty at first and goes with the pod."""

    size_limit: Quantity | None = None
    """What it may hold."""
    medium: Literal["", "Memory"] = ""
    """Memory, or empty for the node's disk."""


class Volume(ResourceModel):
    """A volume mounted into the trainer: exactly one source of four."""

    name: ObjectName
    """Name of the volume, unique in the job."""
    mount_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]{1,255}$")]
    """Where it is mounted."""
    read_only: Flag = False
    """Whether it is mounted read-only."""
    pvc: ClaimSource | None = None
    """A PersistentVolumeClaim."""
    config_map: SecretRef | None = None
    """A ConfigMap."""
    secret: SecretRef | None = None
    """A Secret."""
    empty_dir: EmptyDir | None = None
    """A folder that lives as long as the pod."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.pvc, self.config_map, self.secret, self.empty_dir)) != 1:
            raise ValueError("give exactly one of pvc, configMap, secret and emptyDir")
        if ".." in self.mount_path.split("/"):
            raise ValueError(f"mountPath {self.mount_path!r} must not contain '..'")
        return self


class Pod(ResourceModel):
    """What may be added to pods: an allow-list, because a raw template could ask for the node itself."""

    labels: LabelMap = {}
    """Labels of the pods; those of the operator win."""
    annotations: LabelMap = {}
    """Annotations of the pods."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256)] = ()
    """Environment variables of the trainer."""
    service_account_name: ObjectName | None = None
    """Service account of the pods; its token is not mounted."""
    image_pull_secrets: tuple[SecretRef, ...] = ()
    """Secrets to pull images with."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64)] = ()
    """Volumes that are mounted into the trainer."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm, through which data workers hand over batches."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (
            ("env", [variable.name for variable in self.env]),
            ("volumes, by name,", [volume.name for volume in self.volumes]),
            ("volumes, by mountPath,", [volume.mount_path.rstrip("/") for volume in self.volumes]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what} hold {', '.join(sorted(twice))} twice; keep one")
        return self


DEFAULT_GRACE_SECONDS = 120
"""To save and upload when told to stop, before either has been measured."""


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
    active_deadline_seconds: PositiveCount | None = None
    """Seconds from startTime after which the job fails if it is not complete."""
    ttl_seconds_after_finished: Count | None = None
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


class Condition(ResourceModel):
    """One aspect of the job's state, as Kubernetes' API conventions define conditions."""

    type: Literal["Accepted", "Queued", "Running", "StorageHealthy", "Suspended", "Complete", "Failed"]
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,127}$")]
    """Why, in one word, for programs."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Why, and what to do, for people."""
    last_transition_time: datetime
    """When the status last changed."""
    observed_generation: Count | None = None
    """Generation of the specification that it was found for."""


class Restarts(ResourceModel):
    """Restarts so far."""

    charged: Count = 0
    """Those that count towards restart.maxRestarts."""
    uncharged: Count = 0
    """Those that were the cluster's doing."""
    total: Count = 0
    """Both together."""


class Nodes(ResourceModel):
    """Pods of the current attempt."""

    ready: Count = 0
    """Pods whose trainer runs."""
    active: Count = 0
    """Pods that have not ended."""
    failed: Count = 0
    """Pods that have failed."""


class ProgressStatus(ResourceModel):
    """The last progress that was read."""

    step: Count = 0
    """Optimizer steps done."""
    total_steps: Count = 0
    """Optimizer steps in all."""
    percent: Annotated[Real, Field(ge=0, le=100)] = 0.0
    """Share of the steps that is done."""
    loss: Real | None = None
    """Loss at the last report."""
    images_per_second: Real | None = None
    """Samples a second, of all processes."""
    eta_seconds: Count | None = None
    """Seconds that the remaining steps will take."""
    eta: ShortText | None = None
    """The same, as people say it."""
    metrics: Annotated[dict[MetricName, Real], Field(max_length=MAX_METRICS)] | None = None
    """Figures of the newest evaluation, by name: loss on held-out samples, what each condition gains, judged pictures."""
    updated_at: datetime | None = None
    """When the trainer reported this."""


class CheckpointStatus(ResourceModel):
    """The newest committed checkpoint."""

    step: Count
    """Its step."""
    uri: ShortText
    """Its address."""
    committed_at: datetime
    """When it was committed."""
    bytes: Count
    """Its size."""
    save_seconds: Real | None = None
    """How long writing it took on node 0."""
    commit_seconds: Real | None = None
    """How long it took from the start of its upload until it was committed."""


class Interruption(ResourceModel):
    """The end of an attempt that another one followed, and what it cost."""

    attempt: Count
    """The attempt that ended."""
    reason: ShortText
    """Why, in one word."""
    at: datetime
    """When that was seen."""
    message: ShortText = ""
    """What was not saved or not committed in the time that the stop had, and what would help."""
    step: Count | None = None
    """Last step that was reported of it; absent if it never trained."""
    resumed_step: Count | None = None
    """Step that the next attempt went on from; absent until it trains."""
    lost_steps: Count | None = None
    """Steps that were trained and have to be trained again; absent until the next attempt trains."""


class LastFailure(ResourceModel):
    """Why the last attempt that failed did."""

    reason: ShortText
    """Why, in one word."""
    node: Count | None = None
    """Index of the node that failed first."""
    exit_code: int | None = None
    """Exit code of its container."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """What it said."""
    at: datetime
    """When it was seen."""
    attempt: Count = 0
    """The attempt that failed."""
    charged: Flag = True
    """Whether it counts towards restart.maxRestarts."""
    log_tail: Annotated[str, Field(max_length=8192)] = ""
    """The last lines that the failed container wrote."""


MAX_INTERRUPTIONS = 10
"""Kept in the status."""
JobState = Literal[
    "Pending", "Queued", "Starting", "Running", "Suspended", "Restarting", "Complete", "Failed", "Invalid"
]  # fmt: skip


class JobStatus(ResourceModel):
    """What the operator has seen; nothing here is an input to training."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Count | None = None
    """The generation of the specification that this status answers."""
    state: JobState | None = None
    """What the job is doing, in one word, derived from the conditions: for people to read, not for programs."""
    conditions: tuple[Condition, ...] = ()
    """Aspects of the state, each with a reason and a message that says what to do."""
    attempt: Count = 0
    """Number of the current attempt."""
    restarts: Restarts = Restarts()
    """Restarts so far."""
    nodes: Nodes = Nodes()
    """Pods of the current attempt."""
    progress: ProgressStatus | None = None
    """How far training is."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    last_failure: LastFailure | None = None
    """Why the last attempt that failed did."""
    interruptions: Annotated[tuple[Interruption, ...], Field(max_length=MAX_INTERRUPTIONS)] = ()
    """Attempts that were followed by another, the newest last."""
    lost_steps: Count | None = None
    """Steps that all interruptions so far have cost."""
    termination_grace_period_seconds: Count | None = None
    """Seconds that pods of the next attempt get to save and upload when they are told to stop: derived from how long both
    took. Absent before the first commit, and if the specification sets it."""
    start_time: datetime | None = None
    """When the first attempt was launched or, if the job has a queue, admitted by that."""
    completion_time: datetime | None = None
    """When the job ended."""
    goodput_percent: Annotated[Real, Field(ge=0, le=100)] | None = None
    """Share of the time since the start that went into steps that stand."""


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

    @property
    def grace_seconds(self) -> int:
        """Seconds that a pod of the next attempt gets to save and upload when it is told to stop."""
        given = self.spec.termination_grace_period_seconds
        return given or self.status.termination_grace_period_seconds or DEFAULT_GRACE_SECONDS
