"""What a person looks for in `kubectl events` is told once, whoever tells it and however often."""

from datetime import datetime
from typing import Any

import pytest

from adapter_api.status import CheckpointStatus, JobStatus
from adapter_operator.decide.decide import decide
from adapter_operator.observe.observed import Observed
from adapter_operator.tell import job_status
from adapter_operator.tell.events import MAX_INSTANCE, MAX_MESSAGE, About, events
from tests.operator.support.builders import KEY, NOW, after, failed, job, observed, pod, status

ABOUT = About(KEY, "uid-1", NOW, "operator-1")
Plain = dict[str, Any]


def shown(given: JobStatus, seen: Observed, seconds: float = 0) -> JobStatus:
    current = job(status=given)
    return job_status.status(current, seen, decide(current, seen, after(seconds)), after(seconds))


def told(before: JobStatus, now: JobStatus, seconds: float = 0, about: About = ABOUT) -> list[tuple[str, str, str]]:
    return [(each["type"], each["reason"], each["note"]) for each in events(about, before, now, after(seconds))]


def committed(step: int, at: datetime) -> CheckpointStatus:
    return CheckpointStatus(step=step, uri=f"s3://b/checkpoint-{step}", committed_at=at, bytes=1)


def test_an_event_is_one_of_events_k8s_io() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1)), 12)
    [event] = events(ABOUT, status("Starting"), running, after(12))
    assert event.pop("metadata")["name"].startswith("digits.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "regarding": {
            "apiVersion": "adaptertraining.dev/v1alpha1", "kind": "AdapterTrainingJob", "namespace": "team",
            "name": "digits", "uid": "uid-1",
        },
        "type": "Normal",
        "reason": "Running",
        "action": "Reconcile",
        "note": "attempt 1 runs on 2 nodes after 12 s",
        "reportingController": "adapter-training-operator",
        "reportingInstance": "operator-1",
        "eventTime": "2026-11-24T12:00:12.000000Z",
    }  # fmt: skip


def test_a_start_that_takes_its_time_is_told_and_then_that_it_runs() -> None:
    starting = shown(JobStatus(), observed(pod(0)), 2)
    assert told(JobStatus(), starting, 2) == [("Normal", "Started", "attempt 1 starts")]
    assert told(starting, shown(starting, observed(pod(0)), 4), 4) == []
    running = shown(starting, observed(pod(0), pod(1)), 30)
    assert told(starting, running, 30) == [("Normal", "Running", "attempt 1 runs on 2 nodes after 30 s")]
    assert told(running, shown(running, observed(pod(0), pod(1)), 60), 60) == []


def test_a_restart_is_told_once() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1)))
    restarting = shown(running, observed(failed(0, code=137), pod(1)))
    [(kind, reason, message)] = told(running, restarting)
    assert (kind, reason) == ("Warning", "Killed")
    assert "restart 1 of 2" in message
    assert told(restarting, shown(restarting, Observed(), 5), 5) == []


def test_an_attempt_that_goes_on_says_from_which_step_and_how_long_nothing_ran() -> None:
    restarting = status("Restarting", 2, checkpoint=committed(40, NOW).model_dump(by_alias=True))
    running = shown(restarting, observed(pod(0, 2), pod(1, 2), attempts=(2,)), 25)
    assert told(restarting, running, 25) == [
        ("Normal", "Resumed", "attempt 2 runs on 2 nodes after 25 s, from step 40: s3://b/checkpoint-40")
    ]


def test_an_attempt_that_follows_one_without_a_checkpoint_does_not_claim_to_go_on() -> None:
    restarting = status("Restarting", 2)
    running = shown(restarting, observed(pod(0, 2), pod(1, 2), attempts=(2,)), 5)
    assert [reason for _, reason, _ in told(restarting, running, 5)] == ["Running"]


@pytest.mark.parametrize("every", [1, 7, 59, 60, 90])
def test_commits_are_told_once_a_minute_at_most(every: int) -> None:
    before, reasons, names = status(), [], set[str]()
    for number in range(1, 600 // every):
        now = before.model_copy(update={"checkpoint": committed(number, after(number * every))})
        for event in events(ABOUT, before, now, after(number * every)):
            reasons.append(event["reason"])
            names.add(event["metadata"]["name"])
        before = now
    assert set(reasons) == {"CheckpointCommitted"}
    assert len(reasons) == len(names) <= min(600 // every, 600 // 60)
    assert len(reasons) >= min(600 // every - 1, 9)


def test_what_is_told_twice_has_one_name_whoever_tells_it() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1)))
    names = {
        event["metadata"]["name"]
        for about, seconds in ((ABOUT, 1), (About(KEY, "uid-1", NOW, "operator-2"), 9))
        for event in events(about, status("Starting"), running, after(seconds))
    }
    assert len(names) == 1


def test_a_job_made_anew_under_a_name_is_told_of_anew() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1)))
    [first] = events(ABOUT, status("Starting"), running, NOW)
    [second] = events(About(KEY, "uid-2", NOW, "operator-1"), status("Starting"), running, NOW)
    assert first["metadata"]["name"] != second["metadata"]["name"]


def test_the_api_server_takes_what_is_long() -> None:
    refused = job_status.invalid(JobStatus(), 1, "x" * 5000, NOW)
    [event] = events(About(KEY, "uid-1", NOW, "o" * 253), JobStatus(), refused, NOW)
    assert (len(event["note"]), len(event["reportingInstance"])) == (MAX_MESSAGE, MAX_INSTANCE)
