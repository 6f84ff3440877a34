"""Jobs with a queue name, under Kueue itself: they wait for quota, are admitted, are preempted, and come back."""

import json
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue import Kueue
from tests.operator.support import lives
from tests.operator.support.on_plane import SUCCEEDED, OnControlPlane, Plain, condition

pytestmark = pytest.mark.cluster

NAMESPACE = "queued"
FLAVOR = "kwok"
TOLERATION = {"key": "rented", "operator": "Exists", "effect": "NoSchedule"}
SMALL = {"requests": {"cpu": "100m", "memory": "16Mi"}}
QUOTA = {"cpu": "500m", "memory": "64Gi"}
"""For two pods of 110m to 210m, and not for four."""

QUEUES: list[Plain] = [
    {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": FLAVOR},
        "spec": {"nodeLabels": {"type": "kwok"}, "tolerations": [TOLERATION]},
    },
    {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": "everybody"},
        "spec": {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [{
                "coveredResources": list(QUOTA),
                "flavors": [{"name": FLAVOR, "resources": [
                    {"name": name, "nominalQuota": quota} for name, quota in QUOTA.items()]}],
            }],
        },
    },
    {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue",
        "metadata": {"name": "team", "namespace": NAMESPACE}, "spec": {"clusterQueue": "everybody"},
    },
    {
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000,
        "description": "goes first",
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnControlPlane]:
    variables = {"ADAPTER_OPERATOR_RESYNC_SECONDS": "2"}
    place = OnControlPlane(control_plane, NAMESPACE, tmp_path_factory.mktemp("queued"), variables)
    kueue = Kueue(control_plane, NAMESPACE, tmp_path_factory.mktemp("kueue"))
    try:
        kueue.start()
        queues = json.dumps({"apiVersion": "v1", "kind": "List", "items": QUEUES})
        place.wait("queues", lambda: _applied(place, queues))
        place.start()
        yield place
    finally:
        place.close()
        kueue.stop()


def _applied(place: OnControlPlane, objects: str) -> bool:
    place.control_plane.kubectl("apply", "--server-side", "-f", "-", stdin=objects)
    return True


def queued(place: OnControlPlane, name: str, **scheduling: str) -> None:
    place.create(name, resources=SMALL, scheduling={"queueName": "team", **scheduling})


def batch_job(place: OnControlPlane, name: str) -> Plain:
    found: Plain = json.loads(place.kubectl("get", "job", name, "-o", "json"))
    return found


def waits(place: OnControlPlane, name: str) -> Plain:
    """Its status, as soon as it waits for quota."""
    place.wait(f"{name} waits", lambda: condition(place.status(name), "Queued").get("reason") == "WaitingForQuota")
    status = place.status(name)
    assert (status["state"], condition(status, "Queued")["status"]) == ("Queued", "True")
    return status


def finish(place: OnControlPlane, name: str, attempt: int) -> Plain:
    for pod in place.pods(name, attempt):
        place.set_pod(pod["metadata"]["name"], SUCCEEDED)
    return place.wait_state(name, "Complete")


def test_jobs_share_a_quota_wait_for_it_and_give_it_back(place: OnControlPlane) -> None:
    queued(place, "first")
    place.wait_state("first", "Running")
    admitted = batch_job(place, "first-1")
    pods = admitted["spec"]["template"]["spec"]
    assert admitted["spec"]["suspend"] is False
    assert (pods["nodeSelector"], TOLERATION in pods["tolerations"]) == ({"type": "kwok"}, True)

    queued(place, "second")
    status = waits(place, "second")
    assert "queue team" in condition(status, "Queued")["message"]
    assert "startTime" not in status
    assert not place.pods("second", 1)

    place.stop()
    place.start()  # another operator, which looks at everything anew
    place.delete("services", "first")
    place.wait("what is missing is made anew", lambda: place.items_of("first", "services"))
    again = batch_job(place, "first-1")
    assert again["metadata"]["generation"] == admitted["metadata"]["generation"]
    assert again["spec"] == admitted["spec"], "nothing that Kueue wrote is written over"

    queued(place, "urgent", priorityClassName="urgent")
    place.wait_state("urgent", "Running")
    status = waits(place, "first")
    assert status["attempt"] == 2
    assert status["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}
    assert status["lastFailure"]["reason"] == "Preempted"

    finish(place, "urgent", 1)
    # The queue decides who is next; each gets its turn.
    left = {"first": 2, "second": 1}
    while left:
        place.wait("the next one", lambda: [name for name in left if place.status(name)["state"] == "Running"])
        name = next(name for name in left if place.status(name)["state"] == "Running")
        assert condition(place.status(name), "Queued")["status"] == "False"
        assert finish(place, name, left.pop(name))["restarts"]["charged"] == 0
    assert not place.history.faults
    for name in ("first", "second", "urgent"):
        lives.clear(place, name)


def test_a_suspended_job_leaves_its_quota_to_others_and_waits_for_it_again(place: OnControlPlane) -> None:
    queued(place, "pausing")
    place.wait_state("pausing", "Running")
    queued(place, "behind")
    waits(place, "behind")
    place.patch("pausing", {"suspend": True})
    assert "startTime" in place.wait_state("behind", "Running")
    place.wait_state("pausing", "Suspended")
    place.patch("pausing", {"suspend": False})
    assert waits(place, "pausing")["attempt"] == 2
    finish(place, "behind", 1)
    place.wait_state("pausing", "Running", attempt=2)
    assert finish(place, "pausing", 2)["restarts"]["total"] == 0
    for name in ("pausing", "behind"):
        lives.clear(place, name)


def test_a_job_that_outgrows_its_quota_waits_until_it_is_made_smaller(place: OnControlPlane) -> None:
    queued(place, "grows")
    place.wait_state("grows", "Running")
    place.patch("grows", {"nodes": 5})
    assert waits(place, "grows")["attempt"] == 2
    assert not place.pods("grows", 2)
    place.patch("grows", {"nodes": 1})
    place.wait_state("grows", "Running", attempt=3)
    assert len(place.pods("grows", 3)) == 1
    assert finish(place, "grows", 3)["restarts"]["total"] == 0
    lives.clear(place, "grows")


def test_a_queue_that_is_not_there_is_named_and_can_be_mended(place: OnControlPlane) -> None:
    place.create("astray", resources=SMALL, scheduling={"queueName": "taem"})
    told = condition(waits(place, "astray"), "Queued")["message"]
    assert "queue taem; `kubectl describe workloads`" in told
    place.wait("Kueue says why", lambda: "LocalQueue taem doesn't exist" in place.kubectl("describe", "workloads"))
    place.patch("astray", {"scheduling": {"queueName": "team"}})
    place.wait_state("astray", "Running", attempt=2)
    finish(place, "astray", 2)
    lives.clear(place, "astray")
