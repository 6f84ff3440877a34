"""The operator under load, beside a plain Indexed Job and Kubeflow Trainer: time to pods, recovery, writes, CPU and memory, with 1,000 jobs."""

import argparse
import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.operator_load.api import connected
from benchmarks.operator_load.observation import observing
from benchmarks.operator_load.peer import Kubeflow
from benchmarks.operator_load.report import Crowded, Floor, Measured, counted, misses, table
from benchmarks.operator_load.scenarios import Load, arrive, lose_pods, quiet, restart
from benchmarks.operator_load.subjects import NAMESPACE, IndexedJob, Operator, Ours, Subject
from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import Tools, default_cache

TITLE = "The operator, without kubelets"
JOBS, RATE, FAILURES, MANY = 300, 10.0, 20, 1000
FAKE_NODES = 50
TEXT = f"""\
A control plane on this machine (etcd, API server, controllers, scheduler), pods played by KWOK on {FAKE_NODES} fake nodes, the
operator a process beside them, with its default settings and a service account's token; its webhook, a Deployment of its own,
is not there. {JOBS} jobs of 4 nodes arrive at 10 a second; {FAILURES} of them lose a pod (exit code 137, DisruptionTarget); the
operator is killed and started again, and a job created; {JOBS} more jobs arrive at once over 16 connections; there are {MANY}
jobs for a minute of quiet and the last start. The floor is a plain Indexed Job of as many pods with one container and no
operator. The peer is Kubeflow Trainer v2.0.0 with JobSet v0.10.1, default settings, with their webhooks; its jobs have one
container, too. All in one run, each on a control plane of its own. Times are from just before the request until a watch shows
it. Writes are counted in the API server's audit log (without leases and the nodes' heartbeats), CPU time and memory by the
kernel.
"""
CAUSES = """\
What a job of ours costs the cluster beyond the floor: its own creation and one status (each write of a custom resource takes the
API server 5 to 10 ms of CPU), ConfigMap, NetworkPolicy and Service, the two objects that the endpoint controllers make of it, and
pods of three containers with volumes where the floor's have one without. Cut so far: the status is written once where it was
three times; the Service comes when node 0 has an address, which spares the endpoint controllers two writes; agents mount no
configuration; in the operator, a watch of pods beside kopf's of jobs, and JSON in place of YAML for the
configuration. Tried without gain: uvloop (150 in place of 158 µs a request, 55 in place of 54 µs an event), merge patch or JSON
patch in place of server-side apply for the status.
"""


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


async def measure_operator(load: Load, operator: Operator, jobs: int) -> Measured:
    """What both operators are put through."""
    names = _names("rate", jobs)
    rate = await arrive(load, names, RATE)
    await asyncio.sleep(3)
    recovery = await lose_pods(load, names[:FAILURES])
    restarted = await restart(load, operator, "after-restart")
    return Measured(rate, recovery, restarted, await arrive(load, _names("burst", jobs), None))


async def measure_peer(jobs: int) -> Measured:
    """Without a crowd."""
    peer = Kubeflow()
    async with under_load(peer) as load:
        return await measure_operator(load, peer, jobs)


async def measure_ours(jobs: int, many: int) -> tuple[Measured, Crowded]:
    """And with one."""
    ours = Ours()
    async with under_load(ours) as load:
        measured = await measure_operator(load, ours, jobs)
        more = max(0, many - 2 * jobs - 1)
        if more:
            await arrive(load, _names("more", more), None)
        idle = await quiet(load, settle=15, seconds=60)
        cold = await restart(load, ours, "after-cold-start")
        return measured, Crowded(idle, cold, 2 * jobs + 1 + more)


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:03}" for number in range(count)]


def measure() -> str:
    """The section's text."""
    floor, peer = asyncio.run(measure_floor(JOBS)), asyncio.run(measure_peer(JOBS))
    ours, crowded = asyncio.run(measure_ours(JOBS, MANY))
    rows, missed = table(floor, peer, ours, crowded, JOBS), misses(floor, ours, crowded, JOBS)
    return f"{TEXT}\n{rows}\n\n{missed}\n\n{CAUSES}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures with fewer jobs, or only one of the three, and prints everything that was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--only", choices=["floor", "peer", "ours"])
    options = parser.parse_args(arguments)
    only, jobs = options.only, options.jobs
    floor = asyncio.run(measure_floor(jobs)) if only in {None, "floor"} else None
    peer = asyncio.run(measure_peer(jobs)) if only in {None, "peer"} else None
    ours, crowded = asyncio.run(measure_ours(jobs, options.many)) if only in {None, "ours"} else (None, None)
    print(json.dumps(counted({"floor": floor, "peer": peer, "ours": ours, "crowd": crowded}), indent=1))
    if floor is not None and peer is not None and ours is not None and crowded is not None:
        print(table(floor, peer, ours, crowded, jobs), misses(floor, ours, crowded, jobs), sep="\n\n")


if __name__ == "__main__":
    main()
