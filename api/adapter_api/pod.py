"""What a job may say about its pods: where they run, and what is added to them."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from adapter_api.affinity import Affinity
from adapter_api.base import MAX_INT, Flag, PositiveCount, ResourceModel
from adapter_api.kubernetes import (
    AnnotationMap,
    LabelMap,
    LabelName,
    LabelValue,
    ObjectName,
    QualifiedName,
    Quantity,
    SecretRef,
    ShortText,
    label_name,
)
from adapter_api.messages import refuse
from adapter_api.places import ClaimSource
from adapter_api.topology_spread import TopologySpreadConstraint

MAX_VOLUME_NAME = 58
"""Pods have it behind `user-`, in 63 characters."""
OWN_MOUNTS = ("/work", "/data", "/tmp", "/dev/shm")  # noqa: S108 - paths in a pod
"""Where the trainer's own volumes are mounted."""
_WHOLLY_OURS = ("/work", "/data")
CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
"""Variables by which boto3, OpenSSL and requests find the certificates that they trust."""
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Toleration(ResourceModel):
    """A taint that the pods tolerate."""

    key: QualifiedName | None = None
    """Key of the taint; if absent, every key matches."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the value is compared; by default Equal."""
    value: LabelValue | None = None
    """Value of the taint; must be absent if the operator is Exists."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; if absent, every effect matches."""
    toleration_seconds: Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)] | None = None
    """Seconds for which NoExecute is tolerated; if absent, for ever."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise ValueError("a toleration without a key matches every taint; write operator: Exists, or give the key")
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists compares no value; remove value")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds counts for effect NoExecute only; add that effect, or remove it")
        return self


class Scheduling(ResourceModel):
    """Where the pods may run."""

    node_selector: LabelMap = {}
    """Labels that a node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64)] = ()
    """Taints that the pods tolerate, with the same fields as in a pod."""
    affinity: Affinity | None = None
    """Affinity rules of the pods, with the same fields as in a pod."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of the pods."""
    scheduler_name: ObjectName | None = None
    """Name of the scheduler that places the pods."""
    queue_name: LabelName | None = None
    """LocalQueue of Kueue in which every attempt waits for quota."""
    queue_priority_class_name: LabelName | None = None
    """WorkloadPriorityClass of Kueue for every attempt."""
    topology_key: QualifiedName | None = None
    """Node label that must have the same value for all pods of an attempt, such as topology.kubernetes.io/zone. Pods
    wait until nodes with a common value have room."""
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=16)] = ()
    """Limits on how unevenly pods spread over zones, racks or nodes, as in a pod; by default the operator's setting."""

    @model_validator(mode="after")
    def _spread_once(self) -> Self:
        spread = Counter((each.topology_key, each.when_unsatisfiable) for each in self.topology_spread_constraints)
        if twice := [key for (key, _), count in spread.items() if count > 1]:
            raise ValueError(
                f"topologySpreadConstraints hold {twice[0]} twice with the same whenUnsatisfiable; keep one of them"
            )
        return self


class SecretKeyRef(SecretRef):
    """One entry of a Secret."""

    key: Annotated[str, Field(pattern=r"^(\.?[A-Za-z0-9_-]|\.\.[A-Za-z0-9._-])[A-Za-z0-9._-]{0,250}$")]
    """Key of the entry in the Secret."""


class EnvVar(ResourceModel):
    """One environment variable of the trainer."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    """Name of the variable."""
    value: ShortText | None = None
    """Value of the variable."""
    secret_key_ref: SecretKeyRef | None = None
    """Entry of a Secret that holds the value."""

    @model_validator(mode="before")
    @classmethod
    def _written_here(cls, given: Any) -> Any:
        if isinstance(given, dict) and "valueFrom" in given:
            raise ValueError(
                "valueFrom is written as secretKeyRef: {name: ..., key: ...}, next to name; other sources are not taken"
            )
        return given

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if self.name.startswith(("PET_", "TORCHELASTIC_", "ADAPTER_TRAINING_")) or self.name in (
            "RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
            "JOB_COMPLETION_INDEX", "POD_IP",
        ):  # fmt: skip
            raise ValueError(f"{self.name} is set by the launch; remove it")
        if (self.value is None) == (self.secret_key_ref is None):
            raise ValueError(f"{self.name}: give exactly one of value and secretKeyRef")
        return self


class CABundle(ResourceModel):
    """Certificates that all containers trust: one entry of a ConfigMap or of a Secret, in PEM."""

    config_map: SecretKeyRef | None = None
    """Entry of a ConfigMap."""
    secret: SecretKeyRef | None = None
    """Entry of a Secret."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.config_map is None) == (self.secret is None):
            raise ValueError("give exactly one of configMap and secret")
        return self


_ID = Annotated[PositiveCount, Field(le=2**31 - 1)]


class PodSecurityContext(ResourceModel):
    """User and groups that pods run with. What is left out, the cluster or the image decides."""

    run_as_user: _ID | None = None
    """User ID of all processes; not 0."""
    run_as_group: _ID | None = None
    """Group ID of all processes; not 0."""
    fs_group: _ID | None = None
    """Group ID that owns the files of volumes; not 0."""


class EmptyDir(ResourceModel):
    """A folder that is empty at first and is deleted with the pod."""

    size_limit: Quantity | None = None
    """Maximum size of the folder."""
    medium: Literal["", "Memory"] = ""
    """Storage medium: Memory, or empty for the node's disk."""


class Volume(ResourceModel):
    """A volume that is mounted into the trainer. Set exactly one of pvc, configMap, secret and emptyDir."""

    name: Annotated[str, Field(max_length=MAX_VOLUME_NAME), AfterValidator(label_name)]
    """Name of the volume, unique in the job."""
    mount_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]{1,255}$")]
    """Absolute path at which the volume is mounted."""
    read_only: Flag = False
    """Whether the volume is mounted read-only."""
    pvc: ClaimSource | None = None
    """PersistentVolumeClaim to mount."""
    config_map: SecretRef | None = None
    """ConfigMap to mount."""
    secret: SecretRef | None = None
    """Secret to mount."""
    empty_dir: EmptyDir | None = None
    """Empty folder that is deleted with the pod."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(source is not None for source in (self.pvc, self.config_map, self.secret, self.empty_dir)) != 1:
            raise ValueError("give exactly one of pvc, configMap, secret and emptyDir")
        if ".." in self.mount_path.split("/"):
            raise ValueError(f"mountPath {self.mount_path!r} must not contain '..'")
        if taken := _taken(self.mount_path):
            raise ValueError(f"mountPath {self.mount_path!r} would hide {taken}, which training needs; choose another")
        return self


class Pod(ResourceModel):
    """Additional settings of the pods.

    Only these fields are allowed, because a full pod template could take over the node.
    """

    labels: LabelMap = {}
    """Labels of the pods; labels that the operator sets take precedence."""
    annotations: AnnotationMap = {}
    """Annotations of the pods."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=256)] = ()
    """Environment variables of the trainer."""
    common_env: Annotated[tuple[EnvVar, ...], Field(max_length=64)] = ()
    """Environment variables of all three containers, restore, sync and trainer, such as HTTPS_PROXY and NO_PROXY."""
    ca_bundle: CABundle | None = None
    """Certificates of authorities that all three containers trust in place of the image's own, for object storage and
    hubs behind a private authority; by default the operator's setting."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, such as nvidia; by default the operator's setting."""
    security_context: PodSecurityContext | None = None
    """User and groups of the pods; by default the operator's setting, 65532 for each. {} names none: the cluster assigns
    them, as OpenShift's restricted-v2 does, or the image's own are used."""
    service_account_name: ObjectName | None = None
    """Service account of the pods; its token is not mounted."""
    image_pull_secrets: Annotated[tuple[SecretRef, ...], Field(max_length=64)] = ()
    """Secrets used to pull images."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64)] = ()
    """Volumes that are mounted into the trainer."""
    shared_memory: Quantity = "1Gi"
    """Size of /dev/shm, through which data workers pass batches; raise it for large batches or many workers."""

    @model_validator(mode="before")
    @classmethod
    def _written_here(cls, given: Any) -> Any:
        if isinstance(given, dict) and "envFrom" in given:
            raise ValueError(
                "envFrom is not taken: name each variable in env, with secretKeyRef, or mount the whole with volumes"
            )
        return given

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (
            ("env", [variable.name for variable in self.env]),
            ("commonEnv", [variable.name for variable in self.common_env]),
            ("env and commonEnv", [variable.name for variable in (*self.env, *self.common_env)]),
            ("volumes, by name,", [volume.name for volume in self.volumes]),
            ("volumes, by mountPath,", [posixpath.normpath(volume.mount_path) for volume in self.volumes]),
        ):
            if twice := {name for name, count in Counter(names).items() if count > 1}:
                raise ValueError(f"{what} hold {', '.join(sorted(twice))} twice; keep one")
        return self

    @model_validator(mode="after")
    def _set_elsewhere(self) -> Self:
        refuse("Pod", self._variables_set_elsewhere())
        return self

    def _variables_set_elsewhere(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for index, variable in enumerate(self.common_env):
            if variable.name in CREDENTIAL_VARIABLES:
                message = f"{variable.name} is read from the Secret that spec.output.s3.secretRef names; remove it here"
                yield ("commonEnv", index), message
        for field, variables in (("env", self.env), ("commonEnv", self.common_env)):
            for index, variable in enumerate(variables):
                if self.ca_bundle is not None and variable.name in CA_VARIABLES:
                    yield (field, index), f"{variable.name} is set by caBundle; remove one of the two"


def _taken(mount_path: str) -> str | None:
    """The place of ours that a volume mounted there would hide, or lie in."""
    path = posixpath.normpath(mount_path)
    for own in OWN_MOUNTS:
        if (
            path == own
            or own.startswith(f"{path.rstrip('/')}/")
            or (own in _WHOLLY_OURS and path.startswith(f"{own}/"))
        ):
            return own
    return None
