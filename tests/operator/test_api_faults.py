"""Between operator and API server things break, lag, repeat and lie; a job's life ends as if nothing had been.

Oracle: see test_crash_points. All through a proxy before the API server.
"""

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from urllib3.exceptions import HTTPError

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import Refused
from tests.operator.support.fault_proxy import FaultProxy, fault_proxy
from tests.operator.support.faults import Answer, Call, Harm, LoseReply
from tests.operator.support.lives import Life
from tests.operator.support.on_plane import OnPlane
from tests.operator.support.planes import Plane, only_on_control_plane
from tests.support.waiting import wait_until

UNAVAILABLE = Answer(503, "ServiceUnavailable")
PATIENT = {"ADAPTER_OPERATOR_LEASE_SECONDS": "6", "ADAPTER_OPERATOR_WATCH_SILENCE_SECONDS": "4"}


@pytest.fixture(scope="module")
def proxy(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    with fault_proxy(plane, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared(plane: Plane, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    variables = {**PATIENT, "KUBECONFIG": str(proxy.kubeconfig("operator"))}
    place = OnPlane(plane, "api-faults", tmp_path_factory.mktemp("api-faults"), variables)
    yield place
    place.close()


@pytest.fixture
def place(shared: OnPlane, proxy: FaultProxy) -> Iterator[OnPlane]:
    """With a new operator that watches, and nothing wrong: an old one's idle watches break, and come back ever later."""
    proxy.reset()
    shared.start()
    shared.wait("two watches", lambda: proxy.watch_count() == 2)
    yield shared
    shared.stop()
    proxy.reset()


def once(stage: str, harm: Callable[[], None]) -> Callable[[Sequence[Life]], None]:
    """Does harm as soon as all lives have reached a stage."""
    is_done = False

    def between(all_lives: Sequence[Life]) -> None:
        nonlocal is_done
        if not is_done and all(stage in life.reached for life in all_lives):
            is_done = True
            harm()

    return between


def test_events_that_come_twice_and_again_cause_no_write(place: OnPlane, proxy: FaultProxy) -> None:
    proxy.cut_watches()
    proxy.faults.repeats = True
    assert lives.lead(place, ["told-again"]) == [lives.UNDISTURBED]
    sent = [(call.method, call.path, json.loads(call.body)) for call in proxy.writes() if call.status != 409]
    created = [(path, body["metadata"]["name"]) for method, path, body in sent if method == "POST"]
    deleted = [path for method, path, _ in sent if method == "DELETE"]
    told = [body["status"] for method, _, body in sent if method == "PATCH"]
    assert len(created) == len(set(created)) == 5, "ConfigMap, NetworkPolicy, Service, and a Job for each attempt"
    assert len(deleted) == len(set(deleted)) == 2, "the first attempt's Job, and its pods"
    assert all(after != before for before, after in itertools.pairwise(told))
    before = writes_about("told-again", proxy)
    proxy.cut_watches()
    place.wait("watches that tell everything again", lambda: proxy.watch_count() == 2)
    place.create("told-last")
    place.wait_state("told-last", "Running")  # whatever was told before it has been acted on
    assert writes_about("told-again", proxy) == before
    lives.clear(place, "told-last")  # the next test counts what the operator deletes


def writes_about(name: str, proxy: FaultProxy) -> int:
    """How often the operator has written to what belongs to a job."""
    return sum(name in call.path or name.encode() in call.body for call in proxy.writes())


@only_on_control_plane
def test_a_watch_that_lags_behind_writes_makes_and_deletes_nothing_twice(place: OnPlane, proxy: FaultProxy) -> None:
    proxy.faults.lag_seconds = 1.5
    assert lives.lead(place, ["lagging"]) == [lives.UNDISTURBED]
    deleted = [call.path for call in proxy.writes() if call.method == "DELETE"]
    assert len(deleted) == len(set(deleted)) == 2, f"the Job and its pods, once: {deleted}"


def test_a_watch_that_says_no_more_is_opened_anew(place: OnPlane, proxy: FaultProxy) -> None:
    assert lives.lead(place, ["hushed"], once("running", proxy.hush_watches)) == [lives.UNDISTURBED]


def test_what_was_deleted_while_no_watch_could_tell_is_found_missing(
    plane: Plane, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    variables = {
        **PATIENT, "ADAPTER_OPERATOR_RESYNC_SECONDS": "3", "KUBECONFIG": str(proxy.kubeconfig("resync")),
    }  # fmt: skip
    place = OnPlane(plane, "api-faults-gap", tmp_path_factory.mktemp("gap"), variables)
    proxy.reset()
    place.start()
    try:
        for name in ("loses-a-pod", "is-deleted"):
            place.create(name)
            place.wait_state(name, "Running")
        proxy.faults.watches = UNAVAILABLE
        proxy.cut_watches()
        pod = place.pods("loses-a-pod", 1)[1]["metadata"]["name"]
        place.delete("pods", pod, gracePeriodSeconds=0)
        uid = place.job("is-deleted")["metadata"]["uid"]
        lives.clear(place, "is-deleted")
        proxy.faults.has_expired = True
        proxy.faults.watches = None
        status = place.wait_state("loses-a-pod", "Running", attempt=2)
        assert status["restarts"] == {"charged": 0, "uncharged": 1, "total": 1}
        place.create("is-deleted")  # nothing of the first one of that name may weigh on it
        assert place.wait_state("is-deleted", "Running")["attempt"] == 1
        assert place.job("is-deleted")["metadata"]["uid"] != uid
        assert not place.history.faults
    finally:
        place.close()


@only_on_control_plane
def test_an_api_server_that_is_away_longer_than_a_lease_is_waited_for(place: OnPlane, proxy: FaultProxy) -> None:
    def away() -> None:
        proxy.faults.watches = UNAVAILABLE
        proxy.faults.on_call = lambda _: UNAVAILABLE
        proxy.cut_watches()
        [first] = place.running
        place.wait("an end: it cannot renew its lease", lambda: first.poll() is not None)
        lives.revive(place)
        [lease] = place.items("leases")
        renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
        longer = timedelta(seconds=lease["spec"]["leaseDurationSeconds"] + 1)
        place.wait("the lease is over", lambda: datetime.now(UTC) > renewed + longer)
        proxy.calls.clear()
        place.wait("the next operator asks, and gets no answer", lambda: len(proxy.calls) > 1)
        proxy.reset()

    assert lives.lead(place, ["away"], once("failed", away)) == [lives.UNDISTURBED]


@only_on_control_plane
def test_etcd_is_killed_and_comes_back(place: OnPlane, control_plane: ControlPlane) -> None:
    def restart() -> None:
        control_plane.kill("etcd")
        wait_until("no API server answers", lambda: not answers(place))
        control_plane.start_again("etcd")

    assert lives.lead(place, ["etcd"], once("failed", restart)) == [lives.UNDISTURBED]


def answers(place: OnPlane) -> bool:
    """Whether a job can be read."""
    try:
        place.items("adaptertrainingjobs")
    except (Refused, HTTPError):
        return False
    return True


@only_on_control_plane
def test_a_server_that_asks_for_time_is_given_it(place: OnPlane, proxy: FaultProxy) -> None:
    refused: set[tuple[str, str]] = set()

    def busy(call: Call) -> Harm:
        asked = (call.method, call.path)
        if not call.is_write or asked in refused:
            return None
        refused.add(asked)
        return Answer(429, "TooManyRequests", retry_after=2)

    proxy.faults.on_call = busy
    assert lives.lead(place, ["busy"]) == [lives.UNDISTURBED]
    assert {method for method, _ in refused} == {"POST", "PATCH", "DELETE"}
    for method, path in refused:
        asked = [call for call in proxy.writes() if (call.method, call.path) == (method, path)]
        assert asked[0].status == 429
        # Three are sent together, and the first refusal is what is counted from.
        assert all(again.at - asked[0].at >= 1.9 for again in asked[1:]), f"{method} {path} came again too soon"


def test_updates_that_are_refused_at_random_are_not_lost(place: OnPlane, proxy: FaultProxy) -> None:
    chance = random.Random(13)
    answers = [Answer(409, "Conflict"), Answer(422, "Invalid")]

    def moody(call: Call) -> Harm:
        return chance.choice(answers) if call.method == "PATCH" and chance.random() < 0.3 else None

    proxy.faults.on_call = moody
    names = [f"moody-{number}" for number in range(4)]
    assert lives.lead(place, names) == [lives.UNDISTURBED] * 4
    assert {call.status for call in proxy.calls if call.method == "PATCH"} == {200, 409, 422}


def test_a_write_whose_reply_is_lost_is_found_done(place: OnPlane, proxy: FaultProxy) -> None:
    lost: set[tuple[str, str]] = set()

    def lossy(call: Call) -> Harm:
        asked = (call.method, call.path)
        if not call.is_write or asked in lost:
            return None
        lost.add(asked)
        return LoseReply()

    proxy.faults.on_call = lossy
    assert lives.lead(place, ["lossy"]) == [lives.UNDISTURBED]
    assert Counter(method for method, _ in lost) == {"POST": 4, "PATCH": 1, "DELETE": 2}
