"""Figures of floor, peer and ours beside their goals, as the section's text."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """Measured of ours where there are many jobs."""

    idle: Used
    cold: Restart
    jobs: int

    @property
    def peak_mib(self) -> float:
        """Of the operator, in both parts."""
        return max(self.cold.used.peak_mib, self.idle.peak_mib)


def table(floor: Floor, peer: Measured, ours: Measured, crowded: Crowded, jobs: int) -> str:
    """A row for each figure; `jobs` arrived in each of the two ways."""
    idle, share = crowded.idle, 300 / jobs
    three: list[tuple[str, Callable[[Floor | Measured], str], str]] = [
        ("10 jobs/s: create → 4 pods, p50 / p99, s", lambda each: _pods(each.rate), "≤ 0.15 / 0.6"),
        (f"burst of {jobs}: create → 4 pods p99, all running, s", lambda each: _burst(each.burst), "≤ 15, ≤ 18"),
        ("API writes per job, all", lambda each: f"{each.rate.used.all_writes / jobs:.1f}", "≤ 30"),
        ("API server CPU for 300 jobs, s", lambda each: f"{share * each.rate.used.cpu['kube-apiserver']:.0f}", ""),
        ("CPU of everything together, ms a job", lambda each: _together(each.rate, jobs), ""),
    ]
    two: list[tuple[str, Callable[[Measured], str], str]] = [
        ("a pod fails → the whole gang replaced, p50 / p99, s", lambda each: _recovery(each.recovery), "≤ 2"),
        ("API writes per job, the operator's", lambda each: f"{each.rate.used.own_writes / jobs:.1f}", ""),
        ("operator CPU for 300 jobs: 10 jobs/s, burst, s",
         lambda each: ", ".join(f"{share * part.used.cpu['operator']:.1f}" for part in (each.rate, each.burst)), "≤ 6"),
        ("its peak memory, MiB", lambda each: f"{each.rate.used.peak_mib:.0f}", "≤ 150"),
        (f"killed and started with {jobs} jobs: next job accepted, its pods, s",
         lambda each: f"{each.restart.to_accepted:.1f}, {each.restart.to_pods:.1f}", "at once, ≤ 3"),
    ]  # fmt: skip
    one = [
        (f"the same with {crowded.jobs} jobs (cold start), s", f"{crowded.cold.to_pods:.1f}", "≤ 30"),
        (f"{crowded.jobs} jobs: peak memory, MiB", f"{crowded.peak_mib:.0f}", "≤ 250"),
        (f"{crowded.jobs} jobs, quiet: writes a minute, CPU %",
         f"{60 * idle.own_writes / idle.seconds:.0f}, {100 * idle.cpu['operator'] / idle.seconds:.1f}", "0, ≤ 10"),
    ]  # fmt: skip
    rows = [
        *((name, told(floor), told(peer), told(ours), goal) for name, told, goal in three),
        *((name, NONE, told(peer), told(ours), goal) for name, told, goal in two),
        *((name, NONE, NONE, told, goal) for name, told, goal in one),
    ]
    head = ["| figure | floor | peer | ours | goal |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def misses(floor: Floor, ours: Measured, crowded: Crowded, jobs: int) -> str:
    """Every goal that was not reached, and by how much; the load on this machine, from which most follow."""
    rate, burst, idle = ours.rate, ours.burst, crowded.idle
    reached = [
        ("create → 4 pods p50 at 10 jobs/s, s", quantile(rate.to_pods, 0.5), 0.15),
        ("the same, p99, s", quantile(rate.to_pods, 0.99), 0.6),
        ("create → 4 pods p99 in the burst, s", quantile(burst.to_pods, 0.99), 15.0),
        ("all running in the burst, s", burst.total, 18.0),
        ("gang replaced p50, s", quantile(ours.recovery.to_gang, 0.5), 2.0),
        ("API writes per job", rate.used.all_writes / jobs, 30.0),
        ("operator CPU for 300 jobs at 10 jobs/s, s", 300 / jobs * rate.used.cpu["operator"], 6.0),
        ("operator CPU for 300 jobs in the burst, s", 300 / jobs * burst.used.cpu["operator"], 6.0),
        ("peak memory, MiB", rate.used.peak_mib, 150.0),
        ("next job's pods after a restart, s", ours.restart.to_pods, 3.0),
        ("the same with many jobs, s", crowded.cold.to_pods, 30.0),
        ("peak memory with many jobs, MiB", crowded.peak_mib, 250.0),
        ("writes a minute when quiet", 60 * idle.own_writes / idle.seconds, 0.0),
    ]
    missed = [f"{name}: {value:.2f} where {goal:g} is asked" for name, value, goal in reached if value > goal]
    busy = [
        100 * sum(each.used.cpu.values()) / each.used.seconds / (os.cpu_count() or 1) for each in (floor.rate, rate)
    ]
    told = "Every goal is reached." if not missed else f"Goals missed: {'; '.join(missed)}."
    return (
        f"{told} At 10 jobs/s the processes measured kept {busy[0]:.0f} % of all cores busy for the floor and {busy[1]:.0f} % for "
        "ours, the load itself not counted; near 100 %, times are those of waiting for a core."
    )


def _pods(arrivals: Arrivals) -> str:
    return f"{quantile(arrivals.to_pods, 0.5):.2f} / {quantile(arrivals.to_pods, 0.99):.2f}"


def _burst(arrivals: Arrivals) -> str:
    return f"{quantile(arrivals.to_pods, 0.99):.1f}, {arrivals.total:.1f}"


def _recovery(recovery: Recovery) -> str:
    return f"{quantile(recovery.to_gang, 0.5):.1f} / {quantile(recovery.to_gang, 0.99):.1f}"


def _together(arrivals: Arrivals, jobs: int) -> str:
    return f"{1000 * sum(arrivals.used.cpu.values()) / jobs:.0f}"


def counted(subjects: Mapping[str, Floor | Measured | Crowded | None]) -> dict[str, object]:
    """Everything that was counted, for whoever looks for causes."""
    found: dict[str, object] = {}
    for subject, measured in subjects.items():
        for name, part in ({} if measured is None else vars(measured)).items():
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
