"""PURE: what a quota, a LimitRange or another rule of the cluster says of a job's pods -> the field to set.

The sentences are those of Kubernetes' plugin/pkg/admission (resourcequota, limitranger, runtimeclass, priority) and of OpenShift's
security context constraints.
"""

import re

from adapter_api.names import RESTORE, SYNC, TRAINER

_LACKING = re.compile(r"\b(limits|requests)\.([a-z0-9./-]+) for: ([a-z0-9,-]+)")
"""A quota, of containers that state no resources: must specify limits.cpu for: restore,sync."""
_BOUND = re.compile(
    r"\b(maximum|minimum) ([a-z0-9./-]+) usage per (Container|Pod) is ([0-9a-zA-Z.]+)(?:, but (request|limit)|\. +No (limit|request))"
)
"""A LimitRange: maximum memory usage per Container is 1Gi, but limit is 2Gi; or: is 1Gi. No limit is specified."""
_RATIO = re.compile(r"\b([a-z0-9./-]+) max limit to request ratio per (?:Container|Pod) is ([0-9a-zA-Z.]+)")
_EXCEEDED = re.compile(r"exceeded quota: ([a-z0-9.-]+), requested: (.+?), used:")
"""A quota that is used up: exceeded quota: team, requested: limits.cpu=8, used: ..., limited: ... ."""
_OTHERS = (
    (
        re.compile(r"security context constraint"),
        "Set spec.pod.securityContext: {}, so that the cluster assigns user and groups",
    ),
    (
        re.compile(r"RuntimeClass"),
        "Correct spec.pod.runtimeClassName; `kubectl get runtimeclasses` lists what there is",
    ),
    (
        re.compile(r"PriorityClass"),
        "Correct spec.scheduling.priorityClassName; `kubectl get priorityclasses` lists what there is",
    ),
    (
        re.compile(r"error looking up service account"),
        "Correct spec.pod.serviceAccountName; `kubectl get serviceaccounts` lists what there is",
    ),
)
_OTHERWISE = "Ask for less, wait until there is room, or ask the administrator of the namespace"


def mending(refusal: str) -> str:
    """A sentence that names the fields to set, or what else to do."""
    if lacking := _LACKING.findall(refusal):
        containers = {name for _, _, names in lacking for name in names.split(",")}
        parts = [f"spec.agentResources.{{{_kinds(lacking)}}}"] if containers & {RESTORE, SYNC} else []
        parts += [f"spec.resources.{{{_kinds(lacking)}}}"] if TRAINER in containers else []
        return f"Set {' and '.join(parts) or 'them'}, or let the namespace have a LimitRange with defaults"
    if bounds := _bounds(refusal):
        return f"Set {', '.join(bounds)}, in spec.resources for the trainer and in spec.agentResources for restore and sync"
    if exceeded := _EXCEEDED.search(refusal):
        return (
            f"Ask for less in spec.resources, spec.agentResources or spec.nodes, or wait until the quota {exceeded[1]} has room for "
            f"{exceeded[2]}"
        )
    return next((remedy for pattern, remedy in _OTHERS if pattern.search(refusal)), _OTHERWISE)


def _kinds(lacking: list[tuple[str, str, str]]) -> str:
    return ", ".join(dict.fromkeys(f"{kind}.{name}" for kind, name, _ in lacking))


def _bounds(refusal: str) -> list[str]:
    found = []
    for side, resource, per, value, given, missing in _BOUND.findall(refusal):
        direction = "at most" if side == "maximum" else "at least"
        whole = " over all containers of a pod" if per == "Pod" else ""
        found.append(f"{given or missing}s.{resource} to {direction} {value}{whole}")
    found += [
        f"limits.{resource} to at most {value} times requests.{resource}" for resource, value in _RATIO.findall(refusal)
    ]
    return list(dict.fromkeys(found))
