"""Figures of floor, peer, an older build and this one beside their goals, as the section's text."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.operator_load.meter import Used
from benchmarks.operator_load.scenarios import Arrivals, Recovery, Restart, quantile

NONE = "-"


@dataclass(frozen=True)
class Floor:
    """Measured of plain Indexed Jobs."""

    rate: Arrivals
    burst: Arrivals


@dataclass(frozen=True)
class Measured:
    """Measured of an operator, on one control plane: the later parts find the jobs of the earlier ones."""

    rate: Arrivals
    recovery: Recovery
    restart: Restart
    burst: Arrivals


@dataclass(frozen=True)
class Crowded:
    """Measured of a build of ours where there are many jobs."""

    idle: Used
    cold: Restart
    jobs: int

    @property
    def peak_mib(self) -> float:
        """Of the operator, in both parts."""
        return max(self.cold.used.peak_mib, self.idle.peak_mib)

    @property
    def idle_percent(self) -> float:
        """CPU of the operator when nothing happens."""
        return 100 * self.idle.cpu["operator"] / self.idle.seconds

    @property
    def idle_writes(self) -> float:
        """Of the operator, a minute, when nothing happens."""
        return 60 * self.idle.own_writes / self.idle.seconds


@dataclass(frozen=True)
class Round:
    """All four, one after another."""

    floor: Floor
    peer: Measured
    older: Measured
    ours: Measured


@dataclass(frozen=True)
class Run:
    """Some rounds, and the crowds of the last one."""

    rounds: Sequence[Round]
    older_crowd: Crowded
    crowd: Crowded
    jobs: int
    """How many arrived in each of the two ways."""


def table(run: Run) -> str:
    """A row for each figure; where the rounds differ, one value for each."""
    share = 300 / run.jobs
    everybody: list[tuple[str, Callable[[Floor | Measured], str], str]] = [
        ("10 jobs/s: create → 4 pods, p50 / p99, s", lambda each: _pods(each.rate), "≤ 0.15 / 0.6"),
        (f"burst of {run.jobs}: create → 4 pods p99, all running, s", lambda each: _burst(each.burst),
         "all running ≤ 1.3 times the floor, ≤ half the peer"),
        ("API writes per job, all", lambda each: f"{each.rate.used.all_writes / run.jobs:.1f}", "≤ 30"),
        ("API server CPU for 300 jobs, s", lambda each: f"{share * each.rate.used.cpu['kube-apiserver']:.0f}", ""),
        ("CPU of everything together, ms a job: 10 jobs/s, burst",
         lambda each: f"{_together(each.rate, run.jobs)}, {_together(each.burst, run.jobs)}", ""),
    ]  # fmt: skip
    operators: list[tuple[str, Callable[[Measured], str], str]] = [
        ("a pod fails → the whole gang replaced, p50 / p99, s", lambda each: _recovery(each.recovery), "≤ 2"),
        ("API writes per job, the operator's", lambda each: f"{each.rate.used.own_writes / run.jobs:.1f}", ""),
        ("operator CPU for 300 jobs: 10 jobs/s, burst, s",
         lambda each: ", ".join(f"{share * part.used.cpu['operator']:.1f}" for part in (each.rate, each.burst)),
         "≤ 1.1 times older, ≤ 6"),
        ("its peak memory, MiB", lambda each: f"{each.rate.used.peak_mib:.0f}", "≤ 1.15 times older, ≤ 150"),
        (f"killed and started with {run.jobs} jobs: next job accepted, its pods, s",
         lambda each: f"{each.restart.to_accepted:.1f}, {each.restart.to_pods:.1f}", "at once, ≤ 3"),
    ]  # fmt: skip
    crowd = run.crowd.jobs
    crowds: list[tuple[str, Callable[[Crowded], str], str]] = [
        (f"the same with {crowd} jobs (cold start), s", lambda each: f"{each.cold.to_pods:.1f}", "≤ 30"),
        (f"{crowd} jobs: peak memory, MiB", lambda each: f"{each.peak_mib:.0f}", "≤ 250"),
        (f"{crowd} jobs, quiet: writes a minute, CPU %",
         lambda each: f"{each.idle_writes:.0f}, {each.idle_percent:.1f}", "0, ≤ 10"),
    ]  # fmt: skip
    floors, peers = [each.floor for each in run.rounds], [each.peer for each in run.rounds]
    olders, ours = [each.older for each in run.rounds], [each.ours for each in run.rounds]
    rows = [
        *((name, *(_each(told, of) for of in (floors, peers, olders, ours)), goal) for name, told, goal in everybody),
        *((name, NONE, *(_each(told, of) for of in (peers, olders, ours)), goal) for name, told, goal in operators),
        *((name, NONE, NONE, told(run.older_crowd), told(run.crowd), goal) for name, told, goal in crowds),
    ]
    head = ["| figure | floor | peer | older build | ours | goal |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def misses(run: Run) -> str:
    """Every goal that was not reached in the mean of all rounds, and by how much; the load on this machine, from which most follow."""
    share = 300 / run.jobs

    def ours(figure: Callable[[Measured], float]) -> float:
        return mean(figure(each.ours) for each in run.rounds)

    def against_older(figure: Callable[[Measured], float]) -> float:
        return ours(figure) / mean(figure(each.older) for each in run.rounds)

    burst = ours(lambda each: each.burst.total)
    reached = [
        ("create → 4 pods p50 at 10 jobs/s, s", ours(lambda each: quantile(each.rate.to_pods, 0.5)), 0.15),
        ("the same, p99, s", ours(lambda each: quantile(each.rate.to_pods, 0.99)), 0.6),
        ("all running in the burst, times the floor", burst / mean(each.floor.burst.total for each in run.rounds), 1.3),
        ("the same, times the peer", burst / mean(each.peer.burst.total for each in run.rounds), 0.5),
        ("gang replaced p50, s", ours(lambda each: quantile(each.recovery.to_gang, 0.5)), 2.0),
        ("API writes per job", ours(lambda each: each.rate.used.all_writes / run.jobs), 30.0),
        (
            "operator CPU at 10 jobs/s, times the older build",
            against_older(lambda each: each.rate.used.cpu["operator"]),
            1.1,
        ),
        (
            "operator CPU in the burst, times the older build",
            against_older(lambda each: each.burst.used.cpu["operator"]),
            1.1,
        ),
        ("operator CPU for 300 jobs at 10 jobs/s, s", ours(lambda each: share * each.rate.used.cpu["operator"]), 6.0),
        ("operator CPU for 300 jobs in the burst, s", ours(lambda each: share * each.burst.used.cpu["operator"]), 6.0),
        ("peak memory, times the older build", against_older(lambda each: each.rate.used.peak_mib), 1.15),
        ("peak memory, MiB", ours(lambda each: each.rate.used.peak_mib), 150.0),
        ("next job's pods after a restart, s", ours(lambda each: each.restart.to_pods), 3.0),
        ("the same with many jobs, s", run.crowd.cold.to_pods, 30.0),
        ("peak memory with many jobs, MiB", run.crowd.peak_mib, 250.0),
        ("writes a minute when quiet", run.crowd.idle_writes, 0.0),
        ("CPU when quiet, times the older build", run.crowd.idle_percent / max(run.older_crowd.idle_percent, 0.1), 1.1),
    ]
    missed = [f"{name}: {value:.2f} where {goal:g} is asked" for name, value, goal in reached if value > goal]
    told = "Every goal is reached." if not missed else f"Goals missed: {'; '.join(missed)}."
    busy = [_busy([each.floor.rate for each in run.rounds]), _busy([each.ours.rate for each in run.rounds])]
    return (
        f"{told} At 10 jobs/s the processes measured kept {busy[0]:.0f} % of all cores busy for the floor and {busy[1]:.0f} % for "
        "ours, the load itself not counted; near 100 %, times are those of waiting for a core."
    )


def _each(told: Callable[[Any], str], rounds: Sequence[Any]) -> str:
    return "; ".join(dict.fromkeys(map(told, rounds)))


def _busy(arrivals: Sequence[Arrivals]) -> float:
    return mean(100 * sum(each.used.cpu.values()) / each.used.seconds / (os.cpu_count() or 1) for each in arrivals)


def _pods(arrivals: Arrivals) -> str:
    return f"{quantile(arrivals.to_pods, 0.5):.2f} / {quantile(arrivals.to_pods, 0.99):.2f}"


def _burst(arrivals: Arrivals) -> str:
    return f"{quantile(arrivals.to_pods, 0.99):.1f}, {arrivals.total:.1f}"


def _recovery(recovery: Recovery) -> str:
    return f"{quantile(recovery.to_gang, 0.5):.1f} / {quantile(recovery.to_gang, 0.99):.1f}"


def _together(arrivals: Arrivals, jobs: int) -> str:
    return f"{1000 * sum(arrivals.used.cpu.values()) / jobs:.0f}"


def counted(subjects: Mapping[str, Floor | Measured | Crowded]) -> dict[str, object]:
    """Everything that was counted, for whoever looks for causes."""
    found: dict[str, object] = {}
    for subject, measured in subjects.items():
        for name, part in vars(measured).items():
            used = part if isinstance(part, Used) else getattr(part, "used", None)
            if used is None:
                continue
            told: dict[str, object] = {
                "seconds": round(used.seconds, 1),
                "cpu": {who: round(value, 2) for who, value in used.cpu.items()},
                "peak_mib": round(used.peak_mib),
                "writes": dict(used.writes.most_common()),
            }
            for figure, value in vars(part).items():
                if isinstance(value, list):
                    told[figure] = [round(quantile(value, each), 3) for each in (0.5, 0.99)]
            found[f"{subject} {name}"] = told
    return found
