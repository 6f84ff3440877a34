"""The operator under load, beside plain Indexed Jobs, Kubeflow Trainer and an older build: pods, recovery, writes, CPU, memory."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.older_build import COMMIT, older_build
from benchmarks.operator_load.api import connected
from benchmarks.operator_load.observation import observing
from benchmarks.operator_load.peer import Kubeflow
from benchmarks.operator_load.report import Crowded, Floor, Measured, Round, Run, counted, misses, table
from benchmarks.operator_load.scenarios import Load, arrive, lose_pods, quiet, restart
from benchmarks.operator_load.subjects import NAMESPACE, IndexedJob, Operator, Ours, Subject
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubernetes_versions import chosen
from tests.cluster.pins import pins
from tests.cluster.tools import CONTROL_PLANE, Tools, default_cache

TITLE = "The operator, without kubelets"
JOBS, RATE, FAILURES, MANY, ROUNDS = 300, 10.0, 20, 1000, 2
FAKE_NODES = 50
PROGRAMS = (*CONTROL_PLANE, "jobset", "kubeflow-trainer")


def text(run: Run) -> str:
    """What was done, with which versions."""
    version = {pin.folder: pin.version.rpartition(" ")[2] for pin in pins()}
    return f"""\
A control plane on this machine (etcd, API server, controllers, scheduler of Kubernetes {chosen().version}), pods played by KWOK
{version["kwok"]} on {FAKE_NODES} fake nodes, the operator a process beside them, with its default settings and a service account's
token; its webhook, a Deployment of its own, is not there. {run.jobs} jobs of 4 nodes arrive at 10 a second; {FAILURES} of them
lose a pod (exit code 137, DisruptionTarget); the operator is killed and started again, and a job created; {run.jobs} more jobs
arrive at once over 16 connections; in the last round there are {run.crowd.jobs} jobs for a minute of quiet and the last start. The floor is
the very Indexed Job that the operator makes, pods of three containers and all, without an operator. The peer is Kubeflow
Trainer {version["kubeflow_trainer"]} with JobSet {version["jobset"]}, default settings, with their webhooks; its pods have one
container. The older build is that of {COMMIT}, with the same jobs. {len(run.rounds)} rounds in one run, each subject on a
control plane of its own; where rounds differ, the table has a value for each. Times are from just before the request until a watch
shows it. Writes are counted in the API server's audit log (without leases and the nodes' heartbeats), CPU time and memory by the
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
    """What every operator is put through."""
    names = _names("rate", jobs)
    rate = await arrive(load, names, RATE)
    await asyncio.sleep(3)
    recovery = await lose_pods(load, names[:FAILURES])
    restarted = await restart(load, operator, "after-restart")
    return Measured(rate, recovery, restarted, await arrive(load, _names("burst", jobs), None))


async def measure_alone(operator: Operator, jobs: int) -> Measured:
    """Without a crowd."""
    async with under_load(operator) as load:
        return await measure_operator(load, operator, jobs)


async def measure_crowded(operator: Operator, jobs: int, many: int) -> tuple[Measured, Crowded]:
    """And with one."""
    async with under_load(operator) as load:
        measured = await measure_operator(load, operator, jobs)
        more = max(0, many - 2 * jobs - 1)
        if more:
            await arrive(load, _names("more", more), None)
        idle = await quiet(load, settle=15, seconds=60)
        cold = await restart(load, operator, "after-cold-start")
        return measured, Crowded(idle, cold, 2 * jobs + 1 + more)


def _names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number:03}" for number in range(count)]


def measured(jobs: int, many: int, rounds: int) -> Run:
    """All rounds; what has been counted so far is told on stderr."""
    Tools(default_cache()).build(PROGRAMS)
    done: list[Round] = []
    with older_build() as older:
        for number in range(1, rounds):
            floor, peer = asyncio.run(measure_floor(jobs)), asyncio.run(measure_alone(Kubeflow(), jobs))
            before, ours = (asyncio.run(measure_alone(each, jobs)) for each in (Ours(older), Ours()))
            done.append(Round(floor, peer, before, ours))
            _tell(f"round {number}", {"floor": floor, "peer": peer, "older": before, "ours": ours})
        floor, peer = asyncio.run(measure_floor(jobs)), asyncio.run(measure_alone(Kubeflow(), jobs))
        before, older_crowd = asyncio.run(measure_crowded(Ours(older), jobs, many))
        ours, crowd = asyncio.run(measure_crowded(Ours(), jobs, many))
    done.append(Round(floor, peer, before, ours))
    last: dict[str, Floor | Measured | Crowded] = {
        "floor": floor,
        "peer": peer,
        "older": before,
        "ours": ours,
        "older crowd": older_crowd,
        "crowd": crowd,
    }
    _tell(f"round {rounds}", last)
    return Run(done, older_crowd, crowd, jobs)


def _tell(which: str, subjects: dict[str, Floor | Measured | Crowded]) -> None:
    print(json.dumps({which: counted(subjects)}, indent=1), file=sys.stderr, flush=True)


def written(run: Run) -> str:
    """The section's text of what was measured."""
    return f"{text(run)}\n{table(run)}\n\n{misses(run)}\n\n{CAUSES}"


def measure() -> str:
    """The section's text."""
    return written(measured(JOBS, MANY, ROUNDS))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures with fewer jobs, or only one of the four in the burst, and prints everything that was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", choices=["floor", "peer", "older", "ours"])
    options = parser.parse_args(arguments)
    if options.only is None:
        print(written(measured(options.jobs, options.many, options.rounds)))
        return
    Tools(default_cache()).build(PROGRAMS)
    with older_build() as older:
        only: Floor | Measured
        if options.only == "floor":
            only = asyncio.run(measure_floor(options.jobs))
        else:
            operators: dict[str, Operator] = {"peer": Kubeflow(), "older": Ours(older), "ours": Ours()}
            only = asyncio.run(measure_alone(operators[options.only], options.jobs))
    _tell("one", {options.only: only})


if __name__ == "__main__":
    main()
