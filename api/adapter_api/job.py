"""AdapterTrainingJob: what users apply, and the status that they watch."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from adapter_api.base import S3URI, Count, Flag, PositiveCount, Real, ResourceModel
from adapter_api.messages import shown
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
Quantity = Annotated[str, BeforeValidator(_quantity)]
"""A Kubernetes quantity; a number is taken for its text."""
ResourceName = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
Endpoint = Annotated[str, Field(max_length=512), AfterValidator(_endpoint)]
ShortText = Annotated[str, Field(max_length=4096)]
LabelMap = dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=4096)]]


class Metadata(ResourceModel):
    """The part of an object's metadata that we read; the rest belongs to the API server and is kept aside."""

    model_config = ConfigDict(extra="ignore")

    name: JobName
    namespace: ObjectName | None = None
    uid: ShortText | None = None
    generation: Count | None = None
    resource_version: ShortText | None = None
    labels: LabelMap = {}
    annotations: dict[str, str] = {}


class Resources(ResourceModel):
    """Compute resources of one pod, as in a container."""

    limits: dict[ResourceName, Quantity] = {}
    requests: dict[ResourceName, Quantity] = {}

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


class S3Location(ResourceModel):
    """A place in object storage and how to reach it."""

    uri: S3URI
    endpoint_url: Endpoint | None = Field(default=None, alias="endpointURL")
    """Of an S3-compatible store; by default AWS."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] | None = None
    secret_ref: SecretRef | None = None
    """Holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; by default the pod's own identity."""


class OutputLocation(S3Location):
    """Where checkpoints go."""

    conditional_writes: Flag = True
    """False for a store without conditional writes: commits then need a prefix that only one attempt writes."""


class ClaimSource(ResourceModel):
    """A folder on a PersistentVolumeClaim."""

    claim_name: ObjectName
    path: ShortText = ""

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.path.startswith("/") or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} must be relative to the volume and stay inside it")
        return self


class Data(ResourceModel):
    """What is at /data before training starts: exactly one source."""

    s3: S3Location | None = None
    pvc: ClaimSource | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.s3 is None) == (self.pvc is None):
            raise ValueError("give exactly one of s3 and pvc")
        return self


class Output(ResourceModel):
    """Where results go."""

    s3: OutputLocation


class ResumeFrom(S3Location):
    """Another run's output, to start from one of its checkpoints."""

    step: Count | None = None
    """By default its newest."""


class Restart(ResourceModel):
    """How often a failed attempt is followed by another."""

    max_restarts: Annotated[Count, Field(le=10_000)] = 3
    """Only failures of the job's own making are charged; lost nodes and preemption are not."""
    backoff_seconds: Annotated[Count, Field(le=86_400)] = 10
    """Before the first charged restart; doubles with each."""


class Scheduling(ResourceModel):
    """Where pods may run."""

    node_selector: LabelMap = {}
    tolerations: Annotated[tuple[dict[str, Any], ...], Field(max_length=64)] = ()
    affinity: dict[str, Any] | None = None
    priority_class_name: ObjectName | None = None
    scheduler_name: ObjectName | None = None
    queue_name: ObjectName | None = None
    """A Kueue LocalQueue."""
    topology_key: ShortText | None = None
    """Node label whose value all pods of an attempt should share."""


class SecretKeyRef(SecretRef):
    """One entry of a Secret."""

    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]


class EnvVar(ResourceModel):
    """One environment variable of the trainer."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    value: ShortText | None = None
    secret_key_ref: SecretKeyRef | None = None

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.name.startswith(("PET_", "TORCHELASTIC_", "ADAPTER_TRAINING_")) or self.name in (
            "RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
        ):  # fmt: skip
            raise ValueError(f"{self.name} is set by the launch; remove it")
        if (self.value is None) == (self.secret_key_ref is None):
            raise ValueError(f"{self.name}: give exactly one of value and secretKeyRef")
        return self


class Volume(ResourceModel):
    """A volume mounted into the trainer: exactly one source of four."""

    name: ObjectName
    mount_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]{1,255}$")]
    read_only: Flag = False
    pvc: ClaimSource | None = None
    config_map: SecretRef | None = None
    secret: SecretRef | None = None
    empty_dir: dict[Literal["sizeLimit", "medium"], str] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.pvc, self.config_map, self.secret, self.empty_dir)) != 1:
            raise ValueError("give exactly one of pvc, configMap, secret and emptyDir")
        if ".." in self.mount_path.split("/"):
            raise ValueError(f"mountPath {self.mount_path!r} must not contain '..'")
        if self.empty_dir is not None:
            _quantity(self.empty_dir.get("sizeLimit", "0"))
            if self.empty_dir.get("medium", "") not in {"", "Memory"}:
                raise ValueError("emptyDir.medium is Memory, or absent for the node's disk")
        return self


class Pod(ResourceModel):
    """What may be added to pods: an allow-list, because a raw template could ask for the node itself."""

    labels: LabelMap = {}
    annotations: LabelMap = {}
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256)] = ()
    service_account_name: ObjectName | None = None
    image_pull_secrets: tuple[SecretRef, ...] = ()
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64)] = ()
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


class JobSpec(ResourceModel):
    """What is trained, on what, and where results go."""

    image: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}$")] | None = None
    """By default the operator's setting."""
    nodes: Annotated[PositiveCount, Field(le=MAX_NODES)] = 1
    """Pods; each runs one torchrun."""
    procs_per_node: Annotated[PositiveCount, Field(le=MAX_PROCESSES)] | Literal["auto"] = "auto"
    """Training processes in each pod; auto: one for each requested GPU, else 1."""
    resources: Resources = Resources()
    training: TrainingConfig
    data: Data | None = None
    output: Output
    resume_from: ResumeFrom | None = None
    restart: Restart = Restart()
    suspend: Flag = False
    active_deadline_seconds: PositiveCount | None = None
    ttl_seconds_after_finished: Count | None = None
    termination_grace_period_seconds: Annotated[PositiveCount, Field(le=86_400)] = 120
    scheduling: Scheduling = Scheduling()
    pod: Pod = Pod()

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

    type: Literal["Accepted", "Queued", "Running", "Suspended", "Complete", "Failed"]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,127}$")]
    message: Annotated[str, Field(max_length=32_768)] = ""
    last_transition_time: datetime
    observed_generation: Count | None = None


class Restarts(ResourceModel):
    """Restarts so far."""

    charged: Count = 0
    uncharged: Count = 0


class Nodes(ResourceModel):
    """Pods of the current attempt."""

    ready: Count = 0
    active: Count = 0
    failed: Count = 0


class ProgressStatus(ResourceModel):
    """The last progress that was read."""

    step: Count = 0
    total_steps: Count = 0
    percent: Annotated[Real, Field(ge=0, le=100)] = 0.0
    loss: Real | None = None
    images_per_second: Real | None = None
    eta_seconds: Count | None = None
    updated_at: datetime | None = None


class CheckpointStatus(ResourceModel):
    """The newest committed checkpoint."""

    step: Count
    uri: S3URI
    committed_at: datetime
    bytes: Count


class LastFailure(ResourceModel):
    """Why the last attempt that failed did."""

    reason: ShortText
    node: Count | None = None
    exit_code: int | None = None
    message: Annotated[str, Field(max_length=32_768)] = ""
    at: datetime


class JobStatus(ResourceModel):
    """What the operator has seen; nothing here is an input to training."""

    model_config = ConfigDict(extra="ignore")

    observed_generation: Count | None = None
    conditions: tuple[Condition, ...] = ()
    attempt: Count = 0
    restarts: Restarts = Restarts()
    nodes: Nodes = Nodes()
    progress: ProgressStatus | None = None
    checkpoint: CheckpointStatus | None = None
    last_failure: LastFailure | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    goodput_percent: Annotated[Real, Field(ge=0, le=100)] | None = None


class AdapterTrainingJob(ResourceModel):
    """One training run."""

    api_version: Literal["adaptertraining.dev/v1alpha1"]
    kind: Literal["AdapterTrainingJob"]
    metadata: Metadata
    spec: JobSpec
    status: JobStatus = JobStatus()
