"""The status that is shown: complete, stable, and only as often as it tells something."""

from adapter_api.progress import CheckpointMark, Ending, Progress
from adapter_api.status import CheckpointStatus, JobStatus, Restarts
from adapter_operator.decide.decide import decide
from adapter_operator.observe.observed import Cause, ContainerEnd, Observed
from adapter_operator.tell import job_status
from adapter_operator.tell.events import About, events
from tests.operator.support.builders import KEY, NOW, after, failed, job, observed, pod, status

MARK = CheckpointMark(step=40, uri="s3://b/checkpoint-40", committed_at=NOW, bytes=7)
PROGRESS = Progress(phase="training", step=50, total_steps=200, loss=0.123456789, eta_seconds=3725, updated_at=NOW, checkpoint=MARK)  # fmt: skip

ABOUT = About(KEY, "uid", NOW, "operator-1")


def shown(given: JobStatus, seen: Observed, seconds: float = 0) -> JobStatus:
    current = job(status=given)
    return job_status.status(current, seen, decide(current, seen, after(seconds)), after(seconds))


def test_the_same_view_gives_the_same_status_later() -> None:
    seen = observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW)
    first = shown(status("Starting"), seen)
    again = shown(first, seen, 60)
    assert again.model_copy(update={"goodput_percent": None}) == first.model_copy(update={"goodput_percent": None})


def test_progress_is_shown_in_figures_and_words() -> None:
    progress = shown(status(), observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW)).progress
    assert progress is not None
    assert (progress.step, progress.percent, progress.loss, progress.eta) == (50, 25.0, 0.12346, "1h2m")


def test_what_is_not_as_the_checkpoint_had_it_is_shown() -> None:
    noticed = PROGRESS.model_copy(update={"notice": "begins from a checkpoint of other data: other pictures"})
    progress = shown(status(), observed(pod(0), pod(1), progress=noticed, advanced_at=NOW)).progress
    assert progress is not None
    assert progress.notice == "begins from a checkpoint of other data: other pictures"


def test_a_new_attempt_does_not_set_progress_back_before_it_has_restored() -> None:
    before = shown(status(), observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW))
    fresh = Progress(step=0, updated_at=NOW)
    assert shown(before, observed(pod(0), pod(1), progress=fresh)).progress == before.progress


def test_the_newest_checkpoint_is_never_replaced_by_an_older_one() -> None:
    stands = CheckpointStatus(step=60, uri="s3://b/checkpoint-60", committed_at=NOW, bytes=1)
    kept = shown(status(checkpoint=stands), observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW))
    assert kept.checkpoint == stands


def test_the_last_word_of_a_pod_tells_the_final_checkpoint() -> None:
    final = MARK.model_copy(update={"step": 200, "uri": "s3://b/checkpoint-200"})
    word = Ending(exit_code=0, reason="Complete", step=200, checkpoint=final).model_dump_json()
    done = [
        pod(index, phase="Succeeded", is_running=False, trainer=ContainerEnd(0, "Completed", word, NOW))
        for index in (0, 1)
    ]
    ended = shown(status(), observed(*done, progress=PROGRESS, advanced_at=NOW))
    assert ended.state == "Complete"
    assert ended.checkpoint is not None
    assert ended.progress is not None
    assert (ended.checkpoint.step, ended.progress.step, ended.progress.percent) == (200, 200, 100.0)
    assert ended.completion_time == NOW


def test_that_an_attempt_starts_may_pass_unsaid_but_not_that_it_was_claimed_or_cannot_start() -> None:
    new, restarting = JobStatus(), status("Restarting", 2)
    assert job_status.is_passing(new, shown(new, Observed()))
    assert job_status.is_passing(new, shown(new, observed(pod(0))))
    assert job_status.is_passing(restarting, shown(restarting, observed(pod(0, 2), attempts=(2,))))
    assert not job_status.is_passing(new, shown(new, observed(pod(0), pod(1))))
    assert not job_status.is_passing(new, shown(new, observed(failed(0), pod(1))))
    stuck = pod(0, phase="Pending", is_running=False, waiting=Cause("ErrImagePull", "no such image"))
    assert not job_status.is_passing(new, shown(new, observed(stuck)))
    assert not job_status.is_passing(status(), shown(status(), observed(failed(0), pod(1))))
    refused = job_status.invalid(new, 1, "spec.nodes: too few", NOW)
    assert not job_status.is_passing(refused, shown(refused, Observed())), (
        "its specification may change until it is told"
    )


def test_figures_alone_are_not_urgent_but_a_change_of_state_is() -> None:
    seen = observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW)
    first = shown(status("Starting"), seen)
    later = observed(pod(0), pod(1), progress=PROGRESS.model_copy(update={"step": 60}), advanced_at=NOW)
    assert job_status.is_urgent(status("Starting"), first)
    assert not job_status.is_urgent(first, shown(first, later, 5))
    assert job_status.is_urgent(first, shown(first, observed(failed(0, code=137), pod(1)), 5))


def test_restarts_are_summed_for_the_column() -> None:
    ended = shown(status(restarts=Restarts(charged=1, uncharged=2)), observed(failed(0, code=137), pod(1)))
    assert ended.restarts == Restarts(charged=2, uncharged=2, total=4)


def test_an_invalid_change_does_not_hide_what_runs() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1)))
    told = job_status.invalid(running, 2, "spec.nodes: give at most 4096", NOW)
    assert told.state == "Running"
    accepted = told.conditions[0]
    assert (accepted.type, accepted.status, accepted.message) == ("Accepted", "False", "spec.nodes: give at most 4096")


def test_trouble_with_storage_is_a_condition_and_an_event_while_training_goes_on_and_its_end_is_shown() -> None:
    running = shown(status("Starting"), observed(pod(0), pod(1), progress=PROGRESS, advanced_at=NOW))
    assert "StorageHealthy" not in {condition.type for condition in running.conditions}

    def with_trouble(before: JobStatus, **trouble: str) -> tuple[JobStatus, tuple[str, str, str]]:
        progress = PROGRESS.model_copy(update=trouble)
        after_it = shown(before, observed(pod(0), pod(1), progress=progress, advanced_at=NOW), 5)
        condition = next(each for each in after_it.conditions if each.type == "StorageHealthy")
        return after_it, (condition.status, condition.reason, condition.message)

    expired, storage = with_trouble(running, upload_error="the credentials have expired; renew them")
    assert storage == ("False", "UploadFailed", "the credentials have expired; renew them")
    assert (expired.state, job_status.is_urgent(running, expired)) == ("Running", True)
    [told] = events(ABOUT, running, expired, NOW)
    assert (told["type"], told["reason"], told["note"]) == ("Warning", "UploadFailed", storage[2])
    assert not events(ABOUT, expired, expired, NOW)
    mended, storage = with_trouble(expired)
    assert storage == ("True", "Recovered", "")
    assert not events(ABOUT, expired, mended, NOW)
    _, storage = with_trouble(mended, restore_warning="started from checkpoint 10 instead")
    assert storage == ("False", "CheckpointDamaged", "started from checkpoint 10 instead")
