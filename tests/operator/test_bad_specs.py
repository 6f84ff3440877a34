"""Specifications that make no sense, generated: refused by the API server, or by the operator when nobody else did.

BAD_SPECS says how many are tried: 150 by default.
"""

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.cluster.control_plane import ControlPlane
from tests.operator.support.api_server import Refused, path_of
from tests.operator.support.on_plane import OnPlane, Plain, quick_job, serving
from tests.operator.support.specifications import FORBIDDEN, WHOLE, is_valid, jobs

pytestmark = pytest.mark.cluster

COUNT = int(os.environ.get("BAD_SPECS", "150"))


def test_what_is_broken_in_all_these_ways_was_whole() -> None:
    assert is_valid({**quick_job("whole"), "spec": WHOLE})


@pytest.fixture(scope="module")
def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPlane]:
    with serving(control_plane, "bad-specs", tmp_path_factory.mktemp("bad-specs")) as place:
        yield place


@pytest.fixture(scope="module")
def invalid(place: OnPlane) -> list[Plain]:
    """Generated specifications that no model accepts, each of which the API server has refused or let pass by design."""
    found: list[Plain] = []
    passed: list[Plain] = []

    @settings(max_examples=COUNT, suppress_health_check=list(HealthCheck))
    @given(job=jobs())
    def offer(job: Plain) -> None:
        code = answer(place, job)
        assert code == 201 or 400 <= code < 500, f"{code} for {json.dumps(job)[:2000]}"
        if not is_valid(job):
            found.append(job)
            if code == 201:
                passed.append(job)

    offer()
    assert len(found) > COUNT / 2
    # What the schema cannot tell comes first: the operator will meet it in real clusters without a webhook.
    return passed + [job for job in found if job not in passed]


def answer(place: OnPlane, job: Plain) -> int:
    try:
        place.api.call("POST", path_of("adaptertrainingjobs", place.namespace), job, query={"dryRun": "All"})
    except Refused as refused:
        return refused.code
    return 201


@pytest.mark.parametrize("spec", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_a_job_must_not_ask_for_is_refused(place: OnPlane, spec: Plain) -> None:
    job = quick_job("asks")
    job["spec"] |= spec
    # Unknown fields are dropped by the API server unless it is asked to be strict; the webhook never sees those.
    try:
        place.api.call(
            "POST", path_of("adaptertrainingjobs", place.namespace), job,
            query={"dryRun": "All", "fieldValidation": "Strict"},
        )  # fmt: skip
    except Refused as refused:
        assert 400 <= refused.code < 500  # noqa: PT017 - the code is the matter
    else:
        assert not is_valid(job), "what the schema lets pass is the webhook's and the operator's to refuse"
    assert not is_valid(job)


def test_no_generated_specification_is_more_than_refused(invalid: list[Plain], place: OnPlane) -> None:
    assert len(invalid) > COUNT / 2
    assert place.running[0].poll() is None
