"""What a namespace's jobs come to, for metrics."""

from datetime import UTC, datetime
from typing import Any

import pytest

from adapter_operator.tell.summary import UNKNOWN, summaries

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def running(**status: Any) -> dict[str, Any]:
    return {"state": "Running", "startTime": "2026-01-01T11:00:00Z", **status}


def test_states_are_counted_by_namespace() -> None:
    found = summaries([("a", running()), ("a", {}), ("b", {"state": "Failed"}), ("a", running())], NOW)
    assert {name: dict(each.states) for name, each in found.items()} == {
        "a": {"Running": 2, "Pending": 1},
        "b": {"Failed": 1},
    }


def test_the_job_that_has_gone_longest_without_a_commit_counts() -> None:
    fresh = running(checkpoint={"committedAt": "2026-01-01T11:59:00Z"})
    old = running(checkpoint={"committedAt": "2026-01-01T11:30:00Z"})
    assert summaries([("a", fresh), ("a", old)], NOW)["a"].commit_age == 1800


def test_before_the_first_commit_the_start_counts() -> None:
    assert summaries([("a", running())], NOW)["a"].commit_age == 3600


def test_only_running_jobs_have_an_age_and_a_goodput() -> None:
    done = running(state="Complete", checkpoint={"committedAt": "2026-01-01T11:30:00Z"}, goodputPercent=90)
    found = summaries([("a", done)], NOW)["a"]
    assert (found.commit_age, found.goodput) == (None, None)


def test_goodput_is_the_mean_of_those_that_know_it() -> None:
    jobs = [("a", running(goodputPercent=90)), ("a", running()), ("a", running(goodputPercent=60.0))]
    assert summaries(jobs, NOW)["a"].goodput == pytest.approx(0.75)


@pytest.mark.parametrize(
    "status",
    [{"state": {}}, {"state": "x" * 1000}, running(checkpoint=[]), running(checkpoint={"committedAt": 7}),
     running(startTime="yesterday"), running(startTime="2026-01-01T11:00:00"), running(goodputPercent="many"),
     running(goodputPercent=1e300), running(goodputPercent=True)],
)  # fmt: skip
def test_a_status_that_somebody_has_edited_harms_no_metric(status: dict[str, Any]) -> None:
    found = summaries([("a", status)], NOW)["a"]
    assert set(found.states) <= {"Running", UNKNOWN}
    assert found.goodput is None or 0 <= found.goodput <= 1
