"""What two watches, of pods and of jobs, have shown of each job, and when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.operator_load.api import Api
from benchmarks.operator_load.subjects import NAMESPACE, NODES, Subject

Plain = dict[str, Any]


@dataclass
class Pod:
    """One pod as it was last seen."""

    name: str
    is_live: bool
    """Whether it has neither ended nor is being deleted."""
    runs: bool


@dataclass
class Seen:
    """One job; times are monotonic."""

    pods: dict[str, Pod] = field(default_factory=dict)
    """By UID."""
    created_at: float | None = None
    """When the last of its pods had been created."""
    running_at: float | None = None
    """When all its pods first ran."""
    told_at: float | None = None
    """When the job itself first said so."""
    gangs: list[tuple[float, frozenset[str], frozenset[str]]] = field(default_factory=list)
    """After each event: when, UIDs of live pods, UIDs of those that run."""

    def live(self) -> dict[str, str]:
        """UID -> name of live pods."""
        return {uid: pod.name for uid, pod in self.pods.items() if pod.is_live}


class Observation:
    """All jobs of a subject."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.jobs: dict[str, Seen] = {}

    def of(self, name: str) -> Seen:
        """One job, seen or not yet."""
        return self.jobs.setdefault(name, Seen())

    def on_pod(self, at: float, kind: str, raw: Plain) -> None:
        """An event of the watch of pods."""
        metadata, status = raw["metadata"], raw.get("status", {})
        name = (metadata.get("labels") or {}).get(self._subject.pod_label)
        if name is None:
            return
        phase = status.get("phase")
        is_live = kind != "DELETED" and "deletionTimestamp" not in metadata and phase not in {"Failed", "Succeeded"}
        seen = self.of(name)
        seen.pods[metadata["uid"]] = Pod(metadata["name"], is_live, is_live and phase == "Running")
        live = frozenset(uid for uid, pod in seen.pods.items() if pod.is_live)
        runs = frozenset(uid for uid, pod in seen.pods.items() if pod.runs)
        seen.gangs.append((at, live, runs))
        if len(live) >= NODES and seen.created_at is None:
            seen.created_at = at
        if len(runs) >= NODES and seen.running_at is None:
            seen.running_at = at

    def on_job(self, at: float, kind: str, raw: Plain) -> None:
        """An event of the watch of jobs."""
        seen = self.of(raw["metadata"]["name"])
        if kind != "DELETED" and seen.told_at is None and self._subject.is_running(raw):
            seen.told_at = at

    async def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Waits.

        Raises:
            TimeoutError: it does not come to pass.
        """
        end = asyncio.get_running_loop().time() + seconds
        while not holds():
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def observing(api: Api, subject: Subject) -> AsyncIterator[Observation]:
    """Watches as long as the context lasts; a watch that ends, ends the whole measurement."""
    found = Observation(subject)
    listed = [asyncio.Event(), asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        watches = [
            tasks.create_task(api.watch(f"/api/v1/namespaces/{NAMESPACE}/pods", found.on_pod, listed[0])),
            tasks.create_task(api.watch(subject.collection, found.on_job, listed[1])),
        ]
        for each in listed:
            await each.wait()
        yield found
        for watch in watches:
            watch.cancel()
