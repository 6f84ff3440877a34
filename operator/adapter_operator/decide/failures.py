"""PURE: pods of an attempt -> why it failed, whose fault that is, and whether trying again can help."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapter_api.progress import FENCED_REASON, ExitCode, ends_for_good
from adapter_operator.observe.observed import ContainerEnd, ObservedPod

SETTLE_SECONDS = 10
"""How long a failure that looks like the consequence of another one waits for that one to show."""

STORAGE_REFUSED = "StorageRefused"
"""Credentials that were withdrawn, a bucket that is gone: mended by somebody, while the job stays as it is."""
_CONSEQUENCES = frozenset({"CommunicationFailed", "Stopped", "Terminated"})
"""What survivors of somebody else's failure report."""
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
_BY_CODE = {
    int(ExitCode.FENCED): (FENCED_REASON, "a newer attempt owns the output", True, True),
    int(ExitCode.INVALID): ("InvalidConfiguration", "the agent refused its options", True, True),
    int(ExitCode.REFUSED): (STORAGE_REFUSED, "storage refuses what it allowed before", False, False),
    137: ("Killed", "the container was killed by SIGKILL", True, False),
    143: ("Terminated", "the container was ended by SIGTERM", False, False),
}
"""Exit code -> reason, message, whether it is charged, whether it is final."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended before its time."""

    reason: str
    message: str
    node: int | None = None
    exit_code: int | None = None
    at: datetime | None = None
    pod: str | None = None
    """Whose log tells more."""
    is_charged: bool = True
    """Whether it counts towards maxRestarts: failures of the cluster's making do not."""
    is_final: bool = False
    """Whether trying again cannot help."""

    @property
    def is_consequence(self) -> bool:
        """Whether another node's failure may have caused it."""
        return self.reason in _CONSEQUENCES

    @property
    def rank(self) -> int:
        """The lower, the closer to the root cause."""
        if not self.is_charged and not self.is_consequence:
            return 0
        return 2 if self.is_consequence else 1


def root_cause(pods: Sequence[ObservedPod]) -> Failure | None:
    """The failure that explains the others; None while no pod has failed."""
    found = [failure for pod in pods if (failure := failure_of(pod)) is not None]
    if not found:
        return None
    return min(found, key=lambda failure: (failure.rank, _seconds(failure.at), failure.node or 0))


def has_settled(failure: Failure, pods: Sequence[ObservedPod], now: datetime) -> bool:
    """Whether no better explanation is to be expected."""
    if not failure.is_consequence or all(pod.has_failed or pod.has_succeeded for pod in pods):
        return True
    # A node's clock may be ahead of ours: what seems to come from the future will not settle later.
    return failure.at is not None and abs((now - failure.at).total_seconds()) >= SETTLE_SECONDS


def failure_of(pod: ObservedPod) -> Failure | None:
    """Why this pod failed, if it did."""
    if not pod.has_failed:
        return None
    end = pod.trainer if pod.trainer is not None and pod.trainer.exit_code != 0 else pod.restore
    end = end if end is not None and end.exit_code != 0 else None
    by_cluster = _by_cluster(pod)
    if by_cluster is not None:
        reason, message = by_cluster
        return _failure(pod, end, reason, message, is_charged=False)
    if end is None:
        reason, message = pod.failure or ("PodFailed", "the pod failed and no container says why")
        return _failure(pod, end, reason, message)
    if end.reason == "OOMKilled":
        return _failure(
            pod, end, "OutOfMemory", "the container used more memory than its limit; raise resources.limits.memory, or "
            "lower train_batch_size or num_workers",
        )  # fmt: skip
    return _by_container(pod, end, is_restore=end is pod.restore)


def _by_cluster(pod: ObservedPod) -> tuple[str, str] | None:
    if pod.failure is not None and pod.failure[0] in _NODE_REASONS:
        return _NODE_REASONS[pod.failure[0]], pod.failure[1] or "the cluster took the pod's place"
    if pod.disruption is not None:
        return _DISRUPTIONS.get(pod.disruption, "Disrupted"), f"the cluster ended the pod ({pod.disruption})"
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
        reason, message, is_charged, is_final = _BY_CODE[end.exit_code]
        said = _last_line(end.message) if is_final or reason == STORAGE_REFUSED else ""
        return _failure(pod, end, reason, said or message, is_charged=is_charged, is_final=is_final)
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
    """What the cluster does to a pod that it is about to end."""
    return None if pod.disruption is None else _DISRUPTIONS.get(pod.disruption, "Disrupted")
