"""What the operator may do, and what becomes of it when it may not any more: the chart's rights, and a token that is rotated."""

import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import Refused
from tests.operator.support.fault_proxy import FaultProxy, fault_proxy
from tests.operator.support.in_cluster_operator import TOKEN_READ
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import OnControlPlane, OnPlane, condition
from tests.support.repository import CHART, CHART_IMAGES

pytestmark = pytest.mark.cluster

AS_THE_CHART = {"ADAPTER_OPERATOR_LEASE_SECONDS": "3", "ADAPTER_OPERATOR_LEASE_NAME": "ato-adapter-training-operator"}


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(control_plane, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def restricted(control_plane: ControlPlane, proxy: FaultProxy, tmp_path: Path) -> Iterator[OnControlPlane]:
    """A place whose operator has the rights that the chart gives, and no more."""
    place = OnControlPlane(control_plane, f"rights-{secrets.token_hex(4)}", tmp_path, AS_THE_CHART)
    grant(place)
    token = place.kubectl("create", "token", "ato-adapter-training-operator").strip()
    place.variables["KUBECONFIG"] = str(proxy.kubeconfig("restricted", token))
    yield place
    place.close()


def grant(place: OnControlPlane, without: tuple[str, str] | None = None) -> None:
    """The chart's roles and account; `without` a verb on a resource."""
    command = [str(place.control_plane.program("helm")), "template", "ato", str(CHART), "-n", place.namespace,
               "--kube-version", place.control_plane.version, "--set", f"watchNamespace={place.namespace}",
               *CHART_IMAGES, "--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml"]  # fmt: skip
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    objects = [each for each in yaml.safe_load_all(rendered) if each]
    if without is not None:
        verb, resource = without
        for rule in (rule for each in objects if each["kind"] == "Role" for rule in each["rules"]):
            if resource in rule["resources"]:
                rule["verbs"] = [each for each in rule["verbs"] if each != verb]
    place.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))


def test_the_rights_of_the_chart_suffice_and_their_loss_heals(restricted: OnControlPlane, proxy: FaultProxy) -> None:
    is_done = False

    def take_rights(all_lives: Sequence[Life]) -> None:
        nonlocal is_done
        if is_done or "failed" not in all_lives[0].reached:
            return
        is_done = True
        restricted.kubectl("delete", "rolebindings", "--all")
        [first] = restricted.running
        restricted.wait("an end: it cannot renew its lease", lambda: first.poll() is not None)
        lives.revive(restricted)
        proxy.calls.clear()
        restricted.wait("the next one is refused", lambda: any(call.status == 403 for call in proxy.calls))
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
    restricted.wait("told", lambda: life.step() or cannot(restricted, "untold"))
    status = restricted.status("untold")
    assert f'cannot {verb} resource "{resource}"' in condition(status, "Running")["message"]
    assert (status["state"], status["attempt"]) == ("Pending", attempt)
    restricted.wait("an Event", lambda: ("Warning", condition(status, "Running")["reason"]) in restricted.events("untold"))  # fmt: skip
    before = restricted.job("untold")["metadata"]["resourceVersion"]
    restricted.create("told-later")
    # Once it has come as far as it can, whatever was told before it has been acted on.
    restricted.wait(
        "as far as it can", lambda: is_running(restricted, "told-later") or cannot(restricted, "told-later")
    )
    assert restricted.job("untold")["metadata"]["resourceVersion"] == before, (
        "a status that says the same is not rewritten"
    )
    grant(restricted)
    restricted.patch_job("untold", {"metadata": {"labels": {"look": "again"}}})
    restricted.wait("complete", life.step)
    assert lives.seen(restricted, "untold") == lives.UNDISTURBED


def cannot(place: OnPlane, name: str) -> bool:
    return "cannot" in condition(place.status(name), "Running").get("message", "")


def is_running(place: OnPlane, name: str) -> bool:
    return place.status(name).get("state") == "Running"


@pytest.fixture
def rotation(control_plane: ControlPlane, tmp_path: Path) -> Iterator[OnControlPlane]:
    place = OnControlPlane(control_plane, "rotation", tmp_path, AS_THE_CHART)
    yield place
    place.close()


def test_a_token_that_is_rotated_leaves_no_gap(
    rotation: OnControlPlane, control_plane: ControlPlane, tmp_path: Path
) -> None:
    place = rotation
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
    log = place.folder / "operator.log"
    read = log.read_text().count(TOKEN_READ)
    place.wait("the client has read the second token", lambda: log.read_text().count(TOKEN_READ) > read + 1)
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
