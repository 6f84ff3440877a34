"""Time is the API server's: no machine's clock, wrong or set while the operator runs, ends anything before its time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.status import JobStatus
from adapter_operator.clock import ServerClock
from adapter_operator.decide.decide import decide
from adapter_operator.decide.decision import State
from adapter_operator.decide.failures import SETTLE_SECONDS, has_settled, root_cause
from tests.operator.support.builders import NOW, after, failed, job, observed, pod, status

HOUR = 3600.0


@dataclass
class Machine:
    """Both clocks of one machine."""

    wall: datetime = NOW
    monotonic: float = 50.0

    def pass_time(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic += seconds


def clock_of(machine: Machine) -> ServerClock:
    return ServerClock(lambda: machine.monotonic, lambda: machine.wall)


@pytest.mark.parametrize("error", [-HOUR, 0.0, HOUR])
def test_the_servers_time_is_told_whatever_the_machine_believes(error: float) -> None:
    machine = Machine(wall=after(error))
    clock = clock_of(machine)
    assert clock.now() == after(error)  # nobody has told yet
    clock.hear(format_datetime(NOW, usegmt=True))
    assert clock.now() == NOW
    machine.pass_time(7.5)
    assert clock.now() == after(7.5)


@given(jumps=st.lists(st.tuples(st.floats(-HOUR, HOUR), st.floats(0, 30)), max_size=8))
def test_a_machine_whose_clock_is_set_again_and_again_does_not_change_the_time(
    jumps: list[tuple[float, float]],
) -> None:
    machine, passed = Machine(), 0.0
    clock = clock_of(machine)
    clock.hear(format_datetime(NOW, usegmt=True))
    for jump, pause in jumps:
        machine.wall += timedelta(seconds=jump)
        machine.pass_time(pause)
        passed += pause
        clock.hear(format_datetime(after(passed).replace(microsecond=0), usegmt=True))
        assert abs((clock.now() - after(passed)).total_seconds()) <= 2


def test_answers_within_a_second_of_each_other_do_not_turn_time_back() -> None:
    machine = Machine()
    clock = clock_of(machine)
    clock.hear(format_datetime(NOW, usegmt=True))
    machine.pass_time(1.9)
    before = clock.now()
    clock.hear(format_datetime(after(1), usegmt=True))
    assert clock.now() == before


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_header_that_means_nothing_changes_nothing(date: str | None) -> None:
    clock = clock_of(Machine())
    clock.hear(date)
    assert clock.now() == NOW


@given(skew=st.floats(-HOUR, HOUR), passed=st.floats(0, 599))
def test_a_node_or_an_earlier_operator_with_another_clock_ends_no_job_before_its_deadline(
    skew: float, passed: float
) -> None:
    # What others have stamped lies an hour off: the job was just started, as far as the API server knows.
    stamped = status(startTime=after(min(skew, 0.0) if skew > -HOUR / 2 else 0.0))
    decision = decide(job({"activeDeadlineSeconds": 7200 + 600}, stamped), observed(pod(0), pod(1)), after(passed))
    assert decision.state is State.RUNNING
    assert decision.actions == ()


@given(ahead=st.floats(-HOUR, HOUR))
def test_a_job_that_seems_to_start_in_the_future_is_neither_ended_nor_held_up(ahead: float) -> None:
    stamped: JobStatus = status(startTime=after(ahead))
    running = decide(job({"activeDeadlineSeconds": 3 * 3600}, stamped), observed(pod(0), pod(1)), NOW)
    assert running.state is State.RUNNING
    fresh = decide(job({"activeDeadlineSeconds": 3 * 3600}), observed(attempts=()), after(ahead))
    assert fresh.start_time == after(ahead)
    assert fresh.state is State.STARTING


@pytest.mark.parametrize("error", [-HOUR, HOUR])
def test_a_failure_that_is_stamped_by_a_clock_far_off_is_still_answered(error: float) -> None:
    pods = (failed(0, code=143, at=error), pod(1))
    cause = root_cause(pods)
    assert cause is not None
    assert cause.is_consequence
    assert has_settled(cause, pods, NOW)
    recent = (failed(0, code=143, at=-SETTLE_SECONDS / 2), pod(1))
    cause = root_cause(recent)
    assert cause is not None
    assert not has_settled(cause, recent, NOW)
