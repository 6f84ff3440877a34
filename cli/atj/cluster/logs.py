"""`atj logs`: what a job's nodes write, of all of them at once, across restarts when it is followed."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

import typer

from adapter_api.names import ATTEMPT_LABEL, INDEX_LABEL, RESTORE, SYNC, TRAINER
from atj.cluster.api_server import Cluster
from atj.cluster.connection import Context, JobName, Kubeconfig, Namespace, connected
from atj.cluster.job_view import has_ended, state_in, status_in, why
from atj.errors import CommandError
from atj.terminal import errors, say, shown

POLL_SECONDS = 1.0
AGAIN_SECONDS = 0.5
"""A stream that broke off is opened again after this pause."""


class Container(StrEnum):
    """Whose log: the trainer's, or the agent's before and beside it."""

    trainer = TRAINER
    sync = SYNC
    restore = RESTORE


def logs_command(
    job: JobName,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the logs until the job ends, across restarts and new pods.")
    ] = False,
    node: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="INDEX",
            help="Print only the logs of this node; by default of all nodes.",
            show_default=False,
        ),
    ] = None,
    container: Annotated[
        Container,
        typer.Option(
            "--container", "-c", help="Container to print: the trainer, or the agent's sync or restore container."
        ),
    ] = (Container.trainer),
    tail: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="LINES",
            help="Number of last lines to print per node; by default all lines.",
            show_default=False,
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of a job's nodes, each line prefixed with its node.

    If all pods of a failed attempt are gone, the command prints the last lines of the failed container from the job's
    status.
    """
    with connected(kubeconfig, context, namespace) as cluster:
        found = cluster.job(job)
        several = node is None and found["spec"].get("nodes", 1) > 1

        def write(index: int, line: str) -> None:
            front = f"[{index}] " if several else ""
            for part in line.rstrip("\r").split("\r"):  # a bar that is drawn over and over
                typer.echo(front + shown(part))

        reader = LogReader(cluster, container, write)
        if follow:
            follow_logs(job, node, reader, tail)
        elif not read_logs(job, node, reader, tail):
            _from_status(cluster, found)


def read_logs(job: str, node: int | None, reader: "LogReader", tail: int | None) -> bool:
    """Reads what the pods of the newest attempt have written so far; returns whether there are any."""
    pods = _readable(reader.cluster.pods(job), node, reader.container)
    attempt = max((_label(pod, ATTEMPT_LABEL) for pod in pods), default=0)
    for pod in sorted(pods, key=lambda pod: _label(pod, INDEX_LABEL)):
        if _label(pod, ATTEMPT_LABEL) == attempt:
            reader.once(pod, tail)
    return bool(pods)


def follow_logs(job: str, node: int | None, reader: "LogReader", tail: int | None) -> None:
    """Reads what all attempts write until the job has ended."""
    is_first, told, cluster = True, None, reader.cluster
    while True:
        found = cluster.find_job(job)
        is_over = found is None or has_ended(found)
        for pod in _readable(cluster.pods(job), node, reader.container):
            reader.follow(pod, tail if is_first else None)
        state = None if found is None else state_in(found)
        if found is not None and state not in {told, "Running"}:
            say(errors(), f"{cluster.namespace}/{job}: {_stands(found)}", "dim")
        is_first, told = False, state
        if is_over:
            reader.join()
            return
        time.sleep(POLL_SECONDS)


@dataclass
class LogReader:
    """Reads the logs of a job's pods, one thread for each that is followed."""

    cluster: Cluster
    container: Container
    write: Callable[[int, str], None]
    """Given each line with its node in front; one at a time."""
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def once(self, pod: dict[str, Any], tail: int | None) -> None:
        """What there is of a pod's log."""
        lines = self.cluster.log(pod["metadata"]["name"], self.container, follow=False, tail=tail, since=None)
        for line in lines:
            self._hand_on(pod, line.partition(b" ")[2])

    def follow(self, pod: dict[str, Any], tail: int | None) -> None:
        """What there is and what will come, in a thread, unless it is followed already."""
        uid = pod["metadata"]["uid"]
        if uid not in self._threads:
            self._threads[uid] = threading.Thread(target=self._stream, args=(pod, tail), daemon=True)
            self._threads[uid].start()

    def join(self) -> None:
        """Until every followed container has ended."""
        for thread in self._threads.values():
            thread.join(timeout=30)

    def _stream(self, pod: dict[str, Any], tail: int | None) -> None:
        name, last = pod["metadata"]["name"], b""
        while True:
            try:
                since = last.decode()[:19] + "Z" if last else None
                for line in self.cluster.log(name, self.container, follow=True, tail=tail, since=since):
                    at, _, text = line.partition(b" ")
                    if not at[:4].isdigit():
                        # Not the container's, but the kubelet's: why it cannot follow just now. It is asked again.
                        say(errors(), f"{name}: {line.decode('utf-8', 'replace')}", "dim")
                    elif at > last:
                        self._hand_on(pod, text)
                        last = at
                if self._has_ended(name):
                    return
            except CommandError:
                if self._has_ended(name):
                    return
            tail = None if last else tail
            time.sleep(AGAIN_SECONDS)

    def _has_ended(self, name: str) -> bool:
        """Whether a container will write no more; one that torchrun's pod policy never restarts ends once."""
        try:
            pod = self.cluster.pod(name)
        except CommandError:
            return True
        return pod is None or "terminated" in _state(pod, self.container)

    def _hand_on(self, pod: dict[str, Any], text: bytes) -> None:
        with self._lock:
            self.write(_label(pod, INDEX_LABEL), text.decode("utf-8", "replace"))


def _readable(pods: list[dict[str, Any]], node: int | None, container: Container) -> list[dict[str, Any]]:
    """Pods whose container has begun."""
    return [
        pod
        for pod in pods
        if (node is None or _label(pod, INDEX_LABEL) == node)
        and not {"running", "terminated"}.isdisjoint(_state(pod, container))
    ]


def _state(pod: dict[str, Any], container: Container) -> dict[str, Any]:
    status = pod.get("status") or {}
    for each in (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())):
        if each["name"] == container:
            state: dict[str, Any] = each.get("state") or {}
            return state
    return {}


def _from_status(cluster: Cluster, job: dict[str, Any]) -> None:
    failure = status_in(job).last_failure
    if failure is not None and failure.log_tail:
        say(errors(), f"no pod is left; the last lines of attempt {failure.attempt}, from the job's status:", "dim")
        typer.echo(shown(failure.log_tail))
        return
    place = f"{cluster.namespace}/{job['metadata']['name']}"
    raise CommandError(f"{place}: no container has begun yet ({_stands(job)})")


def _stands(job: dict[str, Any]) -> str:
    """The job's state, and why it is in that."""
    reason = why(job)
    return f"{state_in(job)}: {reason}" if reason else state_in(job)


def _label(pod: dict[str, Any], name: str) -> int:
    text = pod["metadata"].get("labels", {}).get(name, "0")
    return int(text) if text.isdecimal() else 0
