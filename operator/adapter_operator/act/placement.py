"""PURE: where the scheduler may place the pods of an attempt, and how important they are."""

from typing import Any

from adapter_api.job import AdapterTrainingJob
from adapter_api.topology_spread import TopologySpreadConstraint
from adapter_operator.act.plain import plain
from adapter_operator.names import attempt_labels

Plain = dict[str, Any]


def placement(job: AdapterTrainingJob, attempt: int) -> Plain:
    """The fields of a pod's specification."""
    given = job.spec.scheduling
    found: Plain = {}
    if given.node_selector:
        found["nodeSelector"] = dict(given.node_selector)
    if given.tolerations:
        found["tolerations"] = [plain(toleration) for toleration in given.tolerations]
    affinity = plain(given.affinity)
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
    if given.topology_spread_constraints:
        ours = attempt_labels(job.metadata.name, attempt, job.spec.nodes)
        found["topologySpreadConstraints"] = [_spread(each, ours) for each in given.topology_spread_constraints]
    if given.priority_class_name is not None:
        found["priorityClassName"] = given.priority_class_name
    if given.scheduler_name is not None:
        found["schedulerName"] = given.scheduler_name
    return found


def _spread(given: TopologySpreadConstraint, ours: dict[str, str]) -> Plain:
    """Without a selector Kubernetes would count no pods at all."""
    return {"labelSelector": {"matchLabels": ours}, **plain(given)}
