"""Operators are stopped, doubled, killed again and again, and lose their rights, their token, their CRD."""

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import Refused
from tests.operator.support.fault_proxy import Call, FaultProxy
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import OnControlPlane, condition, install_crd
from tests.support.ports import free_port
from tests.support.repository import CHART

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SHORT_LEASE = {"ADAPTER_OPERATOR_LEASE_SECONDS": "3"}
KILLED_JOBS, KILLS = int(os.environ.get("KILLED_JOBS", "4")), int(os.environ.get("KILLS", "4"))
Place = Callable[..., OnControlPlane]


@pytest.fixture
def make_place(control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Places of this test, by name."""
    made: list[OnControlPlane] = []

    def make(name: str, **variables: str) -> OnControlPlane:
        made.append(OnControlPlane(control_plane, name, tmp_path, variables))
        return made[-1]

    yield make
    for place in made:
        place.close()


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[FaultProxy]:
    proxy = FaultProxy(control_plane, tmp_path)
    proxy.start()
    yield proxy
    proxy.stop()


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
    assert sleeper.wait(30) == 1, "it has lost the lease, and must end"
    time.sleep(1)
    status = place.wait_state("stale", "Running")
    assert (status["attempt"], status["restarts"]["total"]) == (1, 0)
    assert not [pod for pod in place.pods("stale", 1) if "deletionTimestamp" in pod["metadata"]]
    assert successor.poll() is None
    assert not place.history.faults


def _is_stopped(process: subprocess.Popen[bytes]) -> bool:
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
    make_place: Place, control_plane: ControlPlane
) -> None:
    port = free_port()
    place = make_place("no-crd", ADAPTER_OPERATOR_HTTP_PORT=str(port), ADAPTER_OPERATOR_RESYNC_SECONDS="2")
    remove_crd(control_plane)
    operator = place.start()
    place.wait("the lease, but no CRD", lambda: answer(port, "readyz") == 503)
    for _ in range(10):
        assert answer(port, "readyz") == 503
        assert answer(port, "healthz") == 200
        time.sleep(0.2)
    install_crd(control_plane)
    place.create("first")
    place.wait_state("first", "Running")
    assert operator.poll() is None, "waiting for a CRD is no reason to end"
    assert answer(port, "readyz") == 200
    remove_crd(control_plane)
    place.wait("an end, or not ready", lambda: operator.poll() is not None or answer(port, "readyz") == 503)
    lives.revive(place)
    install_crd(control_plane)
    place.create("second")
    place.wait_state("second", "Running")


def remove_crd(plane: ControlPlane) -> None:
    plane.kubectl("delete", "crd", "adaptertrainingjobs.adaptertraining.dev", "--wait", "--timeout=30s")


def answer(port: int, page: str) -> int:
    """The status code; 0 if nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def restricted(make_place: Place, proxy: FaultProxy) -> OnControlPlane:
    """A place whose operator has the rights that the chart gives, and no more."""
    place = make_place(
        f"rights-{proxy.port}", **SHORT_LEASE, ADAPTER_OPERATOR_LEASE_NAME="ato-adapter-training-operator"
    )
    grant(place)
    token = place.kubectl("create", "token", "ato-adapter-training-operator").strip()
    place.variables["KUBECONFIG"] = str(proxy.kubeconfig("restricted", token))
    return place


def grant(place: OnControlPlane, without: tuple[str, str] | None = None) -> None:
    """The chart's roles and account; `without` a verb on a resource."""
    command = [str(place.control_plane.program("helm")), "template", "ato", str(CHART), "-n", place.namespace,
               "--kube-version", "1.34.4", "--set", f"watchNamespace={place.namespace}",
               "--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml"]  # fmt: skip
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    if without is not None:
        verb, resource = without
        for rule in (rule for each in objects if each["kind"] == "Role" for rule in each["rules"]):
            if resource in rule["resources"]:
                rule["verbs"] = [each for each in rule["verbs"] if each != verb]
    place.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def test_the_rights_of_the_chart_suffice_and_their_loss_heals(restricted: OnControlPlane) -> None:
    is_done = False

    def take_rights(all_lives: Sequence[Life]) -> None:
        nonlocal is_done
        if is_done or "failed" not in all_lives[0].reached:
            return
        is_done = True
        restricted.kubectl("delete", "rolebindings", "--all")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            lives.revive(restricted)
            time.sleep(0.2)
        grant(restricted)

    restricted.start()
    assert lives.lead(restricted, ["rights"], take_rights) == [lives.UNDISTURBED]
    assert is_done


@pytest.mark.parametrize(("verb", "resource", "attempt"), [("create", "jobs", 1), ("delete", "jobs", 2)])
def test_a_right_that_is_missing_is_told_in_the_status_and_as_an_event(
    restricted: OnControlPlane, verb: str, resource: str, attempt: int
) -> None:
    grant(restricted, without=(verb, resource))
    restricted.start()
    life = Life(restricted, "untold")
    restricted.wait("told", lambda: life.step() or "cannot" in condition(restricted.status("untold"), "Running").get("message", ""))  # fmt: skip
    status = restricted.status("untold")
    assert f'cannot {verb} resource "{resource}"' in condition(status, "Running")["message"]
    assert (status["state"], status["attempt"]) == ("Pending", attempt)
    restricted.wait("an Event", lambda: ("Warning", condition(status, "Running")["reason"]) in restricted.events("untold"))  # fmt: skip
    before = restricted.job("untold")["metadata"]["resourceVersion"]
    time.sleep(1)
    assert restricted.job("untold")["metadata"]["resourceVersion"] == before, (
        "a status that says the same is not rewritten"
    )
    grant(restricted)
    restricted.patch_job("untold", {"metadata": {"labels": {"look": "again"}}})
    restricted.wait("complete", life.step)
    assert lives.seen(restricted, "untold") == lives.UNDISTURBED


def test_a_token_that_is_rotated_leaves_no_gap(make_place: Place, control_plane: ControlPlane, tmp_path: Path) -> None:
    place = make_place("rotation", **SHORT_LEASE, ADAPTER_OPERATOR_LEASE_NAME="ato-adapter-training-operator")
    grant(place)
    file = tmp_path / "token"
    file.write_text(token(place, "first"))
    host, _, port = place.api.address.removeprefix("https://").rpartition(":")
    operator = place.start(
        "tests.operator.support.in_cluster_operator",
        KUBERNETES_SERVICE_HOST=host,
        KUBERNETES_SERVICE_PORT=port,
        TOKEN_FILE=str(file),
        CA_FILE=str(control_plane.certificates / "ca.crt"),
        ADAPTER_OPERATOR_WATCH_SILENCE_SECONDS="2",
    )
    life = Life(place, "rotated")
    place.wait_state("rotated", "Running")
    old = file.read_text()
    file.write_text(token(place, "second"))
    time.sleep(2)  # the client's own period, shortened
    place.kubectl("delete", "secret", "first")
    place.wait("the old token is refused", lambda: not is_valid(place, old))
    place.wait("complete", life.step)
    assert lives.seen(place, "rotated") == lives.UNDISTURBED
    assert operator.poll() is None


def token(place: OnControlPlane, secret: str) -> str:
    """Good for as long as the Secret exists."""
    place.kubectl("create", "secret", "generic", secret)
    return place.kubectl(
        "create",
        "token",
        "ato-adapter-training-operator",
        "--bound-object-kind=Secret",
        f"--bound-object-name={secret}",
    ).strip()


def is_valid(place: OnControlPlane, text: str) -> bool:
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": text}}
    try:
        answered = place.api.call("POST", "apis/authentication.k8s.io/v1/tokenreviews", review)
    except Refused:
        return False
    return bool(answered["status"].get("authenticated"))
