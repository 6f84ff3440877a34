"""PURE: which of the things that a decision rests on are looked at once more, in the cluster itself."""

from enum import Enum, auto

from adapter_operator.decide.decision import Decision, State
from adapter_operator.observe.observed import Observed


class Look(Enum):
    """What a watch may have missed."""

    EVERYTHING = auto()
    """Pods, and a queued attempt's Job: at once, since nothing is destroyed because a watch has not shown something."""
    PODS = auto()
    """Now and then: old ones are waited for, whose end may have come while nobody watched."""
    BATCH_JOB = auto()
    """Now and then: an attempt does not get its pods; its Job may wait, have failed, or be gone."""


def second_look(observed: Observed, decision: Decision) -> Look | None:
    """What to look at before the decision is carried out; None where it rests on what was seen."""
    if decision.needs_fresh_view:
        return Look.EVERYTHING
    if decision.actions:
        return None
    if decision.state in {State.RESTARTING, State.SUSPENDED}:
        return Look.PODS if any(pod.attempt < decision.attempt for pod in observed.pods) else None
    if decision.state in {State.STARTING, State.QUEUED, State.PENDING} and decision.attempt in observed.batch_jobs:
        pods = observed.of(decision.attempt)
        return None if pods and len(pods) == pods[0].nodes else Look.BATCH_JOB
    return None
