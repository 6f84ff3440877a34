"""Every situation of a job -> the one next step; and no sequence of steps loses count or leaves something behind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.base import MAX_INT
from adapter_api.progress import Progress
from adapter_api.status import MAX_ATTEMPT, JobStatus, LastFailure, Restarts
from adapter_operator.decide.decide import decide
from adapter_operator.decide.decision import Announce, Launch, Remove, RemoveJob, State
from adapter_operator.observe.observed import BatchJob, Cause, ContainerEnd, Observed, ObservedPod, Unreachable
from adapter_operator.specification import specification
from adapter_operator.tell import job_status
from tests.operator.support.builders import NOW, after, failed, job, observed, pod, said, status


def test_a_new_job_is_launched_as_attempt_1_at_once() -> None:
    decision = decide(job(), Observed(), NOW)
    assert (decision.state, decision.attempt, decision.actions) == (State.STARTING, 1, (Launch(1),))
    assert decision.start_time == NOW


def test_nothing_is_launched_in_the_second_of_a_jobs_creation_so_that_its_epochs_are_its_own() -> None:
    new = Observed(created=NOW)
    waiting = decide(job(), new, NOW)
    assert (waiting.actions, waiting.look_at) == ((), after(1))
    launching = decide(job(), new, after(1))
    assert launching.actions == (Launch(1),)
    assert (waiting.state, waiting.reason, waiting.message) == (launching.state, launching.reason, launching.message)


def test_a_job_that_is_created_suspended_launches_nothing_and_has_not_started() -> None:
    decision = decide(job({"suspend": True}), Observed(), NOW)
    assert (decision.state, decision.reason, decision.actions) == (State.SUSPENDED, "Suspended", ())
    assert decision.start_time is None


def test_an_attempt_whose_pods_all_train_is_running() -> None:
    decision = decide(job(status=status("Starting")), observed(pod(0), pod(1)), NOW)
    assert (decision.state, decision.actions) == (State.RUNNING, (Announce(1),))


def test_node_0_gets_its_name_once_in_an_attempt_and_not_before_it_has_an_address() -> None:
    starting = job(status=status("Starting", 2))
    assert decide(starting, observed(pod(0, 2, ip=None), attempts=(2,)), NOW).actions == ()
    assert decide(starting, observed(pod(1, 2), attempts=(2,)), NOW).actions == ()
    assert decide(starting, observed(pod(0, 2), attempts=(2,), announced=1), NOW).actions == (Announce(2),)
    assert decide(starting, observed(pod(0, 2), attempts=(2,), announced=2), NOW).actions == ()
    # By then it has been done, perhaps by another process.
    running = job(status=status("Running", 2))
    assert decide(running, observed(pod(0, 2), pod(1, 2), attempts=(2,)), NOW).actions == ()


def test_an_attempt_is_not_running_while_a_pod_is_missing() -> None:
    decision = decide(job(status=status("Starting")), observed(pod(0)), NOW)
    assert (decision.state, decision.actions) == (State.STARTING, (Announce(1),))


def test_complete_means_that_every_node_has_succeeded() -> None:
    done: dict[str, Any] = {"phase": "Succeeded", "is_running": False}
    assert decide(job(status=status()), observed(pod(0, **done), pod(1)), NOW).state is State.RUNNING
    assert decide(job(status=status()), observed(pod(0, **done), pod(1, **done)), NOW).state is State.COMPLETE


def test_a_charged_failure_is_counted_and_the_next_number_written_before_anything_is_deleted() -> None:
    decision = decide(job(status=status()), observed(failed(0, code=137), pod(1)), NOW)
    assert (decision.state, decision.attempt, decision.restarts) == (State.RESTARTING, 2, Restarts(charged=1))
    assert decision.actions == (Remove(1),)
    assert decision.last_failure is not None
    assert (decision.last_failure.reason, decision.last_failure.attempt) == ("Killed", 1)


def test_preemption_is_not_charged() -> None:
    gone = failed(0, code=137, disruption="PreemptionByScheduler")
    decision = decide(job(status=status(restarts={"charged": 2})), observed(gone, pod(1)), NOW)
    assert (decision.state, decision.restarts) == (State.RESTARTING, Restarts(charged=2, uncharged=1))


def test_what_storage_refuses_a_run_that_has_committed_is_tried_for_as_long_as_it_takes() -> None:
    end = ContainerEnd(77, "Error", "adapter_agent: error: s3://b: access denied", NOW)
    refused = observed(pod(0, phase="Failed", is_running=False, restore=end), pod(1))
    committed = {"step": 90, "uri": "s3://b/checkpoint-90", "committedAt": NOW, "bytes": 1}
    trained = status(restarts={"charged": 2}, checkpoint=committed)
    decision = decide(job(status=trained), refused, NOW)
    assert (decision.state, decision.restarts) == (State.RESTARTING, Restarts(charged=2, uncharged=1))
    assert "access denied" in decision.message
    last = LastFailure(reason="StorageRefused", at=NOW, charged=False)
    waiting = status("Restarting", attempt=2, restarts={"uncharged": 1}).model_copy(update={"last_failure": last})
    assert [decide(job(status=waiting), Observed(), after(seconds)).actions != () for seconds in (59, 60)] == [
        False,
        True,
    ]


def test_a_run_that_has_committed_nothing_may_never_have_been_allowed() -> None:
    end = ContainerEnd(77, "Error", "adapter_agent: error: s3://b: access denied", NOW)
    refused = observed(pod(0, phase="Failed", is_running=False, restore=end), pod(1))
    decision = decide(job(status=status(restarts={"charged": 2})), refused, NOW)
    assert (decision.state, decision.reason) == (State.FAILED, "StorageRefused")


def test_a_job_is_given_up_when_its_restarts_are_used_up() -> None:
    decision = decide(job(status=status(restarts={"charged": 2})), observed(failed(0, code=137), pod(1)), NOW)
    assert (decision.state, decision.reason, decision.attempt) == (State.FAILED, "Killed", 1)
    assert "given up after 2 restarts (restart.maxRestarts)" in decision.message


def test_what_the_user_got_wrong_is_not_tried_again() -> None:
    wrong = failed(0, code=2, message=said("InvalidData", 2, "train.txt:3: no such image"))
    decision = decide(job(status=status("Starting")), observed(wrong, pod(1)), NOW)
    assert (decision.state, decision.reason) == (State.FAILED, "InvalidData")
    assert "node 0: train.txt:3: no such image" in decision.message


def test_a_restart_waits_until_the_old_pods_are_gone() -> None:
    again = job(status=status("Restarting", attempt=2))
    leaving = pod(0, attempt=1, deleted_at=after(-1))
    decision = decide(again, observed(leaving, attempts=()), NOW)
    assert (decision.state, decision.actions) == (State.RESTARTING, ())
    assert decide(again, Observed(), NOW).actions == (Launch(2),)


def test_a_pod_on_a_dead_node_holds_a_restart_up_for_its_grace_period_only() -> None:
    again = job(status=status("Restarting", attempt=2))
    stuck = pod(0, attempt=1, deleted_at=after(-31))
    assert decide(again, observed(stuck, attempts=()), NOW).actions == (Launch(2),)


def test_charged_restarts_back_off_exponentially() -> None:
    def launched(seconds: float, charged: int) -> bool:
        last = LastFailure(reason="Killed", at=NOW, charged=True)
        waiting = status("Restarting", attempt=charged + 1, restarts={"charged": charged}).model_copy(
            update={"last_failure": last}
        )
        decision = decide(
            job({"restart": {"maxRestarts": 9, "backoffSeconds": 10}}, waiting), Observed(), after(seconds)
        )
        return decision.actions != ()

    assert [launched(9, 1), launched(10, 1), launched(19, 2), launched(20, 2), launched(39, 3), launched(40, 3)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip


def test_a_lost_pod_restarts_the_gang_without_charge_and_only_on_a_fresh_view() -> None:
    decision = decide(job(status=status()), observed(pod(0)), NOW)
    assert (decision.state, decision.reason, decision.attempt) == (State.RESTARTING, "PodDeleted", 2)
    assert decision.restarts == Restarts(uncharged=1)
    assert decision.needs_fresh_view


def test_a_pod_that_somebody_deletes_restarts_the_gang() -> None:
    decision = decide(job(status=status()), observed(pod(0, deleted_at=after(30)), pod(1)), NOW)
    assert (decision.state, decision.reason) == (State.RESTARTING, "PodDeleted")


def test_a_deleted_job_of_an_attempt_restarts_it() -> None:
    assert decide(job(status=status()), Observed(), NOW).reason == "PodDeleted"


def test_suspending_saves_first_and_counts_no_restart() -> None:
    decision = decide(job({"suspend": True}, status()), observed(pod(0), pod(1)), NOW)
    assert (decision.state, decision.attempt, decision.actions) == (State.SUSPENDED, 2, (Remove(1),))
    assert decision.restarts == Restarts()
    saving = decide(
        job({"suspend": True}, status("Suspended", 2)), observed(pod(0, deleted_at=after(60)), attempts=()), NOW
    )
    assert (saving.reason, saving.actions) == ("Suspending", ())


def test_resume_launches_the_next_attempt() -> None:
    assert decide(job(status=status("Suspended", 2)), Observed(), NOW).actions == (Launch(2),)


def test_another_number_of_nodes_saves_and_goes_on_at_that_size() -> None:
    decision = decide(job({"nodes": 3}, status()), observed(pod(0), pod(1)), NOW)
    assert (decision.reason, decision.attempt, decision.actions) == ("Resizing", 2, (Remove(1),))
    assert decision.restarts == Restarts()


def test_an_image_that_cannot_be_pulled_is_pending_with_a_remedy() -> None:
    waiting = pod(0, phase="Pending", is_running=False, waiting=Cause("ImagePullBackOff", "Back-off pulling x"))
    decision = decide(job({"image": "x"}, status("Starting")), observed(waiting, pod(1)), NOW)
    assert (decision.state, decision.reason) == (State.PENDING, "ImagePullBackOff")
    assert "Check spec.image (x)" in decision.message


def test_pods_that_fit_nowhere_are_pending_with_the_schedulers_reason() -> None:
    waiting = pod(0, phase="Pending", is_running=False, unscheduled="0/3 nodes: insufficient nvidia.com/gpu")
    decision = decide(job(status=status("Starting")), observed(waiting), NOW)
    assert (decision.state, decision.reason) == (State.PENDING, "Unschedulable")
    assert "insufficient nvidia.com/gpu" in decision.message


def test_a_job_in_a_full_queue_is_queued() -> None:
    held = Observed(batch_jobs={1: BatchJob("job-1", is_suspended=True)})
    decision = decide(job({"scheduling": {"queueName": "team"}}, status("Queued")), held, NOW)
    assert (decision.state, decision.reason, decision.actions) == (State.QUEUED, "WaitingForQuota", ())


@pytest.mark.parametrize("attempts", [{}, {1: BatchJob("job-1", is_suspended=True)}], ids=["new", "held"])
def test_a_job_starts_when_its_queue_lets_it(attempts: dict[int, BatchJob]) -> None:
    limited = job({"scheduling": {"queueName": "team"}, "activeDeadlineSeconds": 60})
    held = decide(limited, Observed(batch_jobs=attempts), NOW)
    assert (held.state, held.start_time) == (State.QUEUED, None)
    admitted = decide(limited, observed(), after(300))
    assert (admitted.state, admitted.start_time) == (State.STARTING, after(300))
    assert admitted.look_at is not None


WAITING = {
    "queued": Observed(batch_jobs={1: BatchJob("job-1", is_suspended=True, specification=specification(job()))}),
    "unschedulable": Observed(
        (pod(0, phase="Pending", is_running=False, unscheduled="0/3 nodes", ip=None), pod(1)),
        {1: BatchJob("job-1", specification=specification(job()))},
    ),
}


@pytest.mark.parametrize("waiting", WAITING.values(), ids=WAITING)
def test_an_attempt_that_waits_begins_anew_when_its_specification_changes(waiting: Observed) -> None:
    same = decide(job({"restart": {"maxRestarts": 9}}, status("Pending")), waiting, NOW)
    assert (same.attempt, same.actions) == (1, ())
    changed = decide(job({"scheduling": {"queueName": "team"}}, status("Pending")), waiting, NOW)
    assert (changed.state, changed.reason, changed.attempt) == (State.RESTARTING, "Changed", 2)
    assert (changed.actions, changed.restarts.total) == ((Remove(1),), 0)


def test_an_attempt_that_trains_is_not_disturbed_by_a_changed_specification() -> None:
    trains = Observed((pod(0), pod(1)), {1: BatchJob("job-1", specification="another")})
    assert decide(job(status=status()), trains, NOW).actions == ()


def test_a_job_past_its_deadline_fails_and_its_pods_are_removed() -> None:
    limited = job({"activeDeadlineSeconds": 60}, status())
    assert decide(limited, observed(pod(0), pod(1)), after(59)).state is State.RUNNING
    decision = decide(limited, observed(pod(0), pod(1)), after(60))
    assert (decision.state, decision.reason, decision.actions) == (State.FAILED, "DeadlineExceeded", (Remove(1),))


def test_a_gang_that_makes_no_step_is_restarted_and_charged() -> None:
    progress = Progress(phase="training", step=5, updated_at=NOW)

    def stuck(seconds: float) -> Observed:
        return observed(pod(0), pod(1), progress=progress, advanced_at=NOW, answered_at=after(seconds))

    patient = job({"restart": {"hangSeconds": 100}}, status())
    assert decide(patient, stuck(99), after(100)).state is State.RUNNING
    decision = decide(patient, stuck(100), after(100))
    assert (decision.state, decision.reason, decision.restarts.charged) == (State.RESTARTING, "Hung", 1)
    assert decide(job({"restart": {"hangSeconds": 0}}, status()), stuck(1e6), after(1e6)).state is State.RUNNING


def test_an_agent_that_cannot_be_asked_says_nothing_about_a_hang() -> None:
    progress = Progress(phase="training", step=5, updated_at=NOW)
    silent = observed(
        pod(0), pod(1), progress=progress, advanced_at=NOW, answered_at=after(10), unreachable=Unreachable(after(15), "refused")
    )  # fmt: skip
    impatient = job({"restart": {"hangSeconds": 100}}, status())
    decision = decide(impatient, silent, after(1e6))
    assert (decision.state, decision.actions) == (State.RUNNING, ())
    never = observed(pod(0), pod(1), progress=None, unreachable=Unreachable(NOW, "timeout"))
    assert decide(impatient, never, after(1e6)).state is State.RUNNING


def test_a_running_job_is_looked_at_again_later_never_at_once() -> None:
    progress = Progress(phase="training", step=5, updated_at=NOW)
    seen = observed(pod(0), pod(1), progress=progress, advanced_at=NOW, answered_at=after(10))
    decision = decide(job({"restart": {"hangSeconds": 100}}, status()), seen, after(1e4))
    assert decision.look_at is not None
    assert decision.look_at > after(1e4)


MOMENTS = [
    datetime(1, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), NOW,
    datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("seconds", [0, 1, 2**31 - 1])
def test_times_and_durations_at_their_ends_are_decided_about(moment: datetime, seconds: int) -> None:
    failure = {"reason": "Failed", "at": moment, "charged": True}
    spec = {"activeDeadlineSeconds": max(seconds, 1), "ttlSecondsAfterFinished": seconds}
    for stands in (
        status(startTime=moment, lastFailure=failure), status("Restarting", startTime=moment, lastFailure=failure),
        finished("Complete", startTime=moment).model_copy(update={"completion_time": moment}),
    ):  # fmt: skip
        for seen in (Observed(created=moment), observed(pod(0), pod(1), advanced_at=moment, answered_at=moment)):
            given = job(spec, stands)
            decision = decide(given, seen, NOW)
            assert job_status.status(given, seen, decision, NOW).state == decision.state.value


def test_the_last_attempt_that_can_be_counted_is_the_last_one() -> None:
    stands = status(attempt=MAX_ATTEMPT, restarts={"charged": MAX_INT, "uncharged": MAX_INT})
    seen = observed(pod(0, MAX_ATTEMPT), failed(1, MAX_ATTEMPT, code=137), attempts=(MAX_ATTEMPT,))
    for spec in ({"restart": {"maxRestarts": 10_000}}, {"suspend": True}):
        given = job(spec, stands)
        decision = decide(given, seen, after(60))
        assert decision.state is State.FAILED
        assert job_status.status(given, seen, decision, after(60)).attempt == MAX_ATTEMPT


def test_pods_of_which_nothing_is_known_complete_nothing() -> None:
    assert decide(job(status=status()), observed(pod(0, nodes=0), pod(1, nodes=0)), NOW).state is not State.COMPLETE


def finished(kind: str, **changes: Any) -> JobStatus:
    base = status("Complete", completionTime=NOW, **changes)
    condition = base.conditions[0].model_copy(update={"type": kind, "status": "True", "reason": "Done"})
    return base.model_copy(update={"conditions": (condition,)})


def test_what_has_ended_stays_ended() -> None:
    for kind in ("Complete", "Failed"):
        for seen in (Observed(), observed(failed(0, code=137), failed(1, code=137))):
            decision = decide(job({"nodes": 4, "suspend": True}, finished(kind)), seen, NOW)
            assert (decision.state.value, decision.actions) == (kind, ())


def test_a_finished_job_is_deleted_when_its_time_to_live_is_over() -> None:
    short = job({"ttlSecondsAfterFinished": 60}, finished("Complete"))
    assert decide(short, Observed(), after(59)).look_at == after(60)
    assert decide(short, Observed(), after(60)).actions == (RemoveJob(),)


def test_what_an_older_attempt_left_is_removed_by_whoever_finds_it() -> None:
    decision = decide(job(status=status(attempt=3)), observed(pod(0, 3), pod(1, 3), pod(0, 1), attempts=(2, 3)), NOW)
    assert set(decision.actions) == {Remove(1), Remove(2)}


FAULTS = st.sampled_from(
    ["none", "crash", "kill", "preempt", "oom", "vanish", "suspend", "resume", "resize", "succeed"]
)


@given(st.lists(st.tuples(FAULTS, st.booleans()), max_size=30))
def test_any_history_keeps_one_attempt_alive_and_its_counts_exact(history: list[tuple[str, bool]]) -> None:
    """A model of the cluster: decisions are carried out, or lost after the status was written, as by a crash."""
    spec: dict[str, object] = {"restart": {"maxRestarts": 3, "backoffSeconds": 0}}
    state, seen, now = JobStatus(), Observed(), NOW
    charged = uncharged = 0
    for fault, is_lost in history:
        now += timedelta(seconds=20)
        alive = [p for p in seen.pods if p.attempt == state.attempt and p.phase == "Running"]
        if fault in {"crash", "kill", "preempt", "oom"} and alive and state.state == "Running":
            ends = {
                "crash": failed(0, state.attempt, code=3), "kill": failed(0, state.attempt, code=137),
                "preempt": failed(0, state.attempt, code=137, disruption="PreemptionByScheduler"),
                "oom": failed(0, state.attempt, code=137, reason="OOMKilled"),
            }  # fmt: skip
            hurt = replace(ends[fault], nodes=alive[0].nodes)
            seen = replace(
                seen, pods=tuple(hurt if p.index == 0 and p.attempt == state.attempt else p for p in seen.pods)
            )
            if not spec.get("suspend"):
                charged, uncharged = (charged, uncharged + 1) if fault == "preempt" else (charged + 1, uncharged)
        if fault == "suspend":
            spec["suspend"] = True
        if fault == "resume":
            spec["suspend"] = False
        if fault == "resize":
            spec["nodes"] = 3 if spec.get("nodes", 2) == 2 else 2
        for _ in range(4):
            current = job(spec, state)
            decision = decide(current, seen, now)
            state = job_status.status(current, seen, decision, now)
            if is_lost:
                break  # the status is written, nothing else: a crash; the next turn has to make up for it
            for action in decision.actions:
                if isinstance(action, Launch):
                    assert not [p for p in seen.pods if p.attempt != action.attempt], "two gangs at a time"
                    nodes = current.spec.nodes
                    made = tuple(replace(pod(i, action.attempt), nodes=nodes) for i in range(nodes))
                    seen = Observed(made, {action.attempt: BatchJob(f"job-{action.attempt}")})
                elif isinstance(action, Remove):
                    rest = {n: b for n, b in seen.batch_jobs.items() if n != action.attempt}
                    seen = Observed(tuple(p for p in seen.pods if p.attempt != action.attempt), rest)
    if state.state != "Failed":
        assert state.restarts.charged <= min(charged, 3)
        assert state.restarts.uncharged <= uncharged
    assert state.restarts.charged <= 3


@pytest.mark.parametrize("left", [(pod(0), pod(1, deleted_at=NOW)), (pod(0),)], ids=["is-deleted", "is-gone"])
def test_a_queue_that_takes_its_quota_back_preempts_and_costs_no_restart(left: tuple[ObservedPod, ...]) -> None:
    taken = Observed(pods=left, batch_jobs={1: BatchJob("job-1", is_suspended=True)})
    decision = decide(job({"scheduling": {"queueName": "team"}}, status()), taken, NOW)
    assert (decision.state, decision.reason, decision.attempt) == (State.RESTARTING, "Preempted", 2)
    assert (decision.restarts.charged, decision.restarts.uncharged) == (0, 1)
    assert decision.needs_fresh_view


def test_an_attempt_that_is_ahead_of_an_edited_status_is_the_present_one() -> None:
    running = observed(pod(0, attempt=2), pod(1, attempt=2), attempts=(2,))
    decision = decide(job(None, status(attempt=1)), running, NOW)
    assert (decision.state, decision.attempt, decision.actions) == (State.RUNNING, 2, ())
