"""A status that another version wrote, or somebody edited, is understood as far as it can be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.status import JobStatus
from adapter_api.stored_status import status_of
from tests.operator.support.builders import status

GOOD: dict[str, Any] = status(
    attempt=2, restarts={"charged": 1, "total": 1}, nodes={"ready": 2}, progress={"step": 7}
).model_dump(mode="json", by_alias=True, exclude_none=True)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_a_status_that_is_right_is_what_it_says() -> None:
    assert status_of(GOOD) == JobStatus.model_validate(GOOD)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"state": "Paused"}, {"attempt": 2}),
        ({"restarts": {"charged": 1, "total": "many"}}, {"attempt": 2}),
        ({"checkpoint": {"step": 3}}, {"attempt": 2, "checkpoint": None}),
        ({"attempt": -1}, {"attempt": 0}),
    ],
    ids=["state", "count", "missing-field", "attempt"],
)
def test_what_means_nothing_is_left_out_and_the_rest_kept(changes: dict[str, Any], kept: dict[str, Any]) -> None:
    understood = status_of({**GOOD, **changes})
    assert {name: getattr(understood, name) for name in kept} == kept
    assert understood.restarts.charged == 1
    assert understood.conditions == JobStatus.model_validate(GOOD).conditions


def test_one_condition_of_another_version_does_not_cost_the_others() -> None:
    later = {**GOOD["conditions"][0], "type": "Healthy"}
    unfinished = {"type": "Running", "status": "True"}
    understood = status_of({**GOOD, "conditions": [later, unfinished, *GOOD["conditions"]]})
    assert [condition.type for condition in understood.conditions] == ["Running"]


@given(field=st.sampled_from([*GOOD, "checkpoint", "lastFailure", "other"]), junk=JUNK)
def test_whatever_stands_in_a_status_its_job_is_read(field: str, junk: Any) -> None:
    stored = {**GOOD, field: junk}
    before = json.dumps(stored)
    understood = status_of(stored)
    assert json.dumps(stored) == before, "what is the caller's was changed"
    if field != "attempt":
        assert understood.attempt == 2
