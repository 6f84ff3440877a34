"""PURE: job + attempt -> ConfigMap, Service, NetworkPolicy and the Indexed Job, as they are sent to the API server."""

import hashlib
from datetime import datetime
from typing import Any

from adapter_api.document import dump_json
from adapter_api.job import API_VERSION, KIND, AdapterTrainingJob
from adapter_api.layout import TRAINING_FILE
from adapter_api.names import INDEX_LABEL, JOB_LABEL
from adapter_operator.act.commit_marks import commit_marks
from adapter_operator.act.pods import RENDEZVOUS_PORT, pod_template
from adapter_operator.names import (
    AGENT_PORT,
    QUEUE_LABEL,
    QUEUE_PRIORITY_LABEL,
    SPECIFICATION_ANNOTATION,
    attempt_labels,
    attempt_name,
    labels,
)
from adapter_operator.settings import Settings
from adapter_operator.specification import specification

Manifest = dict[str, Any]


def manifests(job: AdapterTrainingJob, attempt: int, created: datetime, settings: Settings) -> list[Manifest]:
    """What an attempt starts from, in the order in which it is created: the Job last. The Service follows.

    Args:
        job: Validated.
        attempt: From 1.
        created: The job's creationTimestamp.
        settings: Default image and what else the operator was told.
    """
    training = config_map(job)
    owned = [training]
    if settings.network_policies:  # even of one node, rendezvous listens on every address
        owned.append(network_policy(job))
    return [*owned, batch_job(job, attempt, created, training["metadata"]["name"], settings)]


def config_map(job: AdapterTrainingJob) -> Manifest:
    """The training configuration. Immutable and named by its content: an attempt never sees another one's."""
    text = dump_json(job.spec.training)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job, f"{job.metadata.name}-{digest}"),
        "immutable": True,
        "data": {TRAINING_FILE: text},
    }


def service(job: AdapterTrainingJob) -> Manifest:
    """Gives pods their names. It selects index 0 only: rendezvous needs no other name, and each pod more is a write."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, job.metadata.name),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: job.metadata.name, INDEX_LABEL: "0"},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def network_policy(job: AdapterTrainingJob) -> Manifest:
    """Lets a job's pods be reached by each other, and by anybody at the agent's read-only port; by nobody else."""
    mine = {"matchLabels": {JOB_LABEL: job.metadata.name}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(job, job.metadata.name),
        "spec": {
            "podSelector": mine,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": mine}]}, {"ports": [{"port": AGENT_PORT}]}],
        },
    }


def batch_job(job: AdapterTrainingJob, attempt: int, created: datetime, training: str, settings: Settings) -> Manifest:
    """The gang: one pod per index, none of them ever replaced, because only all of them together can be."""
    spec = job.spec
    metadata = _metadata(job, attempt_name(job.metadata.name, attempt))
    metadata["labels"] = attempt_labels(job.metadata.name, attempt, spec.nodes)
    metadata["annotations"] = {SPECIFICATION_ANNOTATION: specification(job), **_commit_marks(job, settings)}
    if spec.scheduling.queue_name is not None:
        metadata["labels"][QUEUE_LABEL] = spec.scheduling.queue_name
    if spec.scheduling.queue_priority_class_name is not None:
        metadata["labels"][QUEUE_PRIORITY_LABEL] = spec.scheduling.queue_priority_class_name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": _with_annotations(
                pod_template(job, attempt, created, training, settings), _commit_marks(job, settings)
            ),
        },
    }


def _commit_marks(job: AdapterTrainingJob, settings: Settings) -> dict[str, str]:
    return commit_marks(job.status.checkpoint) if settings.commit_marks else {}


def _with_annotations(template: Manifest, annotations: dict[str, str]) -> Manifest:
    if not annotations:
        return template
    metadata = template["metadata"]
    return {**template, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **annotations}}}


def _metadata(job: AdapterTrainingJob, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels(job.metadata.name),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
