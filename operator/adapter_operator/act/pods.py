"""PURE: the pod of one node: an init container restores, a sidecar syncs, torchrun trains; within the `restricted` profile."""

from datetime import datetime
from typing import Any

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import (
    CREDENTIALS_FOLDER,
    Command,
    NodePlace,
    epoch,
    launch,
    supervised,
)
from adapter_api.layout import TRAINING_FILE
from adapter_api.names import RESTORE, SYNC, TRAINER
from adapter_api.places import ClaimSource, Data
from adapter_api.pod import CABundle, PodSecurityContext, Volume
from adapter_api.resources import Resources
from adapter_operator.act.environment import (
    CA_FILE,
    CA_FOLDER,
    common_environment,
    credentials,
    restore_credentials,
    trainer_environment,
)
from adapter_operator.act.placement import placement
from adapter_operator.act.plain import plain
from adapter_operator.job_defaults import with_defaults
from adapter_operator.names import AGENT_PORT, attempt_labels, attempt_name
from adapter_operator.settings import Settings

Plain = dict[str, Any]

RENDEZVOUS_PORT = 29_500
WORK, DATA = "/work", "/data"
SAVED_SECONDS = 30
"""Seconds of the pod's grace period beyond the trainer's own: the agent's work after the trainer has ended."""

_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def pod_template(
    job: AdapterTrainingJob, attempt: int, created: datetime, config_map: str, settings: Settings
) -> Plain:
    """Returns the template of all pods of an attempt; Kubernetes gives each pod its index.

    Args:
        job: A validated job.
        attempt: Number of the attempt, from 1.
        created: The job's creationTimestamp.
        config_map: Name of the ConfigMap with the training configuration.
        settings: Default image, pull policy, and defaults for what jobs leave open.
    """
    job = with_defaults(job, settings.job_defaults)
    spec = job.spec
    place = NodePlace(
        index=None,
        rendezvous_host=f"{attempt_name(job.metadata.name, attempt)}-0.{job.metadata.name}",
        rendezvous_port=RENDEZVOUS_PORT,
        address="$(POD_IP)",
        work=WORK,
        data=_data_folder(spec.data),
        agent_port=AGENT_PORT,
        threads=_threads(job),
    )
    node = launch(job, str(job.metadata.uid), epoch(created, attempt), place)
    image = {"image": spec.image or settings.trainer_image, "imagePullPolicy": settings.image_pull_policy}
    common = common_environment(job)
    agent_resources = _resources(spec.agent_resources or settings.agent_resources)
    restore: Plain = {
        "name": RESTORE, **image, **_agent(node.restore.argv, [*restore_credentials(job), *credentials(spec.output.s3), *common]),
        "resources": agent_resources, "securityContext": _SECURITY, "volumeMounts": _mounts(job, trainer=False),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    sync: Plain = {
        "name": SYNC, **image, **_agent(node.sync.argv, common),
        "restartPolicy": "Always", "resources": agent_resources, "securityContext": _SECURITY,
        "volumeMounts": [*_mounts(job, trainer=False), *_credentials_mount(job)], "ports": [{"name": "agent", "containerPort": AGENT_PORT}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    trainer: Plain = {
        "name": TRAINER, **image,
        **_trainer(supervised(node.train, place, job.grace_seconds), [*common, *trainer_environment(job)]),
        "resources": _resources(spec.resources), "securityContext": _SECURITY, "volumeMounts": _mounts(job, trainer=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    found: Plain = {
        **placement(job, attempt),
        "restartPolicy": "Never",
        "subdomain": job.metadata.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": job.grace_seconds + SAVED_SECONDS,
        "securityContext": _pod_security(spec.pod.security_context or PodSecurityContext()),
        "initContainers": [restore, sync],
        "containers": [trainer],
        "volumes": _volumes(job, config_map),
    }  # fmt: skip
    if spec.pod.runtime_class_name is not None:
        found["runtimeClassName"] = spec.pod.runtime_class_name
    if spec.pod.service_account_name is not None:
        found["serviceAccountName"] = spec.pod.service_account_name
    if spec.pod.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": secret.name} for secret in spec.pod.image_pull_secrets]
    ours = attempt_labels(job.metadata.name, attempt, spec.nodes)
    metadata: Plain = {"labels": {**spec.pod.labels, **ours}}
    if spec.pod.annotations:
        metadata["annotations"] = dict(spec.pod.annotations)
    return {"metadata": metadata, "spec": found}


def _threads(job: AdapterTrainingJob) -> int | None:
    """Threads of each process: its share of the pod's cores. Without a CPU limit, torchrun decides."""
    cpu = job.spec.resources.limits.get("cpu")
    if cpu is None:
        return None
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu) if cpu.replace(".", "", 1).isdigit() else None
    return None if cores is None else max(1, int(cores / job.spec.processes))


def _pod_security(given: PodSecurityContext) -> Plain:
    policy = {"fsGroupChangePolicy": "OnRootMismatch"} if given.fs_group is not None else {}
    return {"runAsNonRoot": True, **plain(given), **policy, "seccompProfile": {"type": "RuntimeDefault"}}


def _agent(argv: tuple[str, ...], given: list[Plain]) -> Plain:
    """Returns a container's command and environment; the Job controller adds the node's index to every container.

    It sets nothing that the image sets, and nothing that is not read: four pods of three containers are most of what a
    job costs the API server, and every variable is an entry in its bookkeeping of fields.
    """
    return {"command": list(argv), "env": [*_address(argv), *given]}


def _trainer(train: Command, given: list[Plain]) -> Plain:
    known = [{"name": name, "value": value} for name, value in train.env.items()]
    return {"command": list(train.argv), "env": [*_address(train.argv), *known, *given]}


def _address(argv: tuple[str, ...]) -> list[Plain]:
    """Environment that a container's own list must hold, because Kubernetes replaces $(POD_IP) only there."""
    if not any("$(POD_IP)" in argument for argument in argv):
        return []
    return [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def _resources(given: Resources) -> Plain:
    return {name: dict(values) for name, values in (("requests", given.requests), ("limits", given.limits)) if values}


def _data_folder(data: Data | None) -> str:
    if data is None or data.pvc is None or not data.pvc.path:
        return DATA
    # Kubernetes would put the value of a variable, perhaps a secret's, in place of $(NAME).
    return f"{DATA}/{data.pvc.path.strip('/')}".replace("$", "$$")


def _mounts(job: AdapterTrainingJob, *, trainer: bool) -> list[Plain]:
    mounts: list[Plain] = [
        {"name": "work", "mountPath": WORK},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if job.spec.pod.ca_bundle is not None:
        mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    if job.spec.data is not None:
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": trainer})
    if trainer:
        file = f"{WORK}/{TRAINING_FILE}"
        mounts.append({"name": "training", "mountPath": file, "subPath": TRAINING_FILE, "readOnly": True})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - where data workers hand over batches
        mounts.extend(_user_mount(volume) for volume in job.spec.pod.volumes)
    return mounts


def _credentials_mount(job: AdapterTrainingJob) -> list[Plain]:
    """Credentials of the container that runs as long as training does, as a file that may change.

    Containers that start later read variables instead, and fail with a message if these are missing.
    """
    if job.spec.output.s3.secret_ref is None:
        return []
    return [{"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True}]


def _user_mount(volume: Volume) -> Plain:
    mount: Plain = {"name": _user_name(volume), "mountPath": volume.mount_path}
    if volume.read_only:
        mount["readOnly"] = True
    if volume.pvc is not None and volume.pvc.path:
        mount["subPath"] = volume.pvc.path
    return mount


def _user_name(volume: Volume) -> str:
    return f"user-{volume.name}"


def _volumes(job: AdapterTrainingJob, config_map: str) -> list[Plain]:
    volumes: list[Plain] = [
        {"name": "work", "emptyDir": {}},
        {"name": "training", "configMap": {"name": config_map}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": job.spec.pod.shared_memory}},
    ]
    if job.spec.output.s3.secret_ref is not None:
        # Optional: that it is missing is said by the first container, which needs its variables.
        secret = {"secretName": job.spec.output.s3.secret_ref.name, "optional": True}
        volumes.append({"name": "credentials", "secret": secret})
    if job.spec.pod.ca_bundle is not None:
        volumes.append({"name": "ca", **_bundle(job.spec.pod.ca_bundle)})
    data = job.spec.data
    if data is not None:
        volumes.append({"name": "data", **({"emptyDir": {}} if data.pvc is None else _claim(data.pvc, read_only=True))})
    volumes.extend({"name": _user_name(volume), **_source(volume)} for volume in job.spec.pod.volumes)
    return volumes


def _bundle(bundle: CABundle) -> Plain:
    found: Plain = {}
    if bundle.config_map is not None:
        found["configMap"] = {
            "name": bundle.config_map.name,
            "items": [{"key": bundle.config_map.key, "path": CA_FILE}],
        }
    if bundle.secret is not None:
        found["secret"] = {"secretName": bundle.secret.name, "items": [{"key": bundle.secret.key, "path": CA_FILE}]}
    return found


def _source(volume: Volume) -> Plain:
    if volume.pvc is not None:
        return _claim(volume.pvc, read_only=volume.read_only)
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map.name}}
    if volume.secret is not None:
        return {"secret": {"secretName": volume.secret.name}}
    return {"emptyDir": plain(volume.empty_dir)}


def _claim(claim: ClaimSource, *, read_only: bool) -> Plain:
    return {"persistentVolumeClaim": {"claimName": claim.claim_name, **({"readOnly": True} if read_only else {})}}
