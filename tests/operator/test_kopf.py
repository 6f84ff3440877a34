"""kopf runs the operator: it writes nothing, what would end it elsewhere does not, and where it ends all is given back."""

import secrets
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operator.support import lives
from tests.operator.support.fault_proxy import FaultProxy, fault_proxy
from tests.operator.support.faults import Answer, Call, Harm, WatchError
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane
from tests.support.ports import free_port

PLURAL = "adaptertrainingjobs"
FOR_AN_HOUR = {"ADAPTER_OPERATOR_LEASE_SECONDS": "3600"}
"""Nobody can have the lease meanwhile unless it is given up."""
DEFAULT_TRIES = 9
"""Of kopf itself, before it ends the process."""


@pytest.fixture
def proxy(plane: Plane, tmp_path: Path) -> Iterator[FaultProxy]:
    with fault_proxy(plane, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def place(plane: Plane, proxy: FaultProxy, tmp_path: Path) -> Iterator[OnPlane]:
    place = OnPlane(
        plane, f"framework-{secrets.token_hex(4)}", tmp_path, {"KUBECONFIG": str(proxy.kubeconfig("operator"))}
    )
    yield place
    place.close()


def holder(place: OnPlane) -> str:
    return next((str(lease["spec"].get("holderIdentity") or "") for lease in place.items("leases")), "")


def of_kopf(proxy: FaultProxy) -> list[Call]:
    return [call for call in proxy.calls if call.is_of_kopf]


def test_kopf_writes_nothing(place: OnPlane, proxy: FaultProxy) -> None:
    operator = place.start()
    assert lives.lead(place, ["unmarked"]) == [lives.UNDISTURBED]
    metadata = place.job("unmarked")["metadata"]
    assert operator.poll() is None
    asked = of_kopf(proxy)
    assert {call.method for call in asked} == {"GET"}
    assert f"/apis/adaptertraining.dev/v1alpha1/namespaces/{place.namespace}/{PLURAL}" in {call.path for call in asked}
    assert "finalizers" not in metadata
    assert "annotations" not in metadata
    assert "kopf" not in str(place.items("adaptertrainingjobs,events,pods,jobs"))


@pytest.mark.parametrize("times", [1, 2])
def test_a_watch_that_is_refused_as_unauthorized_goes_on_after_another_login(
    place: OnPlane, proxy: FaultProxy, times: int
) -> None:
    operator = place.start()
    life = Life(place, "odd")
    place.wait_state("odd", "Running")
    refusals = [Answer(401, "Unauthorized")] * times
    proxy.faults.on_watch = lambda resource: refusals.pop() if resource == PLURAL and refusals else None
    proxy.cut_watches()
    place.wait("refused, and two watches again", lambda: not refusals and proxy.watch_count() == 2)
    place.wait("complete", life.step)
    assert lives.seen(place, "odd") == lives.UNDISTURBED
    assert operator.poll() is None


def test_a_call_that_is_refused_as_unauthorized_at_the_start_is_made_again(place: OnPlane, proxy: FaultProxy) -> None:
    refused: set[str] = set()

    def odd(call: Call) -> Harm:
        if not call.is_of_kopf or call.path in refused:
            return None
        refused.add(call.path)
        return Answer(401, "Unauthorized")

    proxy.faults.on_call = odd
    operator = place.start()
    place.wait("two watches", lambda: proxy.watch_count() == 2)
    assert len(refused) > 2
    assert lives.lead(place, ["odd-start"]) == [lives.UNDISTURBED]
    assert operator.poll() is None


@pytest.mark.parametrize("answer", [Answer(503, "ServiceUnavailable"), Answer(403, "Forbidden")], ids=["503", "403"])
def test_an_api_server_that_is_away_for_longer_than_kopf_tries_by_default_is_waited_for(
    place: OnPlane, proxy: FaultProxy, answer: Answer
) -> None:
    operator = place.start("tests.operator.support.hasty_operator")
    place.create("before")
    place.wait_state("before", "Running")
    tries = 0

    def away(resource: str) -> Answer | None:
        nonlocal tries
        tries += resource == PLURAL
        return answer

    proxy.faults.on_watch = away
    proxy.cut_watches()
    place.wait("more tries than kopf makes by default", lambda: tries > 2 * DEFAULT_TRIES)
    proxy.reset()
    place.wait("two watches", lambda: proxy.watch_count() == 2)
    assert lives.lead(place, ["after"]) == [lives.UNDISTURBED]
    assert operator.poll() is None


def test_a_watch_that_tells_of_an_unknown_error_ends_the_process_which_leaves_its_lease_to_the_next(
    place: OnPlane, proxy: FaultProxy
) -> None:
    place.variables |= FOR_AN_HOUR
    operator = place.start()
    life = Life(place, "broken")
    place.wait_state("broken", "Running")
    errors = [WatchError(500, "InternalError")]
    proxy.faults.on_watch = lambda resource: errors.pop() if resource == PLURAL and errors else None
    proxy.cut_watches()
    place.wait("an end", lambda: operator.poll() is not None)
    assert operator.poll() == 1
    assert "the watch of AdapterTrainingJobs has ended, a new process starts over" in place.log()
    assert holder(place) == ""
    lives.revive(place)
    place.wait("complete", life.step)
    assert lives.seen(place, "broken") == lives.UNDISTURBED


def test_a_watch_that_tells_bookmarks_only_fails_the_liveness_probe(place: OnPlane, proxy: FaultProxy) -> None:
    port = free_port()
    place.variables |= {
        "ADAPTER_OPERATOR_WATCH_SILENCE_SECONDS": "1", "ADAPTER_OPERATOR_RESYNC_SECONDS": "1",
        "ADAPTER_OPERATOR_HTTP_PORT": str(port),
    }  # fmt: skip
    place.start()
    place.create("told")
    place.wait_state("told", "Running")
    proxy.until_listed(place)
    assert probe(port) == (200, "ok\n")
    proxy.faults.withheld = frozenset({PLURAL})
    place.patch_job("told", {"metadata": {"labels": {"nobody": "tells"}}})
    place.wait("unhealthy", lambda: probe(port)[0] == 503)
    assert "lists show more of AdapterTrainingJobs than their watch reported" in probe(port)[1]


def probe(port: int) -> tuple[int, str]:
    """The status code of /healthz, and what it says."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as response:
            return int(response.status), response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_sigterm_ends_the_process_before_kopf_would_cancel_its_tasks(place: OnPlane) -> None:
    place.variables |= FOR_AN_HOUR
    operator = place.start()
    place.create("left-running")
    place.wait_state("left-running", "Running")
    asked = time.monotonic()
    operator.terminate()
    assert operator.wait(60) == 0
    # It waits five seconds for tasks that are left, and cancels them then.
    assert time.monotonic() - asked < 5
    assert holder(place) == ""
    assert "Traceback" not in place.log()
    assert place.status("left-running")["state"] == "Running"


def test_sigterm_while_the_lease_is_being_taken_leaves_it_free(place: OnPlane, proxy: FaultProxy) -> None:
    place.variables |= FOR_AN_HOUR

    def end(call: Call) -> None:
        if call.method == "POST" and call.path.endswith("/leases"):
            operator.terminate()

    proxy.faults.on_call = end
    operator = place.start()
    assert operator.wait(60) == 0
    assert [call.status for call in proxy.calls if call.method == "POST"] == [201], "the lease was taken all the same"
    assert holder(place) == ""


def test_sigterm_while_another_has_the_lease_leaves_it_alone(place: OnPlane) -> None:
    place.variables |= FOR_AN_HOUR
    place.start(ADAPTER_OPERATOR_POD_NAME="first")
    place.create("held")
    place.wait_state("held", "Running")
    second = place.start(ADAPTER_OPERATOR_POD_NAME="second")
    place.wait("the second waits", lambda: "waits for the lease" in place.log())
    second.terminate()
    assert second.wait(60) == 0
    assert holder(place) == "first"
    assert not [line for line in place.log().splitlines() if "Traceback" in line]


def test_sigterm_while_the_first_list_is_made_leaves_the_lease_free(place: OnPlane, proxy: FaultProxy) -> None:
    place.variables |= FOR_AN_HOUR

    def refuse(call: Call) -> Harm:
        return Answer(403, "Forbidden") if call.path.endswith(f"/{PLURAL}") else None

    proxy.faults.on_call = refuse
    operator = place.start()
    place.wait("it waits for a right", lambda: "waits until AdapterTrainingJobs can be listed" in place.log())
    assert holder(place) == "one"
    operator.terminate()
    assert operator.wait(60) == 0
    assert holder(place) == ""


def test_a_port_that_is_in_use_is_said_in_one_line(place: OnPlane) -> None:
    with socket.create_server(("", 0)) as taken:
        operator = place.start(ADAPTER_OPERATOR_HTTP_PORT=str(taken.getsockname()[1]))
        assert operator.wait(60) == 1
    assert "address already in use" in place.log()
    assert "Traceback" not in place.log()


@pytest.mark.parametrize("text", ["no: [yaml", "{}", '{"clusters": 1}'], ids=["no YAML", "empty", "no kubeconfig"])
def test_a_kubeconfig_that_cannot_be_read_is_said_in_one_line(place: OnPlane, tmp_path: Path, text: str) -> None:
    file = tmp_path / "unreadable"
    file.write_text(text)
    operator = place.start(KUBECONFIG=str(file))
    assert operator.wait(60) == 1
    assert f"cannot read the kubeconfig {file}" in place.log()
    assert "Traceback" not in place.log()


def test_a_kubeconfig_that_is_not_there_is_said_in_one_line(place: OnPlane) -> None:
    operator = place.start(KUBECONFIG="/nowhere/kubeconfig")
    assert operator.wait(60) == 1
    assert "cannot read the kubeconfig /nowhere/kubeconfig" in place.log()
    assert "Traceback" not in place.log()
