"""What the benchmark of the operator makes of its figures, and that all builds and the floor get the same job."""

import json
from collections import Counter

import pytest

from benchmarks.operator_load.meter import Used
from benchmarks.operator_load.report import Crowded, Floor, Measured, Round, Run, misses, table
from benchmarks.operator_load.scenarios import Arrivals, Recovery, Restart
from benchmarks.operator_load.subjects import NODES, IndexedJob, Ours
from tests.operator.support.builders import job


def used(operator: float, peak: float = 80.0) -> Used:
    """Ten jobs' worth."""
    cpu = {"kube-apiserver": 1.0, "operator": operator}
    return Used(60.0, cpu, peak, Counter({"operator: create jobs": 10, "job-controller: create pods": 40}))


def arrivals(total: float, operator: float = 0.1, peak: float = 80.0) -> Arrivals:
    return Arrivals([0.1] * 10, [0.2] * 10, [0.3] * 10, total, used(operator, peak))


def measured(burst: float, operator: float, peak: float = 80.0) -> Measured:
    return Measured(
        arrivals(1.0, operator, peak), Recovery([1.0] * 10, used(operator)), Restart(0.1, 1.0, used(operator)),
        arrivals(burst, operator, peak),
    )  # fmt: skip


def run_of(bursts: list[float], operator: float = 0.1, peak: float = 80.0) -> Run:
    """Rounds with a floor of 10 s, a peer of 30 s and an older build of 0.1 CPU seconds."""
    floor, peer, older = Floor(arrivals(1.0), arrivals(10.0)), measured(30.0, 0.2), measured(15.0, 0.1)
    crowd = Crowded(Used(60.0, {"operator": 1.2}, 80.0, Counter()), Restart(0.1, 1.0, used(0.1)), 1000)
    return Run([Round(floor, peer, older, measured(burst, operator, peak)) for burst in bursts], crowd, crowd, 10)


def test_a_run_that_reaches_all_says_so() -> None:
    assert misses(run_of([12.0, 13.0])).startswith("Every goal is reached.")


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (run_of([14.0, 13.0]), "all running in the burst, times the floor: 1.35 where 1.3 is asked"),
        (run_of([16.0]), "the same, times the peer: 0.53 where 0.5 is asked"),
        (run_of([12.0], operator=0.12), "operator CPU at 10 jobs/s, times the older build: 1.20 where 1.1 is asked"),
        (run_of([12.0], peak=100.0), "peak memory, times the older build: 1.25 where 1.15 is asked"),
    ],
    ids=["floor", "peer", "cpu", "memory"],
)
def test_a_goal_is_held_against_its_own_measure_in_the_mean_of_all_rounds(run: Run, told: str) -> None:
    assert told in misses(run)


def test_rounds_that_differ_stand_side_by_side() -> None:
    rows = table(run_of([12.0, 13.0])).splitlines()
    burst = next(row for row in rows if row.startswith("| burst of 10"))
    assert burst.split(" | ")[1:5] == ["0.1, 10.0", "0.1, 30.0", "0.1, 15.0", "0.1, 12.0; 0.1, 13.0"]
    assert {row.count("|") for row in rows} == {7}


def test_the_floor_is_the_job_that_the_operator_makes_of_the_same_document() -> None:
    document, floor = Ours().manifest("same"), IndexedJob().manifest("same")
    assert job(document["spec"]).spec.nodes == floor["spec"]["completions"] == NODES
    pod = floor["spec"]["template"]["spec"]
    assert [each["name"] for each in (*pod["initContainers"], *pod["containers"])] == ["restore", "sync", "trainer"]
    assert "ownerReferences" not in json.dumps(floor)
