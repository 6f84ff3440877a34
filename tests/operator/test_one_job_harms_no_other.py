"""Whatever one job is, and wherever the operator fails at it: the others run, and it says what is wrong with it."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.operator.support import lives
from tests.operator.support.api_server import MERGE, Refused, path_of
from tests.operator.support.on_plane import OnPlane, Plain, condition, quick_job, without_schema
from tests.operator.support.planes import Plane
from tests.operator.support.stumbling_operator import STEPS, UNTOLD

RESYNC = {"ADAPTER_OPERATOR_RESYNC_SECONDS": "2"}


@pytest.fixture(scope="module")
def deep_json() -> Iterator[None]:
    """The stand-in lives in this process, and copies what is deep call by call."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@pytest.fixture(scope="module")
def place(plane: Plane, deep_json: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    place = OnPlane(plane, "harmless", tmp_path_factory.mktemp("harmless"), RESYNC)
    yield place
    place.close()


def test_a_step_that_raises_is_told_on_its_job_and_the_others_run(place: OnPlane) -> None:
    operator = place.start("tests.operator.support.stumbling_operator")
    for step in STEPS:
        place.create(f"stumbles-{step}", nodes=1)
    place.create("good")
    place.wait_state("good", "Running")
    for step in STEPS:
        if step in UNTOLD or step in {"pod", "put-pod", "events"}:
            continue
        name = f"stumbles-{step}"
        place.wait(
            f"{name} tells", lambda name=name: condition(place.status(name), "Stalled").get("reason") == "InternalError"  # type: ignore[misc]
        )  # fmt: skip
        told = condition(place.status(name), "Ready")
        assert told["status"] == "False"
        assert f"Stumbled: at {step}\\x1b[2J" in told["message"]
    assert operator.poll() is None
    place.stop()
    place.start()
    for step in STEPS:
        status = place.wait_state(f"stumbles-{step}", "Running")
        assert not condition(status, "Stalled"), "what is mended says so no more"
        lives.clear(place, f"stumbles-{step}")
    lives.clear(place, "good")
    place.stop()


def nested(levels: int, *, of_lists: bool = False) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value] if of_lists else {"a": value}
    return value


def odd(name: str, **spec: Any) -> Plain:
    job = quick_job(name)
    job["spec"] |= spec
    return job


def sampled(name: str, value: Any) -> Plain:
    """With a value where the schema takes any: the models alone know what it may be."""
    job = quick_job(name)
    job["spec"]["training"].setdefault("sampling", {})["rows"] = [{"caption": value}]
    return job


ODD: list[Plain] = [
    *(sampled(f"deep-{levels}", nested(levels)) for levels in (40, 240, 400, 900, 3000)),
    sampled("deep-lists", nested(700, of_lists=True)),
    odd("deep-affinity", scheduling={"affinity": nested(500)}),
    odd("deep-status"),
    odd("large-text", image="x" * 400_000),
    odd("very-many", scheduling={"nodeSelector": {f"k{n}": "v" for n in range(30_000)}}),
    odd("very-many-rows", pod={"env": [{"name": f"N{n}", "value": ""} for n in range(15_000)]}),
    odd("unknown-fields", **{f"f{n}": n for n in range(15_000)}),
    odd("numbers", nodes=2**63 - 1, activeDeadlineSeconds=2**63 - 1, ttlSecondsAfterFinished=2**63 - 1),
    odd("negative", nodes=-(2**63), activeDeadlineSeconds=-1, ttlSecondsAfterFinished=-(2**63)),
    odd("fractions", nodes=1e308, activeDeadlineSeconds=1e-308),
    odd("wrong-types", nodes=[], resources="all", pod=7, scheduling=None, output=[[]], restart={"maxRestarts": {}}),
    odd("texts", image="\u202e", pod={"labels": {"\u200b": "\x00"}, "annotations": {"": ""}}),
]
"""What no model accepts, and an API server without our schema stores."""


def test_no_object_is_more_than_told_of_whatever_an_api_server_stores(place: OnPlane, plane: Plane) -> None:
    with without_schema(plane):
        operator = place.start()
        for job in ODD:
            name = job["metadata"]["name"]
            try:
                place.api.call("POST", path_of("adaptertrainingjobs", place.namespace), job)
            except Refused as refused:
                assert 400 <= refused.code < 500  # noqa: PT017 - then it is no matter of ours
                continue
            if name == "deep-status":
                place.patch_job(name, {"status": {"state": nested(300), "conditions": nested(300), "attempt": nested(300)}}, "/status")  # fmt: skip
                continue
            place.wait(
                f"{name} told", lambda name=name: condition(place.status(name), "Accepted").get("status") == "False"  # type: ignore[misc]
            )  # fmt: skip
            told = condition(place.status(name), "Accepted")["message"]
            assert told.startswith(f"{place.namespace}/{name}: "), told
            assert len(told) < 32_769
        place.create("good")
        place.wait_state("good", "Running")
        assert operator.poll() is None
        place.stop()
        again = place.start()  # lists them all at once
        place.create("better")
        place.wait_state("better", "Running")
        assert again.poll() is None
        for job in ODD:
            place.delete("adaptertrainingjobs", job["metadata"]["name"])
        for name in ("good", "better"):
            lives.clear(place, name)
        place.stop()


STATUSES: dict[str, Plain] = {
    "last-attempt": {"attempt": 2**53 - 1},
    "attempt-almost-last": {"attempt": 1_000_000},
    "counts": {"restarts": {"charged": 2**53 - 1, "uncharged": 2**53 - 1, "total": 2**53 - 1}, "lostSteps": 2**53 - 1},
    "times": {"startTime": "0001-01-01T00:00:00Z", "lastFailure": {"reason": "a", "at": "9999-12-31T23:59:59Z", "charged": False}},
    "grace": {"terminationGracePeriodSeconds": 2**53 - 1},
    "progress": {"progress": {"step": 2**53 - 1, "totalSteps": 1, "updatedAt": "9999-12-31T23:59:59-12:00"}},
}  # fmt: skip


def test_a_status_that_its_user_has_edited_ends_no_supervision(place: OnPlane) -> None:
    operator = place.start()
    for name in STATUSES:
        place.create(name, nodes=1)
    for name, edited in STATUSES.items():
        place.wait_state(name, "Running")
        try:
            place.patch_job(name, {"status": edited}, "/status")
        except Refused as refused:
            assert refused.code == 422  # noqa: PT017 - the schema's bounds
    for name in STATUSES:
        # Supervised as before: it is stopped when its user says so, whatever attempt that ends.
        place.patch(name, {"suspend": True})
        place.wait(f"{name} has no pods", lambda name=name: not place.items_of(name, "pods"))  # type: ignore[misc]
        assert place.status(name)["state"] in {"Suspended", "Failed"}
        lives.clear(place, name)
    assert operator.poll() is None
    place.stop()


def test_a_pod_without_its_labels_completes_nothing(place: OnPlane) -> None:
    place.start()
    place.create("unlabelled", nodes=2)
    place.wait_state("unlabelled", "Running")
    first = place.pods("unlabelled", 1)[0]["metadata"]["name"]
    labels = {"adaptertraining.dev/nodes": None}
    path = path_of("pods", place.namespace, first)
    place.api.call("PATCH", path, {"metadata": {"labels": labels}}, content_type=MERGE)
    place.set_pod(first, {"phase": "Succeeded"})
    place.wait("seen", lambda: place.status("unlabelled").get("nodes", {}).get("ready") == 1)
    status = place.status("unlabelled")
    assert (status["state"], status["attempt"], status["restarts"]["total"]) == ("Running", 1, 0)
    lives.clear(place, "unlabelled")
    place.stop()
