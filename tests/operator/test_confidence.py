"""What is told never holds what was confided, and what was not asked to be watched is left alone."""

import json
from collections.abc import Iterator

import pytest

from tests.operator.support.api_server import path_of
from tests.operator.support.on_plane import OnPlane, condition, ended, quick_job, serving
from tests.operator.support.planes import Plane

CANARY = "c4n4ry-0f-the-env1ronment"


@pytest.fixture(scope="module")
def place(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(
        plane, "confidence", tmp_path_factory.mktemp("confidence"), {"ADAPTER_OPERATOR_LOG_LEVEL": "DEBUG"}
    ) as place:
        yield place


def test_values_of_the_environment_are_in_no_status_event_or_log(place: OnPlane) -> None:
    once = {"name": "TOKEN", "value": CANARY}
    place.create("confides", pod={"env": [once]}, restart={"maxRestarts": 0, "backoffSeconds": 0})
    place.create("twice", pod={"env": [once, once]})
    place.create("reserved", pod={"env": [{"name": "MASTER_ADDR", "value": CANARY}]})
    place.wait_state("confides", "Running")
    place.set_pod(place.pods("confides", 1)[0]["metadata"]["name"], ended(1, message="adapter_agent: error: it broke"))
    place.wait_state("confides", "Failed")
    for name in ("twice", "reserved"):
        assert condition(place.wait_state(name, "Invalid", attempt=0), "Accepted")["status"] == "False"
    told = [json.dumps(place.status(name)) for name in ("confides", "twice", "reserved")]
    told += [json.dumps(place.items("events")), (place.folder / "operator.log").read_text()]
    assert "confides" in told[-1]
    assert not [text for text in told if CANARY in text]


def test_a_job_outside_of_the_watched_namespace_is_left_alone(place: OnPlane) -> None:
    there = path_of("adaptertrainingjobs", "default")
    place.api.call("POST", there, quick_job("elsewhere"))
    try:
        place.create("here")
        place.wait_state("here", "Running")
        assert "status" not in place.api.call("GET", f"{there}/elsewhere")
        owners = [each["metadata"].get("labels") or {} for each in place.api.objects("jobs", "default")]
        assert not [labels for labels in owners if labels.get("adaptertraining.dev/job") == "elsewhere"]
    finally:
        place.api.call("DELETE", f"{there}/elsewhere")
