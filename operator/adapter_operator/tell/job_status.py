"""PURE: (job, observed, decision, now) -> the status to show."""

from datetime import datetime

from adapter_api.base import MAX_INT
from adapter_api.job import AdapterTrainingJob
from adapter_api.progress import CheckpointMark, Progress
from adapter_api.scalars import visible
from adapter_api.status import CheckpointStatus, Condition, JobStatus, Nodes, ProgressStatus, Restarts
from adapter_operator.decide.decision import Decision, State
from adapter_operator.decide.interruptions import grace_seconds, losses
from adapter_operator.names import AGENT_PORT
from adapter_operator.observe.observed import UNREACHABLE_SECONDS, Observed, ObservedPod
from adapter_operator.tell import health
from adapter_operator.tell.health import Facts

MAX_ERROR = 500


def status(
    job: AdapterTrainingJob, observed: Observed, decision: Decision, now: datetime, log_tail: str = ""
) -> JobStatus:
    """The status of a job after a decision.

    Args:
        job: With the status that stands.
        observed: What the decision was made from.
        decision: Its attempt, state and reasons are taken over.
        now: Stamped on what changes.
        log_tail: Last lines of the container whose failure the decision answers.
    """
    before, generation = job.status, job.metadata.generation
    finished = decision.state in {State.COMPLETE, State.FAILED}
    pods = observed.of(decision.attempt)
    last_failure = decision.last_failure
    if log_tail and last_failure is not None:
        last_failure = last_failure.model_copy(update={"log_tail": log_tail})
    progress = _progress(before.progress, observed.progress, pods, is_complete=decision.state is State.COMPLETE)
    lost = losses(before, observed, decision, now)
    return JobStatus(
        observed_generation=generation,
        state=decision.state.value,
        conditions=_conditions(before.conditions, _facts(job, decision, observed, now), generation, now),
        attempt=decision.attempt,
        restarts=_counted(decision.restarts),
        nodes=_nodes(pods),
        progress=progress,
        checkpoint=_checkpoint(before.checkpoint, observed.progress, observed.pods),
        last_failure=last_failure,
        interruptions=lost.interruptions,
        lost_steps=lost.lost_steps,
        termination_grace_period_seconds=grace_seconds(job, observed.progress),
        start_time=decision.start_time,
        completion_time=(before.completion_time or now) if finished else None,
        goodput_percent=_goodput(before, observed.progress, decision, now),
    )


def invalid(job_status: JobStatus, generation: int | None, message: str, now: datetime) -> JobStatus:
    """The status of a job whose specification no rule accepts; what ran before goes on."""
    facts: Facts = {"Accepted": ("False", "Invalid", message), **health.facts(State.INVALID, "Invalid", message)}
    replaced = {"Accepted", *health.TYPES}
    stands: Facts = {c.type: (c.status, c.reason, c.message) for c in job_status.conditions if c.type not in replaced}
    return job_status.model_copy(
        update={
            "observed_generation": generation,
            "state": State.INVALID.value if not job_status.attempt else job_status.state,
            "conditions": _conditions(job_status.conditions, {**stands, **facts}, generation, now),
        }
    )


def stumbled(job_status: JobStatus, generation: int | None, error: Exception, now: datetime) -> JobStatus:
    """The status of a job that we fail to reconcile; all else in it stands."""
    told = visible(f"{type(error).__name__}: {error}".splitlines()[0][:MAX_ERROR])
    message = f"the operator fails at this job and tries again: {told}. Its log says more; please report it"
    facts: Facts = {
        health.READY: ("False", "InternalError", message), health.STALLED: ("True", "InternalError", message),
    }  # fmt: skip
    stands: Facts = {
        c.type: (c.status, c.reason, c.message) for c in job_status.conditions if c.type not in health.TYPES
    }
    return job_status.model_copy(
        update={"conditions": _conditions(job_status.conditions, {**stands, **facts}, generation, now)}
    )


def is_urgent(before: JobStatus, after: JobStatus) -> bool:
    """Whether a change must be written at once; the rest are figures, which may wait for the next ones."""

    def essence(value: JobStatus) -> object:
        told = sorted((c.type, c.status, c.reason) for c in value.conditions)
        return (
            value.attempt, value.state, told, value.restarts, value.start_time, value.completion_time,
            value.last_failure, value.observed_generation,
        )  # fmt: skip

    return essence(before) != essence(after)


def is_passing(before: JobStatus, after: JobStatus) -> bool:
    """Whether a change tells only that an attempt starts: when its pods run soon, that is told, and this need not be.

    The first attempt is nobody's to claim, so that it may start before the job has a status at all. But a status that
    refuses the job lets its user change what it trains, which ends here.
    """
    if any(c.type == "Accepted" and c.status == "False" for c in before.conditions):
        return False
    starts = after.state == State.STARTING.value and any(
        c.type == "Running" and c.reason in {"Launching", "Starting"} for c in after.conditions
    )
    return starts and after.attempt == max(before.attempt, 1) and after.restarts.total == before.restarts.total


def _facts(job: AdapterTrainingJob, decision: Decision, observed: Observed, now: datetime) -> Facts:
    state, reason, message = decision.state, decision.reason, decision.message
    facts: Facts = {
        "Accepted": ("True", "Valid", ""),
        "Running": ("True" if state is State.RUNNING else "False", reason, message),
        **health.facts(state, reason, message),
    }
    known = {c.type for c in job.status.conditions}
    if state is State.SUSPENDED or "Suspended" in known:
        is_suspended = state is State.SUSPENDED and reason == "Suspended"
        shown = (reason, message) if state is State.SUSPENDED else ("Resumed", "")
        facts["Suspended"] = ("True" if is_suspended else "False", *shown)
    if job.spec.scheduling.queue_name is not None or "Queued" in known:
        is_queued = state is State.QUEUED
        facts["Queued"] = ("True", reason, message) if is_queued else ("False", "Admitted", "")
    if (storage := _storage(job.status, observed.progress)) is not None:
        facts["StorageHealthy"] = storage
    if (agent := _agent(job.status, observed, state, now)) is not None:
        facts["AgentReachable"] = agent
    if state is State.COMPLETE:
        facts["Complete"] = ("True", reason, message)
        facts["Running"] = ("False", reason, message)
    if state is State.FAILED:
        facts["Failed"] = ("True", reason, message)
    return facts


def _storage(before: JobStatus, seen: Progress | None) -> tuple[str, str, str] | None:
    """What the agent says of object storage; None as long as there has been no trouble."""
    stands = next((c for c in before.conditions if c.type == "StorageHealthy"), None)
    if seen is None:
        return None if stands is None else (stands.status, stands.reason, stands.message)
    if seen.upload_error is not None:
        return "False", "UploadFailed", seen.upload_error
    if seen.restore_warning is not None:
        return "False", "CheckpointDamaged", seen.restore_warning
    return None if stands is None else ("True", "Recovered", "")


def _agent(before: JobStatus, observed: Observed, state: State, now: datetime) -> tuple[str, str, str] | None:
    """Whether node 0's agent answers; None as long as it always has."""
    stands = next((c for c in before.conditions if c.type == "AgentReachable"), None)
    silent = observed.unreachable
    if state is State.RUNNING and silent is not None and (now - silent.since).total_seconds() >= UNREACHABLE_SECONDS:
        message = (
            f"node 0's agent has not answered since {silent.since:%H:%M:%S} UTC ({silent.why}): progress is not shown and a "
            f"hang is not noticed; let the operator's pods reach port {AGENT_PORT} of the job's"
        )
        return "False", "Unreachable", message
    if stands is None:
        return None
    if state is State.RUNNING and silent is None and observed.answered_at is not None:
        return "True", "Answers", ""
    return stands.status, stands.reason, stands.message


def _conditions(
    before: tuple[Condition, ...], facts: Facts, generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    old: dict[str, Condition] = {condition.type: condition for condition in before}
    order = (
        "Accepted",
        "Queued",
        "Running",
        "StorageHealthy",
        "AgentReachable",
        "Suspended",
        "Complete",
        "Failed",
        *health.TYPES,
    )
    found = []
    for name in order:
        if name not in facts:
            continue
        value, reason, message = facts[name]
        same = name in old and old[name].status == value
        found.append(
            Condition.model_validate(
                {
                    "type": name,
                    "status": value,
                    "reason": reason,
                    "message": message[:32_768],
                    "lastTransitionTime": old[name].last_transition_time if same else now,
                    "observedGeneration": generation,
                }
            )
        )
    return tuple(found)


def _counted(restarts: Restarts) -> Restarts:
    return restarts.model_copy(update={"total": min(restarts.charged + restarts.uncharged, MAX_INT)})


def _in_words(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _nodes(pods: tuple[ObservedPod, ...]) -> Nodes:
    failed = sum(pod.has_failed for pod in pods)
    active = sum(not pod.has_failed and not pod.has_succeeded and pod.deleted_at is None for pod in pods)
    return Nodes(ready=sum(pod.is_running for pod in pods), active=active, failed=failed)


def _progress(
    before: ProgressStatus | None, seen: Progress | None, pods: tuple[ObservedPod, ...], *, is_complete: bool
) -> ProgressStatus | None:
    if seen is not None and seen.step == 0 and before is not None and before.step:
        seen = None  # a new attempt that has not restored yet says nothing about how far the run is
    if seen is None:
        ended = _last_step(pods)
        if before is None or ended is None or not is_complete:
            return before
        total = max(before.total_steps, ended)
        return before.model_copy(
            update={
                "step": ended,
                "total_steps": total,
                "percent": _percent(ended, total),
                "eta_seconds": 0,
                "eta": "0s",
            }
        )
    step = seen.step
    if is_complete and (last := _last_step(pods)) is not None:
        step = max(step, last)
    return ProgressStatus(
        step=step,
        total_steps=seen.total_steps,
        percent=_percent(step, seen.total_steps),
        loss=None if seen.loss is None else float(f"{seen.loss:.5g}"),
        images_per_second=None if seen.images_per_second is None else round(seen.images_per_second, 1),
        eta_seconds=0 if is_complete else seen.eta_seconds,
        eta=_in_words(0 if is_complete else seen.eta_seconds),
        metrics=seen.metrics or (None if before is None else before.metrics),
        notice=seen.notice,
        updated_at=seen.updated_at,
    )


def _last_step(pods: tuple[ObservedPod, ...]) -> int | None:
    steps = [end.step for pod in pods if pod.trainer is not None and (end := pod.trainer.ending) is not None]
    return max(steps, default=None)


def _percent(step: int, total: int) -> float:
    return round(min(100.0, 100 * step / total), 1) if total else 0.0


def _checkpoint(
    before: CheckpointStatus | None, seen: Progress | None, pods: tuple[ObservedPod, ...]
) -> CheckpointStatus | None:
    """The newest of what is known: what stood, what the agent says, what ended pods said last."""
    marks: list[CheckpointMark] = [seen.checkpoint] if seen is not None and seen.checkpoint is not None else []
    for pod in pods:
        ending = pod.trainer.ending if pod.trainer is not None else None
        if ending is not None and ending.checkpoint is not None:
            marks.append(ending.checkpoint)
    newest = max(marks, key=lambda mark: mark.step, default=None)
    if newest is None or (before is not None and before.step >= newest.step):
        return before
    # What another attempt committed was measured by that one.
    measured = seen if seen is not None and seen.checkpoint == newest else None
    return CheckpointStatus(
        step=newest.step,
        uri=newest.uri,
        committed_at=newest.committed_at,
        bytes=newest.bytes,
        save_seconds=None if measured is None else _rounded(measured.save_seconds),
        commit_seconds=None if measured is None else _rounded(measured.commit_seconds),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")


def _goodput(before: JobStatus, seen: Progress | None, decision: Decision, now: datetime) -> float | None:
    """Share of the time since the start that the steps that stand have taken; the rest was starting, lost or repeated."""
    if decision.state is not State.RUNNING or decision.start_time is None or seen is None or not seen.eta_seconds:
        return before.goodput_percent
    remaining = seen.total_steps - seen.step
    elapsed = (now - decision.start_time).total_seconds()
    if remaining <= 0 or elapsed <= 0:
        return before.goodput_percent
    productive = seen.step * seen.eta_seconds / remaining
    return round(min(100.0, 100 * productive / elapsed), 1)
