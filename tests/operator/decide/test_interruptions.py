"""What interruptions cost, and how long a stop may take: said from what nodes have measured."""

import pytest

from adapter_api.progress import CheckpointMark, Ending, Progress
from adapter_api.status import MAX_INTERRUPTIONS, JobStatus
from adapter_operator.decide.decide import decide
from adapter_operator.decide.interruptions import grace_seconds
from adapter_operator.observe.observed import ContainerEnd, Observed
from adapter_operator.tell import job_status
from tests.operator.support.builders import after, failed, job, observed, pod, status


def reported(step: int, resumed: int | None, seconds: float, **changes: object) -> Progress:
    told = {"phase": "training", "step": step, "totalSteps": 200, "resumedStep": resumed, "updatedAt": after(seconds)}
    return Progress.model_validate({**told, **changes})


def shown(given: JobStatus, seen: Observed, seconds: float) -> JobStatus:
    current = job(status=given)
    return job_status.status(current, seen, decide(current, seen, after(seconds)), after(seconds))


def interrupted(given: JobStatus, attempt: int, step: int, seconds: float, resumed: int = 0) -> JobStatus:
    """After an attempt whose node 0 was killed at a step."""
    jobs = tuple(range(1, attempt + 1))
    seen = observed(failed(0, attempt, code=137), pod(1, attempt), attempts=jobs, progress=reported(step, resumed, seconds))  # fmt: skip
    return shown(given, seen, seconds)


def running(given: JobStatus, attempt: int, progress: Progress | None, seconds: float) -> JobStatus:
    return shown(given, observed(pod(0, attempt), pod(1, attempt), attempts=(attempt,), progress=progress), seconds)


def test_lost_steps_are_those_between_the_last_report_and_where_the_next_attempt_went_on() -> None:
    ended = interrupted(status(), 1, 87, 10)
    (record,) = ended.interruptions
    assert (record.attempt, record.reason, record.step, record.lost_steps) == (1, "Killed", 87, None)
    again = running(ended, 2, reported(61, 60, 60), 61)
    (record,) = again.interruptions
    assert (record.step, record.resumed_step, record.lost_steps, again.lost_steps) == (87, 60, 27, 27)
    later = running(again, 2, reported(150, 60, 90), 91)
    assert (later.interruptions, later.lost_steps) == (again.interruptions, 27)


def test_what_pods_commit_while_they_end_is_not_lost() -> None:
    current = job(status=status(), spec={"suspend": True})
    seen = observed(pod(0), pod(1), progress=reported(87, 0, 9))
    suspended = job_status.status(current, seen, decide(current, seen, after(10)), after(10))
    assert suspended.interruptions[0].reason == "Suspending"
    mark = CheckpointMark(step=90, uri="s3://b/checkpoint-90", committed_at=after(20), bytes=1)
    word = Ending(exit_code=75, reason="Stopped", step=90, checkpoint=mark).model_dump_json()
    going = observed(failed(0, code=75, message=word, deleted_at=after(100)))
    saved = shown(suspended, going, 21)
    assert (saved.interruptions[0].step, saved.interruptions[0].message) == (90, "")
    again = running(saved, 2, reported(90, 90, 60), 61)
    assert (again.interruptions[0].lost_steps, again.lost_steps) == (0, 0)


def test_what_did_not_fit_in_a_stop_is_told() -> None:
    ended = interrupted(status(), 1, 87, 10)
    word = Ending(exit_code=75, reason="NotCommitted", message="9 bytes were left", step=88).model_dump_json()
    going = observed(pod(1, trainer=ContainerEnd(75, "Error", word, after(12)), deleted_at=after(100)))
    told = shown(ended, going, 20)
    assert (told.interruptions[0].step, told.interruptions[0].message) == (88, "9 bytes were left")


def test_an_attempt_that_never_trained_lost_nothing_and_hides_nothing() -> None:
    first = interrupted(status(), 1, 87, 10)
    end = ContainerEnd(1, "Error", "cannot fetch", after(40))
    restoring = observed(pod(0, 2, phase="Failed", is_running=False, restore=end), attempts=(2,))
    second = shown(first, restoring, 40)
    assert [record.step for record in second.interruptions] == [87, None]
    third = running(second, 3, reported(60, 60, 90), 91)
    assert [record.lost_steps for record in third.interruptions] == [27, 0]
    assert third.lost_steps == 27


def test_a_pod_that_is_going_does_not_speak_for_the_next_attempt() -> None:
    ended = interrupted(status(), 1, 87, 10)
    assert running(ended, 2, reported(88, 0, 9), 61).interruptions[0].lost_steps is None


def test_the_newest_interruptions_are_kept_and_the_sum_of_all() -> None:
    seen = status()
    for attempt in range(1, MAX_INTERRUPTIONS + 3):
        seen = seen.model_copy(update={"attempt": attempt, "conditions": status().conditions})
        seen = running(seen, attempt, reported(10, 0, 100 * attempt), 100 * attempt)
        seen = interrupted(seen.model_copy(update={"restarts": status().restarts}), attempt, 15, 100 * attempt + 50)
    assert len(seen.interruptions) == MAX_INTERRUPTIONS
    assert seen.interruptions[-1].attempt == MAX_INTERRUPTIONS + 2
    assert seen.lost_steps == 15 * (MAX_INTERRUPTIONS + 1)


@pytest.mark.parametrize(
    ("spec", "save", "commit", "expected"),
    [
        pytest.param({}, None, None, None, id="nothing is measured"),
        pytest.param({}, 1.0, 2.0, 120, id="never below the default"),
        pytest.param({}, 30.0, 200.0, 470, id="twice what a step, a save and a commit took"),
        pytest.param({}, 30.0, 90_000.0, 3600, id="never above an hour"),
        pytest.param({"terminationGracePeriodSeconds": 30}, 30.0, 200.0, None, id="the job says it"),
    ],
)
def test_a_stop_gets_the_time_that_it_was_measured_to_need(
    spec: dict[str, object], save: float | None, commit: float | None, expected: int | None
) -> None:
    seen = reported(100, 0, 0, etaSeconds=200, saveSeconds=save, commitSeconds=commit)
    assert grace_seconds(job(spec), seen) == expected


def test_the_next_attempt_gets_the_time_that_was_measured() -> None:
    measured = reported(100, 0, 5, etaSeconds=200, saveSeconds=30, commitSeconds=200)
    told = running(status(), 1, measured, 6)
    assert told.termination_grace_period_seconds == 470
    assert job(status=interrupted(told, 1, 110, 10)).grace_seconds == 470
    assert job({"terminationGracePeriodSeconds": 30}, told).grace_seconds == 30
