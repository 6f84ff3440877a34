"""PURE: what tools read that know no AdapterTrainingJobs: the conditions of kstatus, which Flux, kpt and Argo CD understand.

Ready: the job is what its specification asks for, and stays so. Reconciling, only while it is true: it is on its way there.
Stalled, only while it is true: it will not get there unless somebody changes something
(https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md).
"""

from adapter_operator.decide.decision import State

Facts = dict[str, tuple[str, str, str]]
"""Type of a condition -> status, reason, message."""
MAX_MESSAGE = 1024
"""The whole message stands in the condition that tells it in our own words."""
READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
TYPES = (READY, RECONCILING, STALLED)
SUSPENDING = "Suspending"
"""Reason of the state Suspended while pods still save and end."""


def facts(state: State, reason: str, message: str) -> Facts:
    """The conditions of a job in a state."""
    text = message[:MAX_MESSAGE]
    if state in {State.FAILED, State.INVALID}:
        return {READY: ("False", reason, text), STALLED: ("True", reason, text)}
    if state is State.COMPLETE or (state is State.SUSPENDED and reason != SUSPENDING):
        return {READY: ("True", reason, text)}
    return {READY: ("False", reason, text), RECONCILING: ("True", reason, text)}
