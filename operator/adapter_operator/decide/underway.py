"""PURE: the state of an attempt that exists and has no fault: it starts, waits or trains."""

from dataclasses import replace
from datetime import datetime, timedelta

from adapter_api.job import AdapterTrainingJob
from adapter_operator.decide.decision import Announce, Decision, State, is_shown_running
from adapter_operator.decide.refusals import mending
from adapter_operator.decide.times import later
from adapter_operator.observe.observed import Observed, ObservedPod, all_running

ANSWER_SECONDS = 5
"""Seconds between two looks at a job whose agent may answer at any time."""


def underway(
    job: AdapterTrainingJob, observed: Observed, begun: Decision, pods: tuple[ObservedPod, ...], now: datetime
) -> Decision:
    """Decides what to show of the attempt, and what it still needs."""
    nodes = pods[0].nodes if pods else job.spec.nodes
    has_address = bool(pods) and pods[0].index == 0 and pods[0].ip is not None
    if has_address and observed.announced != begun.attempt and not is_shown_running(job.status):
        begun = replace(begun, actions=(*begun.actions, Announce(begun.attempt)))
    if len(pods) == nodes and all_running(pods):
        message = f"attempt {begun.attempt} trains on {nodes} {'node' if nodes == 1 else 'nodes'}"
        hang = _hang_at(job, observed, now)
        return replace(begun, state=State.RUNNING, reason="Training", message=message, look_at=hang)
    batch_job = observed.batch_jobs.get(begun.attempt)
    if batch_job is not None and batch_job.is_suspended:
        queue = job.spec.scheduling.queue_name or "of its Job"
        message = f"waits for quota in the queue {queue}; `kubectl describe workloads` says how much is missing"
        return replace(begun, state=State.QUEUED, reason="WaitingForQuota", message=message, look_at=_soon(now, 30))
    if (held := _held_up(job, observed, begun, pods, now)) is not None:
        return held
    if is_shown_running(job.status):
        # A container that has just ended, or a pod that ends well before the others: nothing to tell yet.
        return replace(
            begun, state=State.RUNNING, reason="Training", message=_running_message(job), look_at=_soon(now, 10)
        )
    return replace(
        begun,
        state=State.STARTING,
        reason="Starting",
        message=f"attempt {begun.attempt}: pods are starting",
        look_at=_soon(now, 10),
        needs_fresh_view=False,
    )


def _held_up(
    job: AdapterTrainingJob, observed: Observed, begun: Decision, pods: tuple[ObservedPod, ...], now: datetime
) -> Decision | None:
    """What keeps the attempt's pods from starting, if the cluster says so."""
    for pod in pods:
        if pod.waiting is not None:
            reason = pod.waiting.reason
            message = f"pod {pod.name}: {pod.waiting.message or reason}. {_remedy(reason, job)}"
            return replace(begun, state=State.PENDING, reason=reason, message=message, look_at=_soon(now, 60))
    for pod in pods:
        if pod.unscheduled is not None:
            message = f"pod {pod.name}: {pod.unscheduled}"
            return replace(begun, state=State.PENDING, reason="Unschedulable", message=message, look_at=_soon(now, 60))
    nodes = pods[0].nodes if pods else job.spec.nodes
    if len(pods) < nodes and observed.refused is not None and observed.refused[0] == begun.attempt:
        message = f"the cluster refuses to create its pods: {observed.refused[1]}. {mending(observed.refused[1])}"
        return replace(begun, state=State.PENDING, reason="PodsRefused", message=message, look_at=_soon(now, 10))
    return None


def _running_message(job: AdapterTrainingJob) -> str:
    return next((c.message for c in job.status.conditions if c.type == "Running"), "")


def _remedy(reason: str, job: AdapterTrainingJob) -> str:
    if "Image" in reason or reason == "ErrImagePull":
        return f"Check spec.image ({job.spec.image or 'the default of the operator'}) and spec.pod.imagePullSecrets"
    if reason == "CreateContainerConfigError":
        return "Check that the Secrets and ConfigMaps that the job names exist in its namespace"
    return "The kubelet tries again"


def _hang_at(job: AdapterTrainingJob, observed: Observed, now: datetime) -> datetime | None:
    limit = job.spec.restart.hang_seconds
    if not limit or observed.advanced_at is None or observed.unreachable is not None:
        return None
    # Past that, it depends on an answer that is yet to come.
    return max(later(observed.advanced_at, limit), _soon(now, ANSWER_SECONDS))


def _soon(now: datetime, seconds: int) -> datetime:
    return now + timedelta(seconds=seconds)
