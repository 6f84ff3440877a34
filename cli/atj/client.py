"""Jobs on a cluster from Python: what `atj submit`, `list`, `describe`, `logs`, `wait`, `suspend`, `scale` and `delete` do.

Errors are `atj.errors.CommandError`, whose message says what to do, and `adapter_api.document.InvalidDocument`, which lists
every fault of a job.
"""

import builtins
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, Self

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import Document, parse, read
from adapter_api.job import KIND, AdapterTrainingJob
from atj.cluster import changes, job_view
from atj.cluster.api_server import Cluster
from atj.cluster.changes import Condition
from atj.cluster.logs import Container, LogReader, follow_logs, read_logs
from atj.errors import CommandError

__all__ = ["CommandError", "Condition", "Job", "Jobs", "LogLine"]

JobLike = str | Path | Mapping[str, Any] | AdapterTrainingJob
"""A file, plain data, or the model."""
ContainerName = Literal["trainer", "sync", "restore"]


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read."""

    name: str
    namespace: str
    state: str
    """Pending, Running, Complete, Failed and others; `kubectl get atj` shows the same."""
    step: int | None
    """Newest optimizer step; None before the first report."""
    total_steps: int | None
    loss: float | None
    checkpoint: str | None
    """Address of the newest committed checkpoint."""
    checkpoint_step: int | None
    nodes: int
    restarts: int
    raw: dict[str, Any]
    """The whole object."""

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        """The job that the API server describes."""
        status = job_view.status_in(raw)
        progress, checkpoint = status.progress, status.checkpoint
        return cls(
            name=raw["metadata"]["name"],
            namespace=raw["metadata"]["namespace"],
            state=job_view.state_in(raw),
            step=None if progress is None else progress.step,
            total_steps=None if progress is None else progress.total_steps,
            loss=None if progress is None else progress.loss,
            checkpoint=None if checkpoint is None else checkpoint.uri,
            checkpoint_step=None if checkpoint is None else checkpoint.step,
            nodes=raw["spec"].get("nodes", 1),
            restarts=status.restarts.total,
            raw=raw,
        )

    def holds(self, condition: str) -> bool:
        """Whether a condition such as Complete, Running or StorageHealthy is True."""
        return job_view.holds(self.raw, condition)


@dataclass(frozen=True)
class LogLine:
    """A line that a node has written."""

    node: int
    text: str


class Jobs:
    """The jobs of one namespace; found as kubectl finds a cluster. Use it in a `with` block, or close it."""

    def __init__(
        self, namespace: str | None = None, *, context: str | None = None, kubeconfig: str | Path | None = None
    ) -> None:
        """By default the namespace and the cluster of the current context, and inside a pod those of its service account.

        Raises:
            CommandError: there is no cluster to be found.
        """
        self._cluster = Cluster.connect(None if kubeconfig is None else Path(kubeconfig), context, namespace)

    @property
    def namespace(self) -> str:
        """Where jobs are looked for."""
        return self._cluster.namespace

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._cluster.close()

    def submit(self, job: JobLike, *, name: str | None = None, nodes: int | None = None, dry_run: bool = False) -> Job:
        """Creates a job, after checking it here.

        Args:
            job: A YAML file, plain data, or an AdapterTrainingJob.
            name: Instead of metadata.name.
            nodes: Instead of spec.nodes.
            dry_run: Let the cluster check it, and create nothing.

        Raises:
            InvalidDocument: the job has faults.
            CommandError: there is one of that name, or the cluster refuses it.
        """
        document = _document(job)
        changes.named_namespace(document, validate_for_cluster(document), self.namespace)
        return Job.of(changes.create(self._cluster, document, name=name, nodes=nodes, dry_run=dry_run))

    def list(self, *, everywhere: bool = False) -> builtins.list[Job]:
        """The jobs of the namespace, or of the whole cluster, by namespace and name."""
        found = [Job.of(raw) for raw in self._cluster.jobs(everywhere=everywhere)]
        return sorted(found, key=lambda job: (job.namespace, job.name))

    def get(self, name: str) -> Job:
        """One job.

        Raises:
            CommandError: there is none of that name.
        """
        return Job.of(self._cluster.job(name))

    def wait(
        self,
        name: str,
        until: Condition = "Complete",
        *,
        timeout: float | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """The job once a condition holds; `on_progress` is given it every second until then.

        Raises:
            CommandError: the job failed, has ended without the condition, or `timeout` seconds are over.
        """

        def show(raw: dict[str, Any]) -> None:
            if on_progress is not None:
                on_progress(Job.of(raw))

        return Job.of(changes.until(self._cluster, name, until, timeout, show))

    def logs(
        self,
        name: str,
        *,
        node: int | None = None,
        container: ContainerName = "trainer",
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[LogLine]:
        """Lines of the newest attempt's nodes; with `follow`, of all that come until the job has ended.

        Args:
            name: Of the job.
            node: Only this one's.
            container: The trainer's, or the agent's before (restore) or beside it (sync).
            tail: Last lines of each node; by default all.
            follow: Go on through restarts and new pods.
        """
        self._cluster.job(name)
        lines: SimpleQueue[LogLine | BaseException | None] = SimpleQueue()
        reader = LogReader(self._cluster, Container(container), lambda index, text: lines.put(LogLine(index, text)))

        def read_all() -> None:
            try:
                if follow:
                    follow_logs(name, node, reader, tail)
                else:
                    read_logs(name, node, reader, tail)
            except Exception as error:  # noqa: BLE001 - handed to whoever reads the lines
                lines.put(error)
            lines.put(None)

        threading.Thread(target=read_all, daemon=True).start()
        return _until_none(lines)

    def suspend(self, name: str) -> None:
        """Lets a job save, and frees its pods until it is resumed."""
        changes.change(self._cluster, name, {"suspend": True})

    def resume(self, name: str) -> None:
        """Lets a suspended job go on from its last committed checkpoint."""
        changes.change(self._cluster, name, {"suspend": False})

    def scale(self, name: str, nodes: int) -> None:
        """Changes the number of nodes; a running job saves first."""
        changes.change(self._cluster, name, {"nodes": nodes})

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Deletes a job and its pods, by default waiting until they are gone; what it stored stays."""
        self._cluster.delete(name)
        if wait:
            changes.until_gone(self._cluster, name)


def _document(job: JobLike) -> Document:
    if isinstance(job, str | Path):
        return read(job, of_kind=KIND)
    if isinstance(job, AdapterTrainingJob):
        job = job.model_dump(mode="json", exclude_unset=True)
    return parse(json.dumps(dict(job), default=str), "the job")


def _until_none(lines: "SimpleQueue[LogLine | BaseException | None]") -> Iterator[LogLine]:
    while (line := lines.get()) is not None:
        if isinstance(line, BaseException):
            raise line
        yield line
