"""The operator is killed before and after each of its writes; whoever follows ends where an undisturbed one would.

Oracle: the job's status (times apart), the objects that exist, and the count of restarts are those of a run without faults.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.crashing_operator import CODE
from tests.operator.on_plane import PREEMPTED, SUCCEEDED, OnPlane, Plain

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

WRITES = 11
"""Of one life: launch 3, name 1, running 1, restart 4 with the next launch, running 1, complete 1."""


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(control_plane, "crash-points", tmp_path_factory.mktemp("crash-points"))
    yield place
    place.stop()


def live(place: OnPlane, name: str, **crash: str) -> tuple[Plain, bool]:
    """A job's life: it runs, loses a pod to preemption, runs again, and succeeds. Returns its end, and if it crashed."""
    place.create(name)
    operator = place.start("tests.operator.crashing_operator", **crash)
    has_failed = False
    crashed = False

    def step() -> bool:
        nonlocal operator, has_failed, crashed
        if operator.poll() == CODE:
            crashed = True
            operator = place.start()
        status = place.status(name)
        if status.get("state") == "Complete":
            return True
        if status.get("state") == "Running":
            attempt = status["attempt"]
            pods = [pod for pod in place.items("pods") if pod["metadata"]["labels"]["adaptertraining.dev/job"] == name]
            mine = [pod for pod in pods if pod["metadata"]["labels"]["adaptertraining.dev/attempt"] == str(attempt)]
            if attempt == 1 and not has_failed and mine:
                place.set_pod(mine[0]["metadata"]["name"], PREEMPTED)
                has_failed = True
            if attempt == 2:
                for pod in mine:
                    place.set_pod(pod["metadata"]["name"], SUCCEEDED)
        return False

    place.wait(f"{name} complete", step, seconds=90)
    # A crash after the last write finds its successor with nothing to do; it has to find that out.
    if operator.poll() is not None:
        crashed = True
    end = seen(place, name)
    place.stop()
    place.kubectl("delete", "atj", name)
    place.wait("nothing left", lambda: not [each for each in place.items("pods,jobs,services") if is_of(each, name)])
    return end, crashed


def is_of(item: Plain, name: str) -> bool:
    return bool(item["metadata"].get("labels", {}).get("adaptertraining.dev/job") == name)


def seen(place: OnPlane, name: str) -> Plain:
    """Everything about a job that must not depend on when an operator was killed."""
    status = place.status(name)
    items = [each for each in place.items("pods,jobs,services,configmaps,networkpolicies") if is_of(each, name)]
    return {
        "state": status["state"],
        "attempt": status["attempt"],
        "restarts": status["restarts"],
        "failure": {key: status["lastFailure"].get(key) for key in ("reason", "attempt", "charged")},
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "objects": sorted(
            (each["kind"], str(each["metadata"]["labels"].get("adaptertraining.dev/attempt"))) for each in items
        ),
    }


@pytest.fixture(scope="module")
def undisturbed(place: OnPlane) -> Plain:
    end, crashed = live(place, "undisturbed")
    assert not crashed
    return end


def test_the_undisturbed_life_is_what_the_others_are_compared_with(undisturbed: Plain) -> None:
    assert undisturbed["state"] == "Complete"
    assert undisturbed["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}
    assert undisturbed["failure"] == {"reason": "Preempted", "attempt": 1, "charged": False}
    assert [kind for kind, _ in undisturbed["objects"]] == [
        "ConfigMap",
        "Job",
        "NetworkPolicy",
        "Pod",
        "Pod",
        "Service",
    ]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_killed_at_any_write_the_end_is_the_same(place: OnPlane, undisturbed: Plain, write: int, when: str) -> None:
    end, crashed = live(place, f"killed-{write}-{when}", CRASH_AT=str(write), CRASH_WHEN=when)
    assert crashed, f"write {write} never came: a life has fewer"
    assert end == undisturbed
