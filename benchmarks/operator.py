"""The operator under load, beside a plain Indexed Job: time to pods, recovery, writes, CPU and memory, with 1,000 jobs."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.operator_load.api import connected
from benchmarks.operator_load.meter import Used
from benchmarks.operator_load.observation import observing
from benchmarks.operator_load.scenarios import (
    Arrivals,
    Load,
    Recovery,
    Restart,
    arrive,
    lose_pods,
    quantile,
    quiet,
    restart,
)
from benchmarks.operator_load.subjects import NAMESPACE, IndexedJob, Ours, Subject
from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import Tools, default_cache

TITLE = "The operator, without kubelets"
JOBS, RATE, FAILURES, MANY = 300, 10.0, 20, 1000
FAKE_NODES = 50


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
    many: int
    """Jobs that were there in `idle` and `cold`."""


@contextlib.asynccontextmanager
async def under_load(subject: Subject) -> AsyncIterator[Load]:
    """A control plane of its own for a subject, once a first job has run and gone."""
    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(Path(folder) / "plane", Tools(default_cache()), fake_nodes=FAKE_NODES, audit=True)
        try:
            await asyncio.to_thread(plane.start)
            plane.kubectl("create", "namespace", NAMESPACE)
            plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", NAMESPACE, "--timeout=30s")
            await asyncio.to_thread(subject.install, plane)
            async with connected(plane.kubeconfig) as api, observing(api, subject) as observed:
                load = Load(plane, api, subject, observed)
                await arrive(load, ["warm-up"], None)
                await api.send("DELETE", f"{subject.collection}/warm-up?propagationPolicy=Background")
                await observed.until("it is gone", lambda: not observed.of("warm-up").live(), 30)
                await asyncio.sleep(2)
                yield load
        finally:
            subject.stop()
            plane.stop()


async def measure_floor(jobs: int) -> Floor:
    """Both ways of arriving."""
    async with under_load(IndexedJob()) as load:
        rate = await arrive(load, _names("rate", jobs), RATE)
        return Floor(rate, await arrive(load, _names("burst", jobs), None))


async def measure_ours(jobs: int, many: int) -> Measured:
    """Everything, on one control plane: the later parts find the jobs of the earlier ones."""
    ours = Ours()
    async with under_load(ours) as load:
        names = _names("rate", jobs)
        rate = await arrive(load, names, RATE)
        await asyncio.sleep(3)
        recovery = await lose_pods(load, names[:FAILURES])
        restarted = await restart(load, ours, "after-restart")
        burst = await arrive(load, _names("burst", jobs), None)
        more = max(0, many - 2 * jobs - 1)
        if more:
            await arrive(load, _names("more", more), None)
        idle = await quiet(load, settle=15, seconds=60)
        cold = await restart(load, ours, "after-cold-start")
        return Measured(rate, recovery, restarted, burst, idle, cold, 2 * jobs + 1 + more)


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:03}" for number in range(count)]


def measure(jobs: int = JOBS, many: int = MANY) -> str:
    """The section's text."""
    floor = asyncio.run(measure_floor(jobs))
    ours = asyncio.run(measure_ours(jobs, many))
    return f"{table(floor, ours, jobs)}"


def table(floor: Floor, ours: Measured, jobs: int) -> str:
    """Figures beside their goals."""
    per_job = jobs / 300
    idle = ours.idle
    rows = [
        (
            "10 jobs/s: create → 4 pods, p50 / p99, s",
            f"{quantile(floor.rate.to_pods, 0.5):.2f} / {quantile(floor.rate.to_pods, 0.99):.2f}",
            f"{quantile(ours.rate.to_pods, 0.5):.2f} / {quantile(ours.rate.to_pods, 0.99):.2f}",
            "≤ 0.15 / 0.6",
        ),
        (
            f"burst of {jobs}: create → 4 pods p99, all running, s",
            f"{quantile(floor.burst.to_pods, 0.99):.1f}, {floor.burst.total:.1f}",
            f"{quantile(ours.burst.to_pods, 0.99):.1f}, {ours.burst.total:.1f}",
            "≤ 15, ≤ 18",
        ),
        (
            "a pod fails → the whole gang replaced, p50, s",
            "never",
            f"{quantile(ours.recovery.to_gang, 0.5):.1f}",
            "≤ 2",
        ),
        (
            "writes per job at 10 jobs/s: all, the operator's",
            f"{floor.rate.used.all_writes / jobs:.1f}, –",
            f"{ours.rate.used.all_writes / jobs:.1f}, {ours.rate.used.own_writes / jobs:.1f}",
            "≤ 30",
        ),
        (
            "operator CPU for 300 jobs, at 10 jobs/s and in the burst, s",
            "–",
            f"{ours.rate.used.cpu['operator'] / per_job:.1f}, {ours.burst.used.cpu['operator'] / per_job:.1f}",
            "≤ 6",
        ),
        ("its peak memory at 10 jobs/s, MiB", "–", f"{ours.rate.used.peak_mib:.0f}", "≤ 150"),
        (
            "API server CPU for 300 jobs at 10 jobs/s, s",
            f"{floor.rate.used.cpu['kube-apiserver'] / per_job:.1f}",
            f"{ours.rate.used.cpu['kube-apiserver'] / per_job:.1f}",
            "",
        ),
        (
            "CPU of everything together, ms a job",
            f"{1000 * sum(floor.rate.used.cpu.values()) / jobs:.0f}",
            f"{1000 * sum(ours.rate.used.cpu.values()) / jobs:.0f}",
            "",
        ),
        ("operator killed and started: next job's pods, s", "–", f"{ours.restart.to_pods:.1f}", "≤ 3"),
        (f"{ours.many} jobs: cold start, next job's pods, s", "–", f"{ours.cold.to_pods:.1f}", "≤ 30"),
        (f"{ours.many} jobs: its peak memory, MiB", "–", f"{max(ours.cold.used.peak_mib, idle.peak_mib):.0f}", "≤ 250"),
        (
            f"{ours.many} jobs, quiet: its writes a minute, CPU %",
            "–",
            f"{60 * idle.own_writes / idle.seconds:.0f}, {100 * idle.cpu['operator'] / idle.seconds:.1f}",
            "0, ≤ 10",
        ),
    ]
    head = ["| figure | floor | ours | goal |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures with fewer jobs, or only one of the two, and prints everything that was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--only", choices=["floor", "ours"])
    options = parser.parse_args(arguments)
    floor = None if options.only == "ours" else asyncio.run(measure_floor(options.jobs))
    ours = None if options.only == "floor" else asyncio.run(measure_ours(options.jobs, options.many))
    for name, part in _parts(floor, ours):
        print(name, json.dumps(part, indent=1), file=sys.stderr)
    if floor is not None and ours is not None:
        print(table(floor, ours, options.jobs))


def _parts(*measured: Floor | Measured | None) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for each in measured:
        if each is None:
            continue
        for name, part in vars(each).items():
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
                    told[figure] = [round(quantile(value, share), 3) for share in (0.5, 0.99)]
                elif isinstance(value, float):
                    told[figure] = round(value, 2)
            found.append((f"{type(each).__name__} {name}", told))
    return found


if __name__ == "__main__":
    main()
