"""What a job may say about its pods: where they run, and what is added to them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import Flag, ResourceModel
from adapter_api.kubernetes import LabelMap, ObjectName, Quantity, SecretRef, ShortText
from adapter_api.places import ClaimSource


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
