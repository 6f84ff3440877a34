"""`atj wait`: until a job has ended, or has reached a condition."""

import time
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.status import Status

from adapter_api.progress import ExitCode
from atj.connection import Context, JobName, Kubeconfig, Namespace, connected
from atj.errors import CommandError
from atj.terminal import errors, results, say

POLL_SECONDS = 1.0


class Awaited(StrEnum):
    """What can be waited for; all of it is a condition of the job."""

    complete = "Complete"
    running = "Running"
    suspended = "Suspended"


def wait_command(
    job: JobName,
    awaited: Annotated[Awaited, typer.Option("--for", help="Condition to wait for.")] = Awaited.complete,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds; by default without end.", show_default=False)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until a job is complete. Exit code 1 when it fails, or when the time is over."""
    end = None if timeout is None else time.monotonic() + timeout
    console = errors()
    with connected(kubeconfig, context, namespace) as cluster:
        place = f"{cluster.namespace}/{job}"
        with Status("", console=console) as shown:
            while True:
                status = cluster.job(job).get("status") or {}
                if holds(status, awaited) or holds(status, "Complete") or holds(status, "Failed"):
                    break
                if end is not None and time.monotonic() >= end:
                    raise CommandError(f"{place}: {_where(status)} after {timeout:g} s, not {awaited.value}")
                shown.update(f"{place}: {_where(status)}")
                time.sleep(POLL_SECONDS)
    if holds(status, "Failed"):
        raise CommandError(f"{place}: {_why(status, 'Failed')}", ExitCode.FAILED)
    if not holds(status, awaited):
        raise CommandError(f"{place}: has ended ({_where(status)}), and will not be {awaited.value}")
    say(results(), f"{place}: {awaited.value}{_checkpoint(status)}")


def holds(status: dict[str, Any], condition: str) -> bool:
    """Whether a job's condition is True."""
    return any(c["type"] == condition and c["status"] == "True" for c in status.get("conditions") or ())


def _where(status: dict[str, Any]) -> str:
    progress = status.get("progress") or {}
    at = f", step {progress['step']} of {progress['totalSteps']}" if progress else ""
    return f"{status.get('state', 'Pending')}{at}"


def _why(status: dict[str, Any], condition: str) -> str:
    found = next(c for c in status["conditions"] if c["type"] == condition)
    return f"{found['reason']}: {found.get('message', '')}".rstrip(": ")


def _checkpoint(status: dict[str, Any]) -> str:
    return f", {status['checkpoint']['uri']}" if status.get("checkpoint") else ""
