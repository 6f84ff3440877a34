"""What scheduler and kubelets do on the API server stand-in: three nodes, played as tests/cluster/fake_nodes.yaml has KWOK play them.

A pod runs as soon as a node has room for it, goes on until a test says otherwise, and when it is deleted ends by SIGTERM and
goes. Room is CPU and number of pods; of what a pod asks for only `nodeSelector` is looked at besides.
"""

from datetime import UTC, datetime
from typing import Any

from tests.operator.support.stand_in.controllers import has_ended
from tests.operator.support.stand_in.objects import key_of, stamp
from tests.operator.support.stand_in.resources import PODS
from tests.operator.support.stand_in.store import Change, Key
from tests.operator.support.stand_in.verbs import Verbs

Plain = dict[str, Any]

NODES = ("fake-0", "fake-1", "fake-2")
CPUS, MOST_PODS = 64.0, 110


class Nodes:
    """All nodes, and the scheduler."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs
        self._addresses = 0

    def react(self, change: Change) -> None:
        """Moves a pod on by one step, and others to the place that it leaves."""
        if change.key.resource != PODS:
            return
        pod = self._verbs.store.get(change.key)
        if pod is not None:
            self._move_on(change.key, pod)
        if pod is None or has_ended(pod):
            for other in self._verbs.store.of(PODS):
                if "nodeName" not in other["spec"]:
                    self._schedule(key_of(PODS, other), other)

    def _move_on(self, key: Key, pod: Plain) -> None:
        is_deleted = "deletionTimestamp" in pod["metadata"]
        if "nodeName" not in pod["spec"]:
            self._schedule(key, pod)
        elif is_deleted and has_ended(pod):
            self._verbs.delete(key, {"gracePeriodSeconds": 0})
        elif is_deleted:
            self._verbs.set_status(key, _ended(pod))
        elif "podIP" not in pod["status"]:
            self._addresses += 1
            address = f"10.{self._addresses >> 16 & 255}.{self._addresses >> 8 & 255}.{self._addresses & 255}"
            self._verbs.set_status(key, _running(pod, address))

    def _schedule(self, key: Key, pod: Plain) -> None:
        if "deletionTimestamp" in pod["metadata"] or has_ended(pod):
            return
        cpus, counts = dict.fromkeys(NODES, 0.0), dict.fromkeys(NODES, 0)
        for other in self._verbs.store.of(PODS):
            if "nodeName" in other["spec"] and not has_ended(other):
                cpus[other["spec"]["nodeName"]] += _cpus(other)
                counts[other["spec"]["nodeName"]] += 1
        meant = [node for node in NODES if _is_meant(pod, node)]
        free = [node for node in meant if counts[node] < MOST_PODS and cpus[node] + _cpus(pod) <= CPUS]
        if free:
            node = min(free, key=lambda each: cpus[each])
            told = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()}
            status = {**pod["status"], "conditions": [told]}
            self._verbs.set(key, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})
            return
        why = "Insufficient cpu" if meant else "node(s) didn't match Pod's node affinity/selector"
        known: Plain = next(iter(pod["status"].get("conditions") or ()), {})
        message = f"0/{len(NODES)} nodes are available: {len(NODES)} {why}."
        if known.get("message") != message:
            told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message, "lastTransitionTime": _now()}  # fmt: skip
            self._verbs.set_status(key, {**pod["status"], "conditions": [told]})


def _is_meant(pod: Plain, node: str) -> bool:
    labels = {"type": "kwok", "kubernetes.io/hostname": node}
    return (pod["spec"].get("nodeSelector") or {}).items() <= labels.items()


def _cpus(pod: Plain) -> float:
    """What its containers ask for."""
    sidecars = [each for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"]
    asked = [_resources(each).get("cpu", "0") for each in (*pod["spec"]["containers"], *sidecars)]
    return sum(float(each[:-1]) / 1000 if each.endswith("m") else float(each) for each in asked)


def _resources(container: Plain) -> Plain:
    given = container.get("resources") or {}
    return {**(given.get("limits") or {}), **(given.get("requests") or {})}


def _running(pod: Plain, address: str) -> Plain:
    now = _now()
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
    ]
    runs, is_over = {"running": {"startedAt": now}}, {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}  # fmt: skip
    return {
        "phase": "Running", "startTime": now, "hostIP": "10.0.0.1", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": conditions,
        "containerStatuses": [_container(each, runs) for each in pod["spec"]["containers"]],
        "initContainerStatuses": [
            _container(each, runs if each.get("restartPolicy") == "Always" else is_over)
            for each in pod["spec"].get("initContainers") or ()
        ],
    }  # fmt: skip


def _ended(pod: Plain) -> Plain:
    now = _now()
    state = {"terminated": {"exitCode": 143, "reason": "Error", "startedAt": now, "finishedAt": now}}
    containers = [{**_container(each, state), "ready": False, "started": False} for each in pod["spec"]["containers"]]
    return {**pod["status"], "phase": "Failed", "containerStatuses": containers}


def _container(given: Plain, state: Plain) -> Plain:
    return {
        "name": given["name"], "image": given["image"], "imageID": "", "ready": True, "started": "running" in state,
        "restartCount": 0, "state": state,
    }  # fmt: skip


def _now() -> str:
    return stamp(datetime.now(UTC))
