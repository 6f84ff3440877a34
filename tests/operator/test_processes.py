"""Operators are stopped, doubled, replaced, killed again and again, and lose their CRD."""

import os
import signal
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.operator.support import lives
from tests.operator.support.fault_proxy import FaultProxy, fault_proxy
from tests.operator.support.faults import Call
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import DEFINITION, OnPlane, Process, install_crd
from tests.operator.support.planes import Plane
from tests.support.ports import free_port

SHORT_LEASE = {"ADAPTER_OPERATOR_LEASE_SECONDS": "3"}
KILLED_JOBS, KILLS = int(os.environ.get("KILLED_JOBS", "4")), int(os.environ.get("KILLS", "4"))
Place = Callable[..., OnPlane]


@pytest.fixture
def make_place(plane: Plane, tmp_path: Path) -> Iterator[Place]:
    """Places of this test, by name."""
    made: list[OnPlane] = []

    def make(name: str, **variables: str) -> OnPlane:
        made.append(OnPlane(plane, name, tmp_path, variables))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
def proxy(plane: Plane, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(plane, tmp_path) as proxy:
        yield proxy


def holder(place: OnPlane) -> str:
    """Who has the lease; empty if nobody does."""
    return next((str(lease["spec"].get("holderIdentity") or "") for lease in place.items("leases")), "")


def test_an_operator_that_is_killed_is_followed_by_one_that_waits(make_place: Place) -> None:
    place = make_place("followed", **SHORT_LEASE)
    first = place.start(ADAPTER_OPERATOR_POD_NAME="first")
    life = Life(place, "handed-over")
    place.wait_state("handed-over", "Running")
    second = place.start(ADAPTER_OPERATOR_POD_NAME="second")
    place.wait("the second waits", lambda: "waits for the lease" in place.log())
    assert holder(place) == "first"
    first.kill()
    place.wait("complete", life.step)
    assert holder(place) == "second"
    assert second.poll() is None
    assert lives.seen(place, "handed-over") == lives.UNDISTURBED
    assert not place.history.faults


def test_an_operator_that_is_asked_to_end_gives_up_the_lease(make_place: Place) -> None:
    # For an hour, so that nobody can have it unless it is given up.
    place = make_place("given-up", ADAPTER_OPERATOR_LEASE_SECONDS="3600")
    first = place.start(ADAPTER_OPERATOR_POD_NAME="first")
    place.create("comes-before")
    place.wait_state("comes-before", "Running")
    assert holder(place) == "first"
    first.terminate()
    assert first.wait(60) == 0
    assert holder(place) == ""
    place.start(ADAPTER_OPERATOR_POD_NAME="second")
    place.create("comes-after")
    place.wait_state("comes-after", "Running")
    assert holder(place) == "second"


def test_two_operators_that_both_act_end_where_one_would(make_place: Place) -> None:
    place = make_place("two-operators")
    for name in ("one", "two"):
        place.start(ADAPTER_OPERATOR_POD_NAME=name, ADAPTER_OPERATOR_LEASE_NAME=name)
    names = [f"shared-{number}" for number in range(4)]
    assert lives.lead(place, names) == [lives.UNDISTURBED] * 4


def test_an_operator_that_wakes_after_another_took_over_deletes_nothing_of_it(
    make_place: Place, proxy: FaultProxy
) -> None:
    # It is stopped between deleting an attempt's Job and its pods. Meanwhile the job is deleted and made anew, so that
    # what wakes up knows names and numbers that are in use again.
    place = make_place("stopped", **SHORT_LEASE)
    sleeper = place.start(KUBECONFIG=str(proxy.kubeconfig("sleeper")), ADAPTER_OPERATOR_POD_NAME="sleeper")

    def stop(call: Call) -> None:
        if call.method == "DELETE" and call.path.endswith("/jobs/stale-1"):
            os.kill(sleeper.pid, signal.SIGSTOP)

    life = Life(place, "stale")
    proxy.faults.on_call = stop
    place.wait("stopped", lambda: life.step() or _is_stopped(sleeper))
    successor = place.start(ADAPTER_OPERATOR_POD_NAME="successor")
    lives.clear(place, "stale")
    place.create("stale")
    place.wait_state("stale", "Running")
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait(60) == 1, "it has lost the lease, and must end"
    place.create("later")
    place.wait_state("later", "Running")  # whatever the sleeper did before it has been acted on
    status = place.wait_state("stale", "Running")
    assert (status["attempt"], status["restarts"]["total"]) == (1, 0)
    assert not [pod for pod in place.pods("stale", 1) if "deletionTimestamp" in pod["metadata"]]
    assert successor.poll() is None
    assert not place.history.faults


def _is_stopped(process: Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_many_jobs_outlive_an_operator_that_is_killed_again_and_again(make_place: Place) -> None:
    place = make_place("killed-often")
    place.start()
    kills = 0

    def kill(led: Sequence[Life]) -> None:
        nonlocal kills
        reached = sum(len(life.reached) for life in led) / (KILLED_JOBS * lives.STATIONS)
        if kills < KILLS and reached > kills / KILLS:
            place.running[-1].kill()
            place.running[-1].wait()
            kills += 1

    names = [f"often-{number}" for number in range(KILLED_JOBS)]
    ends = lives.lead(place, names, kill, seconds=60 + 10 * KILLS + KILLED_JOBS)
    assert kills >= min(2, KILLS), "all went too fast to be killed between"
    assert ends == [lives.UNDISTURBED] * KILLED_JOBS
    for name in names:
        place.delete("adaptertrainingjobs", name)
    place.wait("nothing left", lambda: not [each for each in place.items(lives.LEFT) if "labels" in each["metadata"] and each["metadata"].get("ownerReferences")])  # fmt: skip


def test_without_the_crd_it_is_not_ready_and_serves_as_soon_as_there_is_one(
    make_place: Place, proxy: FaultProxy, plane: Plane
) -> None:
    port = free_port()
    place = make_place(
        "no-crd", ADAPTER_OPERATOR_HTTP_PORT=str(port), ADAPTER_OPERATOR_RESYNC_SECONDS="2",
        KUBECONFIG=str(proxy.kubeconfig("operator")),
    )  # fmt: skip
    remove_crd(place)
    operator = place.start()
    place.wait("the lease, but no CRD", lambda: answer(port, "readyz") == 503)

    def asks_again() -> bool:
        assert answer(port, "readyz") == 503
        assert answer(port, "healthz") == 200
        return sum(call.path.endswith("/adaptertrainingjobs") for call in proxy.calls) > 2

    place.wait("it has asked three times whether the CRD is there", asks_again)
    install_crd(plane)
    place.create("first")
    place.wait_state("first", "Running")
    assert operator.poll() is None, "waiting for a CRD is no reason to end"
    assert answer(port, "readyz") == 200
    remove_crd(place)
    place.wait("an end, or not ready", lambda: operator.poll() is not None or answer(port, "readyz") == 503)
    lives.revive(place)
    install_crd(plane)
    place.create("second")
    place.wait_state("second", "Running")


def remove_crd(place: OnPlane) -> None:
    place.api.call("DELETE", DEFINITION)
    place.wait("the CRD is gone", lambda: not place.api.has(DEFINITION))


def answer(port: int, page: str) -> int:
    """The status code; 0 if nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
