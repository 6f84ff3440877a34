"""`atj wait`: until a job has ended, or has reached a condition."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.status import Status

from atj.cluster.changes import until
from atj.cluster.connection import Context, JobName, Kubeconfig, Namespace, connected
from atj.cluster.job_view import status_in, where
from atj.output_format import Output, OutputFormat
from atj.terminal import errors, results, say


class Awaited(StrEnum):
    """What can be waited for; all of it is a condition of the job."""

    complete = "Complete"
    running = "Running"
    suspended = "Suspended"


def wait_command(
    job: JobName,
    awaited: Annotated[Awaited, typer.Option("--for", help="Condition of the job to wait for.")] = Awaited.complete,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Seconds to wait; by default without a limit.", show_default=False),
    ] = None,
    output: Output = OutputFormat.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until a job is complete. Exit code 1 if it fails or the timeout expires."""
    with connected(kubeconfig, context, namespace) as cluster:
        place = f"{cluster.namespace}/{job}"
        with Status("", console=errors()) as shown:

            def show(found: dict[str, Any]) -> None:
                shown.update(f"{place}: {where(found)}")

            found = until(cluster, job, awaited.value, timeout, show)
    if output is OutputFormat.json:
        typer.echo(json.dumps(found, indent=2))
        return
    say(results(), f"{place}: {awaited.value}{_checkpoint(found)}")


def _checkpoint(job: dict[str, Any]) -> str:
    checkpoint = status_in(job).checkpoint
    return "" if checkpoint is None else f", {checkpoint.uri}"
