"""A decision is carried out in an order in which an end after any step loses nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adapter_api.status import Condition, JobStatus, Restarts
from adapter_operator.decide.decision import Action, Announce, Decision, Launch, Remove, RemoveJob, State
from adapter_operator.decide.second_look import Look, second_look
from adapter_operator.decide.steps import Restore, Step, Tell, steps_of
from adapter_operator.observe.observed import BatchJob, Observed
from tests.operator.support.builders import pod

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def decision(state: State, *actions: Action) -> Decision:
    return Decision(
        state, "Because", "", attempt=2, restarts=Restarts(), last_failure=None, start_time=NOW, actions=actions
    )


def status(reason: str, attempt: int = 2) -> JobStatus:
    running = Condition(type="Running", status="False", reason=reason, message="", last_transition_time=NOW)
    return JobStatus(attempt=attempt, conditions=(running,))


@pytest.mark.parametrize(
    ("actions", "steps"),
    [
        pytest.param((), (Tell(),), id="nothing to do"),
        pytest.param((Remove(1), Launch(2)), (Tell(), Remove(1), Launch(2)), id="another attempt"),
        pytest.param((Announce(2),), (Announce(2), Tell()), id="node 0 is found before the attempt runs"),
        pytest.param((RemoveJob(),), (Tell(), RemoveJob()), id="time to live is over"),
    ],
)
def test_the_status_is_written_before_anything_is_created_or_deleted(
    actions: tuple[Action, ...], steps: tuple[Step, ...]
) -> None:
    assert steps_of(decision(State.STARTING, *actions), JobStatus()) == steps


@pytest.mark.parametrize("reason", ["NameConflict", "Refused"])
def test_what_the_status_says_cannot_be_created_is_tried_before_it_is_told(reason: str) -> None:
    launch = decision(State.STARTING, Announce(2), Remove(1), Launch(2))
    assert steps_of(launch, status(reason)) == (Announce(2), Remove(1), Launch(2), Tell())
    another = (Announce(2), Tell(), Remove(1), Launch(2))
    assert steps_of(launch, status(reason, attempt=1)) == another
    assert steps_of(launch, status("Starting")) == another


def test_only_an_attempt_that_runs_undisturbed_is_restored() -> None:
    assert steps_of(decision(State.RUNNING), JobStatus()) == (Tell(), Restore(2))
    assert steps_of(decision(State.RUNNING, Remove(1)), JobStatus()) == (Tell(), Remove(1))
    assert steps_of(decision(State.SUSPENDED), JobStatus()) == (Tell(),)


NO_PODS = Observed(batch_jobs={2: BatchJob("job-2")})


@pytest.mark.parametrize(
    ("observed", "taken", "look"),
    [
        pytest.param(Observed(), replace(decision(State.RESTARTING), needs_fresh_view=True), Look.EVERYTHING, id="absent"),
        pytest.param(Observed((pod(0, attempt=1),)), decision(State.RESTARTING), Look.PODS, id="old pods are waited for"),
        pytest.param(Observed((pod(0, attempt=1),)), decision(State.SUSPENDED), Look.PODS, id="they save"),
        pytest.param(Observed((pod(0, attempt=2),)), decision(State.RESTARTING), None, id="no old pods"),
        pytest.param(Observed((pod(0, attempt=1),)), decision(State.RESTARTING, Remove(1)), None, id="something to do"),
        pytest.param(NO_PODS, decision(State.STARTING), Look.BATCH_JOB, id="no pods come"),
        pytest.param(NO_PODS, decision(State.QUEUED), Look.BATCH_JOB, id="queued"),
        pytest.param(replace(NO_PODS, pods=(pod(0, attempt=2),)), decision(State.STARTING), Look.BATCH_JOB, id="one of two"),
        pytest.param(
            replace(NO_PODS, pods=(pod(0, attempt=2), pod(1, attempt=2))), decision(State.STARTING), None, id="both of two"
        ),
        pytest.param(NO_PODS, decision(State.RUNNING), None, id="it runs"),
        pytest.param(Observed(), decision(State.PENDING), None, id="not launched"),
    ],
)  # fmt: skip
def test_a_decision_says_what_it_wants_to_see_once_more(observed: Observed, taken: Decision, look: Look | None) -> None:
    assert second_look(observed, taken) is look
