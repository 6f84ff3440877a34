"""Specifications that lie in the cluster already and that this version accepts no more: told, left alone, and run once mended.

They were stored past this version's schema, as a webhook that is absent or another version's CRD would let them.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.cluster.control_plane import ControlPlane
from tests.operator.support import lives
from tests.operator.support.api_server import Refused, path_of
from tests.operator.support.on_plane import SUCCEEDED, OnPlane, Plain, condition, quick_job, serving, without_schema
from tests.operator.support.specifications import FORBIDDEN, is_valid, jobs

pytestmark = pytest.mark.cluster

GENERATED = 40

SHAPELESS: dict[str, Plain] = {
    "no-spec": {},
    "spec-is-null": {"spec": None},
    "spec-is-text": {"spec": "nodes: 2"},
    "spec-is-a-list": {"spec": [1]},
    "status-is-text": {"spec": {}, "status": "Running"},
    "status-is-a-list": {"spec": {}, "status": ["Running"]},
    "status-holds-nonsense": {"spec": {}, "status": {"state": [7], "conditions": "none", "attempt": {}}},
}
"""Not even the outline is right."""

FAULTS: dict[str, Plain] = {
    "nodes-too-few": {"nodes": 0},
    "nodes-is-text": {"nodes": "two"},
    "variable-of-the-launch": {"pod": {"env": [{"name": "RANK", "value": "1"}]}},
    "target-that-is-none": {"training": {"model": {"target": "os.system"}}},
    "training-is-text": {"training": "fast"},
    "bucket-that-is-none": {"output": {"s3": {"uri": "file:///etc"}}},
    "resumes-nowhere": {"resumeFrom": {"uri": "nowhere"}},
    "data-on-the-users-machine": {"data": {"folder": "data/digits"}},
}
"""What is wrong with a quickstart."""


def stored(name: str, **parts: object) -> Plain:
    """A job that says just this."""
    whole = quick_job(name)
    return {"apiVersion": whole["apiVersion"], "kind": whole["kind"], "metadata": {"name": name}, **parts}


def generated() -> list[Plain]:
    found: list[Plain] = []

    @settings(max_examples=GENERATED, suppress_health_check=list(HealthCheck))
    @given(job=jobs())
    def collect(job: Plain) -> None:
        if not is_valid(job):
            found.append({**job, "metadata": {"name": f"generated-{len(found)}"}})

    collect()
    return found


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(
        control_plane, "stored-specs", tmp_path_factory.mktemp("stored-specs"), {"ADAPTER_OPERATOR_RESYNC_SECONDS": "2"}
    ) as place:
        yield place


def store(place: OnPlane, job: Plain) -> None:
    place.api.call("POST", path_of("adaptertrainingjobs", place.namespace), job)
    if "status" in job:  # which is not stored with the rest
        place.patch_job(job["metadata"]["name"], {"status": job["status"]}, "/status")


def is_told(place: OnPlane, name: str) -> bool:
    status: object = place.job(name).get("status")
    if not isinstance(status, dict):
        return False
    accepted = condition(status, "Accepted")
    return (status.get("state"), accepted.get("status"), accepted.get("reason")) == ("Invalid", "False", "Invalid")


def test_what_no_model_accepts_is_told_and_nothing_is_made_from_it(place: OnPlane, control_plane: ControlPlane) -> None:
    bad = [stored(name, **parts) for name, parts in SHAPELESS.items()]
    bad += [stored(name, spec={**quick_job(name)["spec"], **spec}) for name, spec in FORBIDDEN.items()]
    bad += generated()
    assert len(bad) > GENERATED
    place.stop()
    with without_schema(control_plane):
        operator = place.start()  # now, so that what the schema does not know is not dropped before it sees it
        for job in bad:
            job["metadata"]["name"] = job["metadata"]["name"].lower()
            store(place, job)
        for job in bad:
            name = job["metadata"]["name"]
            place.wait(f"{name} told", lambda name=name: is_told(place, name))  # type: ignore[misc]
            told = condition(place.status(name), "Accepted")["message"]
            assert told.startswith(f"{place.namespace}/{name}: spec"), told
            place.wait("an Event", lambda name=name: ("Warning", "Invalid") in place.events(name))  # type: ignore[misc]
        place.create("good")
        place.wait_state("good", "Running")
        assert operator.poll() is None
        assert {each["metadata"]["labels"]["adaptertraining.dev/job"] for each in place.items("jobs,pods,services,networkpolicies")} == {"good"}  # fmt: skip
        lives.clear(place, "good")
        for job in bad:
            place.delete("adaptertrainingjobs", job["metadata"]["name"])
    assert not place.history.faults


@pytest.fixture(scope="module")
def faulty(place: OnPlane, control_plane: ControlPlane) -> OnPlane:
    """With a quickstart for each of FAULTS, stored and told."""
    with without_schema(control_plane):
        for name, fault in FAULTS.items():
            job = stored(name, spec={**quick_job(name)["spec"], **fault})
            store(place, job)
    return place


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_mended_where_it_stands_runs(faulty: OnPlane, name: str) -> None:
    faulty.wait("told", lambda: is_told(faulty, name))
    job = faulty.job(name)
    job["spec"] = quick_job(name)["spec"]
    faulty.api.call("PUT", path_of("adaptertrainingjobs", faulty.namespace, name), job)
    status = faulty.wait_state(name, "Running")
    assert condition(status, "Accepted")["status"] == "True"
    assert (status["attempt"], status["restarts"]["total"]) == (1, 0)
    with pytest.raises(Refused, match=r"spec\.training cannot be changed"):
        faulty.patch(name, {"training": {"seed": 8}})
    for pod in faulty.pods(name, 1):
        faulty.set_pod(pod["metadata"]["name"], SUCCEEDED)
    faulty.wait_state(name, "Complete")
    lives.clear(faulty, name)
