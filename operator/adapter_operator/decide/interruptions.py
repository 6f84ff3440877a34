"""PURE: what interruptions cost, and how much time a stop needs: from what nodes measured and said last."""

import math
from datetime import datetime
from typing import NamedTuple

from adapter_api.job import AdapterTrainingJob
from adapter_api.kubernetes import DEFAULT_GRACE_SECONDS
from adapter_api.progress import ExitCode, Progress
from adapter_api.status import MAX_INTERRUPTIONS, Interruption, JobStatus
from adapter_operator.decide.decision import Decision, State
from adapter_operator.observe.observed import Observed

GRACE_FACTOR = 2
"""Whoever drains one node often drains many: saving and uploading then take longer than they did."""
LONGEST_GRACE_SECONDS = 3600
MAX_MESSAGE = 1024


class Losses(NamedTuple):
    """The part of the status that tells of interruptions."""

    interruptions: tuple[Interruption, ...]
    lost_steps: int | None


def losses(before: JobStatus, observed: Observed, decision: Decision, now: datetime) -> Losses:
    """The interruptions so far, after a decision.

    Steps are lost between the last one that an attempt reported and the one that the next went on from. The latter is known
    only from that attempt itself: what was saved last may still be committed while its pods end.
    """
    known = tuple(_completed(record, observed) for record in before.interruptions)
    if before.attempt and decision.attempt > before.attempt:
        known = (*known, _record(before, observed, decision, now))
        return Losses(known[-MAX_INTERRUPTIONS:], before.lost_steps)
    resumed = _resumed_step(observed.progress, decision, known)
    if resumed is None:
        return Losses(known, before.lost_steps)
    settled = tuple(record if record.lost_steps is not None else _settled(record, resumed) for record in known)
    newly = [new.lost_steps or 0 for old, new in zip(known, settled, strict=True) if old.lost_steps is None]
    return Losses(settled, (before.lost_steps or 0) + sum(newly) if newly else before.lost_steps)


def grace_seconds(job: AdapterTrainingJob, seen: Progress | None) -> int | None:
    """What the next attempt's pods get to stop in; None while nothing is measured, or where the job says it.

    Twice the time for the step under way, the save and the upload; at least the default, and at most an hour.
    """
    if job.spec.termination_grace_period_seconds is not None:
        return None
    before = job.status.termination_grace_period_seconds
    if seen is None or seen.save_seconds is None or seen.commit_seconds is None:
        return before
    remaining = seen.total_steps - seen.step
    step = seen.eta_seconds / remaining if seen.eta_seconds and remaining > 0 else 0.0
    needed = GRACE_FACTOR * (step + seen.save_seconds + seen.commit_seconds)
    rounded = math.ceil(min(needed, LONGEST_GRACE_SECONDS) / 10) * 10
    return max(DEFAULT_GRACE_SECONDS, rounded)


def _record(before: JobStatus, observed: Observed, decision: Decision, now: datetime) -> Interruption:
    """The end of the attempt that stands in `before`."""
    record = Interruption(
        attempt=before.attempt,
        reason=decision.reason,
        at=now,
        step=_reported_step(before, observed.progress),
    )
    return _completed(record, observed)


def _reported_step(before: JobStatus, seen: Progress | None) -> int | None:
    """How far the attempt came, as far as it was asked; what stands in the status may be of the one before it."""
    steps = [seen.step] if seen is not None and seen.resumed_step is not None else []
    shown, last = before.progress, before.interruptions[-1:]
    if shown is not None and shown.updated_at is not None and all(shown.updated_at > record.at for record in last):
        steps.append(shown.step)
    return max(steps, default=None)


def _completed(record: Interruption, observed: Observed) -> Interruption:
    """With what the pods of that attempt said when they ended, which may come after the next attempt was decided on."""
    if record.lost_steps is not None:
        return record
    ends = [pod.trainer.ending for pod in observed.pods if pod.attempt == record.attempt and pod.trainer is not None]
    words = [ending for ending in ends if ending is not None]
    step = max((record.step or 0, *(ending.step for ending in words)))
    unfinished = [word for word in words if word.exit_code == ExitCode.STOPPED and word.reason != "Stopped"]
    message = unfinished[0].message[:MAX_MESSAGE] if unfinished else record.message
    return record.model_copy(update={"step": step or record.step, "message": message})


def _resumed_step(seen: Progress | None, decision: Decision, known: tuple[Interruption, ...]) -> int | None:
    """What the attempt after the interruptions went on from, once it trains; never what a pod that is going says."""
    if decision.state is not State.RUNNING or seen is None or not known or known[-1].attempt >= decision.attempt:
        return None
    return seen.resumed_step if seen.updated_at >= known[-1].at else None


def _settled(record: Interruption, resumed: int) -> Interruption:
    lost = 0 if record.step is None else max(0, record.step - resumed)
    return record.model_copy(update={"resumed_step": resumed, "lost_steps": lost})
