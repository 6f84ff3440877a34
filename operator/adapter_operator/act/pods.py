"""PURE: the pod of one node: restore before, sync beside, torchrun in the middle, and nothing that `restricted` forbids."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from adapter_api.job import AdapterTrainingJob
from adapter_api.launch import CREDENTIALS_FOLDER, CREDENTIALS_PREFIX, Command, NodePlace, epoch, launch, supervised
from adapter_api.layout import TRAINING_FILE
from adapter_api.names import RESTORE, SYNC, TRAINER
from adapter_api.places import ClaimSource, Data, S3Access
from adapter_api.pod import Volume
from adapter_api.resources import Resources
from adapter_operator.names import AGENT_PORT, attempt_labels, attempt_name
from adapter_operator.settings import Settings

Plain = dict[str, Any]

RENDEZVOUS_PORT = 29_500
USER = 65_532
WORK, DATA = "/work", "/data"
SAVED_SECONDS = 30
"""The pod's grace beyond the trainer's own: what the agent has left to do when the trainer has ended."""

_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
_AWS_VARIABLES = (("AWS_ACCESS_KEY_ID", False), ("AWS_SECRET_ACCESS_KEY", False), ("AWS_SESSION_TOKEN", True))


def pod_template(
    job: AdapterTrainingJob, attempt: int, created: datetime, config_map: str, settings: Settings
) -> Plain:
    """The template that all pods of an attempt share; each learns its index from Kubernetes.

    Args:
        job: Validated.
        attempt: From 1.
        created: The job's creationTimestamp.
        config_map: Name of the ConfigMap with the training configuration.
        settings: Default image and pull policy.
    """
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
    credentials = _credentials(spec.output.s3)
    agent_resources = _resources(spec.agent_resources or settings.agent_resources)
    restore: Plain = {
        "name": RESTORE, **image, **_agent(node.restore.argv, [*_restore_credentials(job), *credentials]),
        "resources": agent_resources, "securityContext": _SECURITY, "volumeMounts": _mounts(job, trainer=False),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    sync: Plain = {
        "name": SYNC, **image, **_agent(node.sync.argv, []),
        "restartPolicy": "Always", "resources": agent_resources, "securityContext": _SECURITY,
        "volumeMounts": [*_mounts(job, trainer=False), *_credentials_mount(job)], "ports": [{"name": "agent", "containerPort": AGENT_PORT}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    trainer: Plain = {
        "name": TRAINER, **image, **_trainer(supervised(node.train, place, job.grace_seconds), _user_environment(job)),
        "resources": _resources(spec.resources), "securityContext": _SECURITY, "volumeMounts": _mounts(job, trainer=True),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }  # fmt: skip
    found: Plain = {
        **_scheduling(job, attempt),
        "restartPolicy": "Never",
        "subdomain": job.metadata.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": job.grace_seconds + SAVED_SECONDS,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [restore, sync],
        "containers": [trainer],
        "volumes": _volumes(job, config_map),
    }  # fmt: skip
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
    """The processes' share of the cores that the pod may use; without a limit, torchrun's own choice."""
    cpu = job.spec.resources.limits.get("cpu")
    if cpu is None:
        return None
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu) if cpu.replace(".", "", 1).isdigit() else None
    return None if cores is None else max(1, int(cores / job.spec.processes))


def _agent(argv: tuple[str, ...], credentials: list[Plain]) -> Plain:
    """A container's command and environment; the Job controller adds the node's index to every container.

    Nothing is set that the image sets, and nothing that is not read: four pods of three containers are most of what a job
    costs the API server, and every variable is an entry in its bookkeeping of fields.
    """
    return {"command": list(argv), "env": [*_address(argv), *credentials]}


def _trainer(train: Command, given: list[Plain]) -> Plain:
    known = [{"name": name, "value": value} for name, value in train.env.items()]
    return {"command": list(train.argv), "env": [*_address(train.argv), *known, *given]}


def _address(argv: tuple[str, ...]) -> list[Plain]:
    """What Kubernetes replaces $(POD_IP) by has to stand in the container's own list."""
    if not any("$(POD_IP)" in argument for argument in argv):
        return []
    return [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


def _credentials(location: S3Access) -> list[Plain]:
    if location.secret_ref is None:
        return []
    secret = location.secret_ref.name
    return [
        {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": secret, "key": name, **({"optional": True} if opt else {})}},
        }
        for name, opt in _AWS_VARIABLES
    ]


def _restore_credentials(job: AdapterTrainingJob) -> list[Plain]:
    """Places to read from whose credentials differ from the output's."""
    spec, found = job.spec, []
    places: tuple[tuple[str, S3Access | None], ...] = (
        ("DATA", spec.data.s3 if spec.data else None), ("MODELS", spec.models), ("RESUME", spec.resume_from),
    )  # fmt: skip
    for role, location in places:
        if location is None or location.secret_ref is None or location.secret_ref == spec.output.s3.secret_ref:
            continue
        found += [{**v, "name": f"{CREDENTIALS_PREFIX}{role}_{v['name']}"} for v in _credentials(location)]
    return found


def _user_environment(job: AdapterTrainingJob) -> list[Plain]:
    found: list[Plain] = []
    for variable in job.spec.pod.env:
        if variable.secret_key_ref is not None:
            reference = {"name": variable.secret_key_ref.name, "key": variable.secret_key_ref.key}
            found.append({"name": variable.name, "valueFrom": {"secretKeyRef": reference}})
        else:
            # Kubernetes would expand $(NAME) in a user's text.
            found.append({"name": variable.name, "value": (variable.value or "").replace("$(", "$$(")})
    return found


def _resources(given: Resources) -> Plain:
    return {name: dict(values) for name, values in (("requests", given.requests), ("limits", given.limits)) if values}


def _scheduling(job: AdapterTrainingJob, attempt: int) -> Plain:
    given = job.spec.scheduling
    found: Plain = {}
    if given.node_selector:
        found["nodeSelector"] = dict(given.node_selector)
    if given.tolerations:
        found["tolerations"] = [_plain(toleration) for toleration in given.tolerations]
    affinity = _plain(given.affinity)
    if given.topology_key is not None:
        together = {
            "topologyKey": given.topology_key,
            "labelSelector": {"matchLabels": attempt_labels(job.metadata.name, attempt, job.spec.nodes)},
        }
        pods = dict(affinity.get("podAffinity") or {})
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        affinity["podAffinity"] = {**pods, required: [*pods.get(required, []), together]}
    if affinity:
        found["affinity"] = affinity
    if given.priority_class_name is not None:
        found["priorityClassName"] = given.priority_class_name
    if given.scheduler_name is not None:
        found["schedulerName"] = given.scheduler_name
    return found


def _plain(model: BaseModel | None) -> Plain:
    dumped = {} if model is None else model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return dict(dumped)


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
    if job.spec.data is not None:
        mounts.append({"name": "data", "mountPath": DATA, "readOnly": trainer})
    if trainer:
        file = f"{WORK}/{TRAINING_FILE}"
        mounts.append({"name": "training", "mountPath": file, "subPath": TRAINING_FILE, "readOnly": True})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - where data workers hand over batches
        mounts.extend(_user_mount(volume) for volume in job.spec.pod.volumes)
    return mounts


def _credentials_mount(job: AdapterTrainingJob) -> list[Plain]:
    """For the container that runs as long as training does; those that start anew read variables, and miss them aloud."""
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
    data = job.spec.data
    if data is not None:
        volumes.append({"name": "data", **({"emptyDir": {}} if data.pvc is None else _claim(data.pvc, read_only=True))})
    volumes.extend({"name": _user_name(volume), **_source(volume)} for volume in job.spec.pod.volumes)
    return volumes


def _source(volume: Volume) -> Plain:
    if volume.pvc is not None:
        return _claim(volume.pvc, read_only=volume.read_only)
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map.name}}
    if volume.secret is not None:
        return {"secret": {"secretName": volume.secret.name}}
    return {"emptyDir": _plain(volume.empty_dir)}


def _claim(claim: ClaimSource, *, read_only: bool) -> Plain:
    return {"persistentVolumeClaim": {"claimName": claim.claim_name, **({"readOnly": True} if read_only else {})}}
