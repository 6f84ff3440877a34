"""A user leads a job with `atj` from its submission to its deletion, and the operator follows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support.command import PreloadedAtj
from tests.operator.support import lives
from tests.operator.support.on_plane import SUCCEEDED, OnPlane, condition, serving
from tests.operator.support.planes import Plane
from tests.operator.support.stand_in.plane import StandIn
from tests.support.repository import QUICKSTART


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(plane, "whole-life", tmp_path_factory.mktemp("whole-life")) as place:
        yield place


def finish(place: OnPlane, name: str) -> None:
    for pod in place.pods(name, place.status(name)["attempt"]):
        place.set_pod(pod["metadata"]["name"], SUCCEEDED)


def test_a_job_is_submitted_scaled_suspended_resumed_awaited_and_deleted(place: OnPlane, tmp_path: Path) -> None:
    command = PreloadedAtj(tmp_path, {"KUBECONFIG": str(place.plane.kubeconfig)})

    def atj(*words: str | Path) -> str:
        done = command(*words, "-n", place.namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout

    atj("submit", QUICKSTART, "--name", "whole")
    atj("wait", "whole", "--for", "Running")
    assert len(place.pods("whole", 1)) == 2
    atj("scale", "whole", "--nodes", "3")
    status = place.wait_state("whole", "Running", attempt=2)
    assert (len(place.pods("whole", 2)), place.pods("whole", 1)) == (3, [])
    assert status["restarts"]["total"] == 0, "what the user asks for is no restart"
    atj("suspend", "whole")
    atj("wait", "whole", "--for", "Suspended")
    place.wait("no pod is left", lambda: not place.items_of("whole", "pods,jobs"))
    assert "Suspended=True" in atj("describe", "whole")
    atj("resume", "whole")
    status = place.wait_state("whole", "Running", attempt=3)
    assert (status["attempt"], len(place.pods("whole", 3))) == (3, 3)
    finish(place, "whole")
    assert atj("wait", "whole") == f"{place.namespace}/whole: Complete\n"
    status = place.status("whole")
    assert (status["restarts"]["total"], condition(status, "Complete")["status"]) == (0, "True")
    told = {("Normal", "Running"), ("Normal", "Resizing"), ("Normal", "Suspended"), ("Normal", "Complete")}
    place.wait("Events", lambda: told <= set(place.events("whole")))
    assert "Complete" in atj("list")
    assert atj("delete", "whole") == f"{place.namespace}/whole: deleted\n"
    place.wait("nothing left", lambda: not place.items_of("whole", lives.LEFT))
    assert not place.history.faults
    place.history.forget("whole")


@pytest.fixture
def logs(place: OnPlane) -> dict[tuple[str, str, str], str]:
    """What containers have written; fake nodes of the real plane keep no logs."""
    assert isinstance(place.plane, StandIn)
    return place.plane.logs


@pytest.mark.process
@pytest.mark.parametrize("plane", ["stand-in"], indirect=True)
def test_logs_of_all_nodes_are_told_apart(
    place: OnPlane, logs: dict[tuple[str, str, str], str], tmp_path: Path
) -> None:
    place.create("writes")
    place.wait_state("writes", "Running")
    for index, pod in enumerate(place.pods("writes", 1)):
        logs[place.namespace, pod["metadata"]["name"], "trainer"] = f"node {index} begins\nstep {index}\n"
    done = PreloadedAtj(tmp_path, {"KUBECONFIG": str(place.plane.kubeconfig)})("logs", "writes", "-n", place.namespace)
    assert done.stdout == "[0] node 0 begins\n[0] step 0\n[1] node 1 begins\n[1] step 1\n", done.stderr
    one = ("logs", "writes", "--node", "1", "--tail", "1", "-n", place.namespace)
    assert PreloadedAtj(tmp_path, {"KUBECONFIG": str(place.plane.kubeconfig)})(*one).stdout == "step 1\n"
    lives.clear(place, "writes")
