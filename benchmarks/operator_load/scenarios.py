"""What happens to jobs and operator: arrivals, lost pods, a killed operator, quiet."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.operator_load.api import CONNECTIONS, MERGE, Api, Refused
from benchmarks.operator_load.meter import Meter, Used
from benchmarks.operator_load.observation import Observation, Seen
from benchmarks.operator_load.subjects import NAMESPACE, NODES, Operator, Subject
from tests.cluster.control_plane import ControlPlane

Plain = dict[str, Any]
PATIENCE_SECONDS = 240.0


@dataclass(frozen=True)
class Load:
    """One subject on one control plane."""

    plane: ControlPlane
    api: Api
    subject: Subject
    observed: Observation

    def meter(self) -> Meter:
        """Measures from now on."""
        return Meter(self.plane, self.subject.pids(), self.subject.users)

    async def create(self, name: str) -> float:
        """Creates a job; returns the monotonic time just before."""
        started = time.monotonic()
        await self.api.send("POST", self.subject.collection, self.subject.manifest(name))
        return started


@dataclass(frozen=True)
class Arrivals:
    """Seconds per job from just before its creation, and of all."""

    to_pods: list[float]
    to_running: list[float]
    to_told: list[float]
    total: float
    """From the first creation until the last job runs and says so."""
    used: Used


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def arrive(load: Load, names: Sequence[str], a_second: float | None) -> Arrivals:
    """Jobs are created at a rate, or as fast as CONNECTIONS connections take them.

    Raises:
        TimeoutError: not all of them run in the end.
    """
    meter, began = load.meter(), time.monotonic()
    slots = asyncio.Semaphore(CONNECTIONS)
    created: dict[str, float] = {}

    async def create(name: str, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        async with slots:
            created[name] = await load.create(name)

    starts = [began + (0.0 if a_second is None else number / a_second) for number in range(len(names))]
    await asyncio.gather(*(create(name, at) for name, at in zip(names, starts, strict=True)))
    jobs = [load.observed.of(name) for name in names]
    await load.observed.until(
        "all jobs run and say so", lambda: all(job.running_at and job.told_at for job in jobs), PATIENCE_SECONDS
    )
    used = await asyncio.to_thread(meter.stop)
    ends = [max(job.running_at or 0.0, job.told_at or 0.0) for job in jobs]
    befores = [created[name] for name in names]
    return Arrivals(
        to_pods=[(job.created_at or 0.0) - before for job, before in zip(jobs, befores, strict=True)],
        to_running=[(job.running_at or 0.0) - before for job, before in zip(jobs, befores, strict=True)],
        to_told=[(job.told_at or 0.0) - before for job, before in zip(jobs, befores, strict=True)],
        total=max(ends) - began,
        used=used,
    )


@dataclass(frozen=True)
class Recovery:
    """Seconds from a pod's failure, per job."""

    to_gang: list[float]
    """Until NODES pods live that are all new."""
    used: Used


async def lose_pods(load: Load, names: Sequence[str], pause: float = 0.1) -> Recovery:
    """The last pod of each of these running jobs fails, one after the other.

    Raises:
        TimeoutError: a gang is not replaced.
    """
    meter, hits = load.meter(), []
    for name in names:
        seen = load.observed.of(name)
        old = seen.live()
        victim = max(old.values())
        hits.append((seen, frozenset(old), await _fail(load.api, victim)))
        await asyncio.sleep(pause)
    await load.observed.until(
        "every gang is replaced", lambda: all(_replaced_at(*hit) is not None for hit in hits), PATIENCE_SECONDS
    )
    await asyncio.sleep(3)  # what else is done about it counts, too
    used = await asyncio.to_thread(meter.stop)
    return Recovery([(_replaced_at(*hit) or 0.0) - hit[2] for hit in hits], used)


def _replaced_at(seen: Seen, old: frozenset[str], after: float) -> float | None:
    whole = (at for at, live, _ in seen.gangs if at >= after and len(live) >= NODES and not live & old)
    return next(whole, None)


async def _fail(api: Api, name: str) -> float:
    """What a kubelet would say of a pod that it had to end; returns the time just before."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
    pod = await api.send("GET", path)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": now, "finishedAt": now}}
    containers = [
        {"name": each["name"], "image": each["image"], "imageID": "", "ready": False, "restartCount": 0, "state": ended}
        for each in pod["spec"]["containers"]
    ]
    kept = [c for c in pod["status"]["conditions"] if c["type"] not in {"Ready", "ContainersReady"}]
    told = [
        {"type": "Ready", "status": "False", "reason": "PodFailed", "lastTransitionTime": now},
        {"type": "ContainersReady", "status": "False", "reason": "PodFailed", "lastTransitionTime": now},
        {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": now},
    ]
    status = {"phase": "Failed", "conditions": [*kept, *told], "containerStatuses": containers}
    started = time.monotonic()
    await api.send("PATCH", f"{path}/status", {"status": status}, MERGE)
    return started


@dataclass(frozen=True)
class Restart:
    """From the start of a process that follows a killed one."""

    to_accepted: float
    """Seconds until a job could be created; while an operator is killed, its webhook may refuse them."""
    to_pods: float
    """Seconds until that job has its pods."""
    used: Used
    """Until 10 s after those pods."""


async def restart(load: Load, operator: Operator, name: str) -> Restart:
    """SIGKILL, a second without an operator, another one, and a new job.

    Raises:
        TimeoutError: the new job gets no pods.
        Refused: it cannot be created.
    """
    operator.kill()
    await asyncio.sleep(1)
    operator.start()
    started, meter = time.monotonic(), load.meter()
    while True:
        try:
            await load.create(name)
            break
        except Refused:
            if time.monotonic() - started > PATIENCE_SECONDS:
                raise
            await asyncio.sleep(0.05)
    accepted, seen = time.monotonic(), load.observed.of(name)
    await load.observed.until("the new job has its pods", lambda: seen.created_at is not None, PATIENCE_SECONDS)
    await asyncio.sleep(10)
    used = await asyncio.to_thread(meter.stop)
    return Restart(accepted - started, (seen.created_at or 0.0) - started, used=used)


async def quiet(load: Load, settle: float, seconds: float) -> Used:
    """Nothing happens for so long, after a while that is not measured."""
    await asyncio.sleep(settle)
    meter = load.meter()
    await asyncio.sleep(seconds)
    return await asyncio.to_thread(meter.stop)
