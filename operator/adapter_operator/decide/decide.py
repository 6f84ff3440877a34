"""PURE: (job, observed, now) -> the job's state, and what the operator does next.

`status.attempt` is the number of the attempt that should exist. To end an attempt, the operator first writes the next
number. Any process that reads the number later, also after a crash, deletes everything with a lower number and launches
the new attempt. Every step can therefore be repeated, and none depends on memory.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from adapter_api.base import MAX_INT
from adapter_api.job import AdapterTrainingJob
from adapter_api.status import MAX_ATTEMPT, JobStatus, LastFailure, Restarts
from adapter_operator.decide import failures
from adapter_operator.decide.decision import Action, Decision, Launch, Remove, RemoveJob, State, is_shown_running
from adapter_operator.decide.failures import Failure
from adapter_operator.decide.times import later
from adapter_operator.decide.underway import underway
from adapter_operator.observe.observed import Observed, ObservedPod, all_running
from adapter_operator.specification import specification

FREE_RESTARTS = 5
"""Number of restarts caused by the cluster that follow without a delay."""
FREE_RESTART_SECONDS = 10
"""Seconds before each further restart that the cluster causes."""
REFUSED_RESTART_SECONDS = 60
"""Seconds before a restart while object storage refuses the job: a person has to correct that first."""
MAX_MESSAGE = 8192
_KEPT_REASONS = frozenset({"Resizing", "Restarting", "Changed"})
"""Reasons of an attempt's end that stay in the status until its pods are gone."""


def decide(job: AdapterTrainingJob, observed: Observed, now: datetime) -> Decision:
    """Decides the next step of a valid job."""
    status = job.status
    if (finished := _finished(status)) is not None:
        return _after(job, observed, finished, now)
    begun = _begun(job, observed, now)
    actions = _removals(observed, begun.attempt)
    begun = replace(begun, actions=actions)
    if (deadline := _deadline(job, begun)) is not None:
        if now >= deadline:
            message = f"not complete {job.spec.active_deadline_seconds} s after its start (activeDeadlineSeconds)"
            return _stopped(begun, observed, State.FAILED, "DeadlineExceeded", message)
        decision = _in_time(job, observed, begun, now)
        return _no_later(decision, deadline)
    return _in_time(job, observed, begun, now)


def _in_time(job: AdapterTrainingJob, observed: Observed, begun: Decision, now: datetime) -> Decision:
    pods = observed.of(begun.attempt)
    is_launched = bool(pods) or begun.attempt in observed.batch_jobs
    if not is_launched and not (is_shown_running(job.status) and job.status.attempt == begun.attempt):
        return _unlaunched(job, observed, begun, now)
    if is_launched and pods and _is_complete(pods):
        return replace(
            begun,
            state=State.COMPLETE,
            reason="Complete",
            message="training is complete and its last checkpoint committed",
        )
    if job.spec.suspend:
        return _next_attempt(begun, State.SUSPENDED, "Suspending", "saving, then no pods run until suspend is false")
    if (failure := _failure(job, observed, begun, pods, now)) is not None:
        return _answer(job, observed, begun, failure, now)
    if pods and pods[0].nodes != job.spec.nodes:
        message = f"saving, then {job.spec.nodes} nodes instead of {pods[0].nodes} continue from there"
        return _next_attempt(begun, State.RESTARTING, "Resizing", message)
    return _as_specified(job, observed, begun, underway(job, observed, begun, pods, now))


def _as_specified(job: AdapterTrainingJob, observed: Observed, begun: Decision, going: Decision) -> Decision:
    """Restarts a waiting attempt if the specification has changed since: the change may be what it waits for."""
    batch_job = observed.batch_jobs.get(begun.attempt)
    waits = going.state in {State.QUEUED, State.PENDING}
    if not waits or batch_job is None or batch_job.specification in {None, specification(job)}:
        return going
    message = f"{going.message}; the specification has changed since, and the next attempt starts from that"
    return _next_attempt(begun, State.RESTARTING, "Changed", message)


def _begun(job: AdapterTrainingJob, observed: Observed, now: datetime) -> Decision:
    """Returns the present status as a decision that changes nothing; for a new job, its first attempt.

    An attempt that exists although the status has a lower number counts as the present one (a user may have edited the
    status, or restored an old one): a new start from the lower number would let two attempts run.
    """
    status = job.status
    attempt = max(status.attempt, 1, *observed.batch_jobs)
    starts = not job.spec.suspend and not _is_held(job, observed, attempt)
    return Decision(
        state=State.PENDING,
        reason="Pending",
        message="",
        attempt=attempt,
        restarts=status.restarts,
        last_failure=status.last_failure,
        start_time=status.start_time or (now if starts else None),
    )


def _is_held(job: AdapterTrainingJob, observed: Observed, attempt: int) -> bool:
    """Whether a queue still holds the attempt, or its Job has not been created in the queue yet."""
    if job.spec.scheduling.queue_name is None or observed.of(attempt):
        return False
    batch_job = observed.batch_jobs.get(attempt)
    return batch_job is None or batch_job.is_suspended


def _removals(observed: Observed, attempt: int) -> tuple[Action, ...]:
    """Removals of what lower attempts have left, except what is already being deleted."""
    older = {pod.attempt for pod in observed.pods if pod.attempt < attempt and pod.deleted_at is None}
    older |= {number for number in observed.batch_jobs if number < attempt}
    return tuple(Remove(number) for number in sorted(older))


def _unlaunched(job: AdapterTrainingJob, observed: Observed, begun: Decision, now: datetime) -> Decision:
    """Launches the attempt, which does not exist yet, as soon as nothing prevents it."""
    leaving = [pod for pod in observed.pods if pod.attempt < begun.attempt and not pod.is_gone(now)]
    again = now + timedelta(seconds=5) if leaving else None
    if job.spec.suspend:
        if leaving:
            message = f"{len(leaving)} pods are saving and ending; no pods run until suspend is false"
            return replace(begun, state=State.SUSPENDED, reason="Suspending", message=message, look_at=again)
        message = "suspended; set suspend to false to continue from the newest checkpoint"
        return replace(begun, state=State.SUSPENDED, reason="Suspended", message=message)
    waiting = State.RESTARTING if begun.attempt > 1 else State.STARTING
    if leaving:
        message = f"waiting for {len(leaving)} pods of the attempt before to end"
        return replace(
            begun, state=waiting, reason=_reason_kept(job.status, "Restarting"), message=message, look_at=again
        )
    not_before = _not_before(job)
    if not_before is not None and now < not_before:
        message = f"attempt {begun.attempt} starts at {not_before:%H:%M:%S} UTC"
        return replace(begun, state=waiting, reason="BackingOff", message=message, look_at=not_before)
    launching = replace(
        begun,
        state=State.QUEUED if job.spec.scheduling.queue_name else State.STARTING,
        reason="Launching",
        message=f"attempt {begun.attempt}: creating {job.spec.nodes} pods",
    )
    if observed.created is not None and now < (second := later(observed.created, 1)):
        # Deleted, and made anew in the same second, the job would have the same epochs: see adapter_api.launch.epoch.
        return replace(launching, look_at=second)
    return replace(launching, actions=(*begun.actions, Launch(begun.attempt)))


def _reason_kept(status: JobStatus, otherwise: str) -> str:
    running = next((c for c in status.conditions if c.type == "Running" and c.status == "False"), None)
    return running.reason if running is not None and running.reason in _KEPT_REASONS else otherwise


def _not_before(job: AdapterTrainingJob) -> datetime | None:
    """The earliest start of the attempt: charged restarts back off exponentially."""
    status, restart = job.status, job.spec.restart
    if status.last_failure is None:
        return None
    if status.last_failure.charged:
        seconds = restart.backoff(status.restarts.charged)
    elif status.last_failure.reason == failures.STORAGE_REFUSED:
        seconds = REFUSED_RESTART_SECONDS
    else:
        seconds = 0 if status.restarts.uncharged <= FREE_RESTARTS else FREE_RESTART_SECONDS
    return later(status.last_failure.at, seconds)


def _failure(
    job: AdapterTrainingJob, observed: Observed, begun: Decision, pods: tuple[ObservedPod, ...], now: datetime
) -> Failure | None:
    found = failures.root_cause(pods)
    lost = _lost(job, observed, begun, pods)
    if lost is not None and (found is None or found.is_consequence):
        return lost
    if found is not None:
        return found if failures.has_settled(found, pods, now) else None
    return _hang(job, observed, pods, now)


def _lost(
    job: AdapterTrainingJob, observed: Observed, begun: Decision, pods: tuple[ObservedPod, ...]
) -> Failure | None:
    """The failure of an attempt that has lost a pod, or whose pod another client is deleting."""
    batch_job = observed.batch_jobs.get(begun.attempt)
    for pod in pods:
        if pod.deleted_at is not None and not pod.has_succeeded:
            if batch_job is not None and batch_job.is_suspended:
                return Failure("Preempted", "the queue has taken the quota back", is_charged=False)
            reason = failures.disruption_of(pod) or "PodDeleted"
            return Failure(reason, f"pod {pod.name} is being deleted", pod.index, is_charged=False)
    if batch_job is not None and batch_job.failed is not None and not any(pod.has_failed for pod in pods):
        return Failure("PodDeleted", batch_job.failed.message or "the attempt's Job failed", is_charged=False)
    was_running = is_shown_running(job.status) and job.status.attempt == begun.attempt
    nodes = pods[0].nodes if pods else job.spec.nodes
    missing = sorted(set(range(nodes)) - {pod.index for pod in pods})
    if was_running and missing:
        if batch_job is not None and batch_job.is_suspended:
            return Failure("Preempted", "the queue has taken the quota back", is_charged=False)
        return Failure("PodDeleted", f"the pod of node {missing[0]} is gone", missing[0], is_charged=False)
    return None


def _hang(job: AdapterTrainingJob, observed: Observed, pods: tuple[ObservedPod, ...], now: datetime) -> Failure | None:
    limit = job.spec.restart.hang_seconds
    heard = observed.answered_at
    if not limit or observed.progress is None or observed.advanced_at is None or heard is None or not all_running(pods):
        return None
    # Until its last answer: of an agent that cannot be asked nothing is known, least of all that it hangs.
    still = (heard - observed.advanced_at).total_seconds()
    if still < limit:
        return None
    message = f"no step for {still:.0f} s (restart.hangSeconds: {limit}); the last one was {observed.progress.step}"
    return Failure("Hung", message, at=now)


def _answer(job: AdapterTrainingJob, observed: Observed, begun: Decision, failure: Failure, now: datetime) -> Decision:
    """Decides between another attempt and giving up."""
    if failure.reason == failures.STORAGE_REFUSED and job.status.checkpoint is None:
        failure = replace(failure, is_charged=True)  # it may never have been allowed
    charged = min(begun.restarts.charged + failure.is_charged, MAX_INT)
    last = LastFailure(
        reason=failure.reason, node=failure.node, exit_code=failure.exit_code, message=failure.message[:MAX_MESSAGE],
        at=now, attempt=begun.attempt, charged=failure.is_charged,
    )  # fmt: skip
    begun = replace(begun, last_failure=last, failure=failure, needs_fresh_view=failure.pod is None)
    if failure.is_final:
        message = f"{_place(failure)}{failure.message}; trying again would not help. Correct it and apply the job again"
        return _stopped(begun, observed, State.FAILED, failure.reason, message)
    limit = job.spec.restart.max_restarts
    if charged > limit:
        message = f"{_place(failure)}{failure.message}; given up after {limit} restarts (restart.maxRestarts)"
        return _stopped(begun, observed, State.FAILED, failure.reason, message)
    restarts = Restarts(charged=charged, uncharged=min(begun.restarts.uncharged + (not failure.is_charged), MAX_INT))
    count = f"restart {charged} of {limit}" if failure.is_charged else "restart that is not charged"
    message = f"{_place(failure)}{failure.message}; {count}, from the newest checkpoint"
    begun = replace(begun, restarts=restarts)
    return _next_attempt(begun, State.RESTARTING, failure.reason, message)


def _place(failure: Failure) -> str:
    return "" if failure.node is None else f"node {failure.node}: "


def _next_attempt(begun: Decision, state: State, reason: str, message: str) -> Decision:
    if begun.attempt >= MAX_ATTEMPT:
        text = f"{message}; but {MAX_ATTEMPT} attempts are all that a job has: create another job, with resumeFrom"
        return replace(
            begun,
            state=State.FAILED,
            reason="AttemptsExhausted",
            message=text,
            actions=(*begun.actions, Remove(begun.attempt)),
        )
    return replace(
        begun,
        state=state,
        reason=reason,
        message=message,
        attempt=begun.attempt + 1,
        actions=(*begun.actions, Remove(begun.attempt)),
    )


def _stopped(begun: Decision, observed: Observed, state: State, reason: str, message: str) -> Decision:
    """Ends the job for good. Pods that have ended stay for their logs; the others are removed."""
    runs = any(not pod.has_failed and not pod.has_succeeded for pod in observed.of(begun.attempt))
    idle = begun.attempt in observed.batch_jobs and not observed.of(begun.attempt)
    actions = (*begun.actions, Remove(begun.attempt)) if runs or idle else begun.actions
    return replace(begun, state=state, reason=reason, message=message, actions=actions)


def _no_later(decision: Decision, deadline: datetime) -> Decision:
    if decision.state in {State.COMPLETE, State.FAILED}:
        return decision
    return replace(decision, look_at=min(deadline, decision.look_at or deadline))


def _deadline(job: AdapterTrainingJob, begun: Decision) -> datetime | None:
    seconds = job.spec.active_deadline_seconds
    return None if seconds is None or begun.start_time is None else later(begun.start_time, seconds)


def _is_complete(pods: tuple[ObservedPod, ...]) -> bool:
    succeeded = {pod.index for pod in pods if pod.has_succeeded}
    return bool(succeeded) and succeeded == set(range(pods[0].nodes))


def _finished(status: JobStatus) -> State | None:
    for condition in status.conditions:
        if condition.status == "True" and condition.type in {"Complete", "Failed"}:
            return State(condition.type)
    return None


def _after(job: AdapterTrainingJob, observed: Observed, state: State, now: datetime) -> Decision:
    """Handles a job that has ended: nothing runs, and the job is deleted after its time to live."""
    status = job.status
    condition = next(c for c in status.conditions if c.type == state.value)
    kept = Decision(
        state=state, reason=condition.reason, message=condition.message, attempt=status.attempt,
        restarts=status.restarts, last_failure=status.last_failure, start_time=status.start_time,
    )  # fmt: skip
    pods = observed.of(status.attempt)
    runs = any(not pod.has_failed and not pod.has_succeeded and pod.deleted_at is None for pod in pods)
    actions = _removals(observed, status.attempt)
    if runs and state is State.FAILED and not any(pod.has_failed for pod in pods):
        actions = (*actions, Remove(status.attempt))
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None or status.completion_time is None:
        return replace(kept, actions=actions)
    expires = later(status.completion_time, ttl)
    if now >= expires:
        return replace(kept, actions=(RemoveJob(),))
    return replace(kept, actions=actions, look_at=expires)
