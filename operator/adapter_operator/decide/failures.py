"""PURE: pods of an attempt -> why it failed, who caused that, and whether another attempt can help."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapter_api.progress import FENCED_REASON, ExitCode, ends_for_good
from adapter_operator.observe.observed import Cause, ContainerEnd, ObservedPod

SETTLE_SECONDS = 10
"""Seconds that a failure which looks like a consequence waits for its cause to appear."""

STORAGE_REFUSED = "StorageRefused"
"""Reasons that a person can correct while the job stays as it is, such as withdrawn credentials or a deleted bucket."""
_CONSEQUENCES = frozenset({"CommunicationFailed", "Stopped", "Terminated"})
"""Reasons that the surviving nodes report after another node has failed."""
_NODE_REASONS = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "Preempted": "Preempted",
    "NodeLost": "NodeLost",
    "NodeShutdown": "NodeLost",
    "Shutdown": "NodeLost",
    "Terminated": "NodeLost",
    "NodeAffinity": "NodeLost",
    "UnexpectedAdmissionError": "NodeLost",
    "OutOfcpu": "NodeLost",
    "OutOfmemory": "NodeLost",
    "OutOfpods": "NodeLost",
}
_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
}


@dataclass(frozen=True)
class _Verdict:
    """What an exit code of the agent, or a signal, says about a failure."""

    reason: str
    message: str
    is_charged: bool = True
    is_final: bool = False


_BY_CODE = {
    int(ExitCode.FENCED): _Verdict(FENCED_REASON, "a newer attempt owns the output", is_final=True),
    int(ExitCode.INVALID): _Verdict("InvalidConfiguration", "the agent refused its options", is_final=True),
    int(ExitCode.REFUSED): _Verdict(STORAGE_REFUSED, "storage refuses what it allowed before", is_charged=False),
    137: _Verdict("Killed", "the container was killed by SIGKILL"),
    143: _Verdict("Terminated", "the container was ended by SIGTERM", is_charged=False),
}


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended before its time."""

    reason: str
    message: str
    node: int | None = None
    exit_code: int | None = None
    at: datetime | None = None
    pod: str | None = None
    """Name of the pod whose log says more."""
    is_charged: bool = True
    """Whether the failure counts towards maxRestarts; failures that the cluster causes do not."""
    is_final: bool = False
    """Whether another attempt cannot help."""

    @property
    def is_consequence(self) -> bool:
        """Whether the failure of another node may have caused this one."""
        return self.reason in _CONSEQUENCES

    @property
    def rank(self) -> int:
        """Distance from the root cause: lower is closer."""
        if not self.is_charged and not self.is_consequence:
            return 0
        return 2 if self.is_consequence else 1


def root_cause(pods: Sequence[ObservedPod]) -> Failure | None:
    """Returns the failure that explains the others; None while no pod has failed."""
    found = [failure for pod in pods if (failure := failure_of(pod)) is not None]
    if not found:
        return None
    return min(found, key=lambda failure: (failure.rank, _seconds(failure.at), failure.node or 0))


def has_settled(failure: Failure, pods: Sequence[ObservedPod], now: datetime) -> bool:
    """Whether no better explanation can follow."""
    if not failure.is_consequence or all(pod.has_failed or pod.has_succeeded for pod in pods):
        return True
    # A node's clock may be ahead of ours: what seems to come from the future will not settle later.
    return failure.at is not None and abs((now - failure.at).total_seconds()) >= SETTLE_SECONDS


def failure_of(pod: ObservedPod) -> Failure | None:
    """Returns why this pod failed, if it did."""
    if not pod.has_failed:
        return None
    end = pod.trainer if pod.trainer is not None and pod.trainer.exit_code != 0 else pod.restore
    end = end if end is not None and end.exit_code != 0 else None
    if (by_cluster := _by_cluster(pod)) is not None:
        return _failure(pod, end, by_cluster.reason, by_cluster.message, is_charged=False)
    if end is None:
        cause = pod.failure or Cause("PodFailed", "the pod failed and no container says why")
        return _failure(pod, end, cause.reason, cause.message)
    if end.reason == "OOMKilled":
        return _failure(
            pod, end, "OutOfMemory", "the container used more memory than its limit; raise resources.limits.memory, or "
            "lower train_batch_size or num_workers",
        )  # fmt: skip
    return _by_container(pod, end, is_restore=end is pod.restore)


def _by_cluster(pod: ObservedPod) -> Cause | None:
    if pod.failure is not None and pod.failure.reason in _NODE_REASONS:
        return Cause(_NODE_REASONS[pod.failure.reason], pod.failure.message or "the cluster took the pod's place")
    if (reason := disruption_of(pod)) is not None:
        return Cause(reason, f"the cluster ended the pod ({pod.disruption})")
    return None


def _by_container(pod: ObservedPod, end: ContainerEnd, *, is_restore: bool) -> Failure:
    ending = None if is_restore else end.ending
    if ending is not None:
        if ending.exit_code == ExitCode.STOPPED:
            saved = ending.reason == "Stopped"
            message = "the trainer was told to stop, and saved" if saved else ending.message
            return _failure(pod, end, "Stopped", message, is_charged=False)
        final = ends_for_good(ending.reason, ending.exit_code)
        return _failure(pod, end, ending.reason, ending.message, is_final=final)
    if end.exit_code in _BY_CODE:
        verdict = _BY_CODE[end.exit_code]
        said = _last_line(end.message) if verdict.is_final or verdict.reason == STORAGE_REFUSED else ""
        message = said or verdict.message
        return _failure(pod, end, verdict.reason, message, is_charged=verdict.is_charged, is_final=verdict.is_final)
    step = "RestoreFailed" if is_restore else "Failed"
    return _failure(pod, end, step, _last_line(end.message) or f"the container ended with code {end.exit_code}")


def _failure(
    pod: ObservedPod, end: ContainerEnd | None, reason: str, message: str, *, is_charged: bool = True,
    is_final: bool = False,
) -> Failure:  # fmt: skip
    return Failure(
        reason=reason,
        message=message,
        node=pod.index,
        exit_code=None if end is None else end.exit_code,
        at=None if end is None else end.finished_at,
        pod=pod.name,
        is_charged=is_charged,
        is_final=is_final,
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("adapter_agent: error: ") if lines else ""


def _seconds(at: datetime | None) -> float:
    return float("inf") if at is None else at.timestamp()


def disruption_of(pod: ObservedPod) -> str | None:
    """Whether the cluster has announced that it ends the pod, and why."""
    return None if pod.disruption is None else _DISRUPTIONS.get(pod.disruption, "Disrupted")
