"""PURE: job + attempt -> ConfigMap, Service, NetworkPolicy and Indexed Job, as they are sent to the API server."""

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
    """Returns the objects that an attempt starts from, in the order of creation: the Job last. The Service follows.

    Args:
        job: A validated job.
        attempt: Number of the attempt, from 1.
        created: The job's creationTimestamp.
        settings: Default image and the operator's other settings.
    """
    training = config_map(job)
    owned = [training]
    if settings.network_policies:  # even of one node, rendezvous listens on every address
        owned.append(network_policy(job))
    return [*owned, batch_job(job, attempt, created, training["metadata"]["name"], settings)]


def config_map(job: AdapterTrainingJob) -> Manifest:
    """Returns the ConfigMap of the training configuration: immutable, and named by its content, so no attempt reads another."""
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
    """Returns the Service that names pods. It selects only index 0: rendezvous needs no other, and each pod costs a write."""
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
    """Returns the policy: a job's pods reach each other, and any client reaches the agent's read-only port; nothing else."""
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
    """Returns the Indexed Job of the gang: one pod per index. No pod is replaced alone; the gang can only restart together."""
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
