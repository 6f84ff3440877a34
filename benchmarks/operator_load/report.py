"""Figures of floor and ours beside their goals, as the section's text."""

import os
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
    """Measured of ours."""

    rate: Arrivals
    recovery: Recovery
    restart: Restart
    burst: Arrivals
    idle: Used
    cold: Restart
    jobs: int
    """Jobs that were there in `restart`."""
    many: int
    """Jobs that were there in `idle` and `cold`."""


def table(floor: Floor, ours: Measured, jobs: int) -> str:
    """A row for each figure; `jobs` arrived in each of the two ways."""
    idle, share = ours.idle, 300 / jobs
    memory = max(ours.cold.used.peak_mib, idle.peak_mib)
    rows = [
        ("10 jobs/s: create → 4 pods, p50 / p99, s", _pods(floor.rate), "5-6 / 10-14", _pods(ours.rate), "≤ 0.15 / 0.6"),
        (f"burst of {jobs}: create → 4 pods p99, all running, s", _burst(floor.burst), "35-46, 38-49",
         _burst(ours.burst), "≤ 15, ≤ 18"),
        ("a pod fails → the whole gang replaced, p50 / p99, s", "never", "5.3 / 6", _recovery(ours.recovery), "≤ 2"),
        ("API writes per job: all, the operator's", f"{floor.rate.used.all_writes / jobs:.1f}", "40, 5.1",
         f"{ours.rate.used.all_writes / jobs:.1f}, {ours.rate.used.own_writes / jobs:.1f}", "≤ 30"),
        ("operator CPU for 300 jobs: 10 jobs/s, burst, s", NONE, "8.6, 8.0",
         f"{share * ours.rate.used.cpu['operator']:.1f}, {share * ours.burst.used.cpu['operator']:.1f}", "≤ 6"),
        ("its peak memory, MiB", NONE, "149", f"{ours.rate.used.peak_mib:.0f}", "≤ 150"),
        ("API server CPU for 300 jobs, s", _api_server(floor.rate, share), "41", _api_server(ours.rate, share), ""),
        ("CPU of everything together, ms a job", _together(floor.rate, jobs), NONE, _together(ours.rate, jobs), ""),
        (f"killed and started with {ours.jobs} jobs: next job's pods, s", NONE, "2-3, creation refused meanwhile",
         f"{ours.restart.to_pods:.1f}", "≤ 3"),
        (f"the same with {ours.many} jobs (cold start), s", NONE, NONE, f"{ours.cold.to_pods:.1f}", "≤ 30"),
        (f"{ours.many} jobs: peak memory, MiB", NONE, NONE, f"{memory:.0f}", "≤ 250"),
        (f"{ours.many} jobs, quiet: writes a minute, CPU %", NONE, NONE,
         f"{60 * idle.own_writes / idle.seconds:.0f}, {100 * idle.cpu['operator'] / idle.seconds:.1f}", "0, ≤ 10"),
    ]  # fmt: skip
    head = ["| figure | floor | peer | ours | goal |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def misses(floor: Floor, ours: Measured, jobs: int) -> str:
    """Every goal that was not reached, and by how much; the load on this machine, from which most follow."""
    rate, burst, idle = ours.rate, ours.burst, ours.idle
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
        ("the same with many jobs, s", ours.cold.to_pods, 30.0),
        ("peak memory with many jobs, MiB", max(ours.cold.used.peak_mib, idle.peak_mib), 250.0),
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


def _api_server(arrivals: Arrivals, share: float) -> str:
    return f"{share * arrivals.used.cpu['kube-apiserver']:.0f}"


def _together(arrivals: Arrivals, jobs: int) -> str:
    return f"{1000 * sum(arrivals.used.cpu.values()) / jobs:.0f}"


def counted(floor: Floor | None, ours: Measured | None) -> dict[str, object]:
    """Everything that was counted, for whoever looks for causes."""
    found: dict[str, object] = {}
    for subject, measured in (("floor", floor), ("ours", ours)):
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
