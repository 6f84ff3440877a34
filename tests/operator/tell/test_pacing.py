"""A status is written when it tells something, and seldom otherwise."""

from adapter_api.status import JobStatus, Nodes
from adapter_operator.settings import Settings
from adapter_operator.tell.pacing import (
    COUNTS_SECONDS,
    PASSING_AT_MOST_SECONDS,
    PASSING_EACH_SECONDS,
    PASSING_SECONDS,
    Pacing,
)
from tests.operator.support.builders import KEY, status

NEW = JobStatus()
STARTING = status("Starting")
PENDING = status("Pending")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pacing() -> tuple[Pacing, Clock]:
    clock = Clock()
    return Pacing(Settings(), clock), clock


def test_a_change_of_state_is_written_at_once() -> None:
    pace, _ = pacing()
    pace.written(KEY)
    assert pace.wait(KEY, STARTING, status("Running"), 1) == 0
    assert pace.wait(KEY, NEW, PENDING, 0) == 0


def test_that_an_attempt_starts_is_written_only_if_that_is_still_so_a_while_later() -> None:
    pace, clock = pacing()
    assert pace.wait(KEY, NEW, STARTING, 0) == PASSING_SECONDS
    clock.now += PASSING_SECONDS / 2
    assert pace.wait(KEY, NEW, STARTING, 0) == PASSING_SECONDS / 2
    assert pace.wait(KEY, NEW, status("Running"), 0) == 0
    clock.now += PASSING_SECONDS / 2
    assert pace.wait(KEY, NEW, STARTING, 0) == 0


def test_of_many_that_start_at_once_one_after_the_other_is_told_and_each_in_time() -> None:
    pace, _ = pacing()
    waits = [pace.wait(("n", str(number)), NEW, STARTING, 0) for number in range(1000)]
    assert waits[0] == PASSING_SECONDS
    assert abs(waits[5] - waits[4] - PASSING_EACH_SECONDS) < 1e-6
    assert max(waits) == PASSING_AT_MOST_SECONDS


def test_figures_of_an_attempt_that_does_not_run_yet_wait() -> None:
    pace, clock = pacing()
    counted = PENDING.model_copy(update={"nodes": Nodes(active=2)})
    pace.written(KEY)
    clock.now += COUNTS_SECONDS - 1
    assert pace.wait(KEY, PENDING, counted, 0) == 1
    clock.now += 1
    assert pace.wait(KEY, PENDING, counted, 0) == 0


def test_figures_become_rarer_the_more_jobs_run() -> None:
    pace, _ = pacing()
    running = status("Running")
    counted = running.model_copy(update={"nodes": Nodes(ready=1)})
    pace.written(KEY)
    assert pace.wait(KEY, running, counted, 1000) > pace.wait(KEY, running, counted, 1)


def test_a_job_of_the_same_name_starts_with_nothing_written() -> None:
    pace, _ = pacing()
    pace.written(KEY)
    pace.forget(KEY)
    assert pace.wait(KEY, PENDING, PENDING.model_copy(update={"nodes": Nodes(active=2)}), 0) == 0
