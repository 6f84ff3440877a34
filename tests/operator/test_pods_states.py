"""What a cluster does to pods and nodes, and what becomes of the job; the pods' states are set by the test, or by KWOK."""

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.on_plane import OnPlane, Plain, condition, disrupted, ended, serving
from tests.operator.support.planes import Plane, only_on_control_plane

AGENT = ("127.77.0.1", 8081)
"""An address of this machine that is given to a pod."""
CLUSTERS_DOING: dict[str, Plain] = {
    "Preempted": disrupted("PreemptionByScheduler"),
    "Evicted": {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"},
    "NodeLost": disrupted("DeletionByTaintManager"),
}
OWN_DOING: dict[str, Plain] = {
    "OutOfMemory": ended(137, "OOMKilled"),
    "Killed": ended(137),
    "Failed": ended(1, message="adapter_agent: error: no such layer"),
}


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(
        plane, "pods-states", tmp_path_factory.mktemp("pods-states"), {"ADAPTER_OPERATOR_PROGRESS_SECONDS": "1"}
    ) as place:
        yield place


def fail(place: OnPlane, name: str, attempt: int, status: Plain) -> None:
    place.wait_state(name, "Running", attempt)
    place.set_pod(place.pods(name, attempt)[1]["metadata"]["name"], status)


def test_what_the_cluster_did_is_not_charged_and_what_the_job_did_is(place: OnPlane) -> None:
    causes = CLUSTERS_DOING | OWN_DOING
    for reason in causes:
        place.create(reason.lower())
    for reason, status in causes.items():
        fail(place, reason.lower(), 1, status)
    for reason in causes:
        status = place.wait_state(reason.lower(), "Running", attempt=2)
        assert (status["lastFailure"]["reason"], status["lastFailure"]["node"]) == (reason, 1)
        charged = int(reason in OWN_DOING)
        assert status["restarts"] == {"charged": charged, "uncharged": 1 - charged, "total": 1}
        assert ("Warning", reason) in place.events(reason.lower())
    assert not place.history.faults
    for reason in causes:
        lives.clear(place, reason.lower())


@pytest.mark.parametrize("lost", [[0], [1], [0, 1]], ids=["rank-0", "another", "all"])
def test_pods_that_are_deleted_are_replaced_all_together(place: OnPlane, lost: list[int]) -> None:
    name = f"loses-{'-'.join(map(str, lost))}"
    place.create(name)
    place.wait_state(name, "Running")
    before = place.pods(name, 1)
    for index in lost:
        place.delete("pods", before[index]["metadata"]["name"], gracePeriodSeconds=0)
    status = place.wait_state(name, "Running", attempt=2)
    assert (status["attempt"], status["restarts"]) == (2, {"charged": 0, "uncharged": 1, "total": 1})
    assert status["lastFailure"]["reason"] == "PodDeleted"
    assert not place.pods(name, 1)
    assert not place.history.faults
    lives.clear(place, name)


def test_a_crash_loop_backs_off_and_stops_at_its_limit(place: OnPlane) -> None:
    place.create("loops", restart={"maxRestarts": 2, "backoffSeconds": 1})
    for attempt in (1, 2, 3):
        fail(place, "loops", attempt, ended(1, message="adapter_agent: error: always"))
    status = place.wait_state("loops", "Failed")
    assert (status["attempt"], status["restarts"]["charged"]) == (3, 2)
    assert "given up after 2 restarts" in condition(status, "Failed")["message"]
    place.wait("nothing runs any more", lambda: not place.items_of("loops", "pods,jobs"))
    assert not place.history.faults
    lives.clear(place, "loops")


def test_what_cannot_run_says_why_and_ends_at_its_deadline(place: OnPlane) -> None:
    # Three of four fit: fake nodes have 64 CPUs each.
    big = {"requests": {"cpu": "40", "memory": "16Mi"}}
    nowhere = {"nodeSelector": {"disktype": "floppy"}}
    place.create("partial", nodes=4, resources=big, activeDeadlineSeconds=6)
    place.create("nowhere", scheduling=nowhere, activeDeadlineSeconds=6)
    place.create("no-image", activeDeadlineSeconds=6)
    place.wait("pods", lambda: len(place.pods("no-image", 1)) == 2)
    place.wait_state("no-image", "Running")
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    trainer = {"name": "trainer", "image": "any", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}  # fmt: skip
    for pod in place.pods("no-image", 1):
        place.set_pod(pod["metadata"]["name"], {"phase": "Pending", "containerStatuses": [trainer]})
    for name, reason in {
        "partial": "Unschedulable",
        "nowhere": "Unschedulable",
        "no-image": "ImagePullBackOff",
    }.items():
        status = place.wait_reason(name, reason)
        assert (status["state"], status["attempt"]) == ("Pending", 1)
    for name in ("partial", "nowhere", "no-image"):
        status = place.wait_state(name, "Failed")
        assert condition(status, "Failed")["reason"] == "DeadlineExceeded"
        assert (status["attempt"], status["restarts"]["total"]) == (1, 0)
        place.wait(f"{name} holds nothing any more", lambda name=name: not place.items_of(name, "pods,jobs"))  # type: ignore[misc]
        lives.clear(place, name)


def test_a_specification_that_could_not_run_is_mended_where_it_stands(place: OnPlane) -> None:
    place.create("mended", scheduling={"nodeSelector": {"disktype": "floppy"}})
    assert place.wait_reason("mended", "Unschedulable")["attempt"] == 1
    place.patch("mended", {"scheduling": {"nodeSelector": {"disktype": None}}})
    status = place.wait_state("mended", "Running", attempt=2)
    assert (status["attempt"], status["restarts"]["total"]) == (2, 0)
    assert ("Normal", "Changed") in place.events("mended")
    assert not place.pods("mended", 1)
    lives.clear(place, "mended")


class Stuck(BaseHTTPRequestHandler):
    """An agent whose trainer is at the same step for ever."""

    def do_GET(self) -> None:
        body = json.dumps({"step": 7, "total_steps": 100, "updated_at": "2026-01-01T00:00:00Z"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_a_trainer_that_makes_no_step_is_restarted(place: OnPlane) -> None:
    server = ThreadingHTTPServer(AGENT, Stuck)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        place.create("hangs", restart={"maxRestarts": 3, "backoffSeconds": 0, "hangSeconds": 2})
        place.wait_state("hangs", "Running")
        address = {"podIP": AGENT[0], "podIPs": [{"ip": AGENT[0]}]}
        place.set_pod(place.pods("hangs", 1)[0]["metadata"]["name"], address)
        status = place.wait_state("hangs", "Running", attempt=2)
    finally:
        server.shutdown()
        server.server_close()
    assert status["lastFailure"]["reason"] == "Hung"
    assert "the last one was 7" in status["lastFailure"]["message"]
    assert status["restarts"] == {"charged": 1, "uncharged": 0, "total": 1}
    assert status["progress"]["step"] == 7
    assert not place.history.faults
    lives.clear(place, "hangs")


@only_on_control_plane
def test_a_pod_on_a_node_that_is_silent_is_not_waited_for_for_ever(place: OnPlane, control_plane: ControlPlane) -> None:
    place.create("unheard", nodes=1)
    place.wait_state("unheard", "Running")
    control_plane.kill("kwok", signal.SIGSTOP)  # no node does anything any more: a deleted pod stays
    try:
        place.delete("pods", place.pods("unheard", 1)[0]["metadata"]["name"], gracePeriodSeconds=1)
        place.wait_state("unheard", "Restarting", attempt=2)
        place.create("heard-later", nodes=1)
        place.wait("whatever came before is acted on", lambda: place.items_of("heard-later", "jobs"))
        assert not place.pods("unheard", 2), "the old pod may still run"
        place.wait("a new attempt", lambda: place.pods("unheard", 2))
        assert place.pods("unheard", 1), "the old pod is still there, and harmless by fencing"
    finally:
        control_plane.kill("kwok", signal.SIGCONT)
    status = place.wait_state("unheard", "Running", attempt=2)
    assert status["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}
    for name in ("unheard", "heard-later"):
        lives.clear(place, name)
