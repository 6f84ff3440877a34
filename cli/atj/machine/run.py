"""`atj run`: trains a job on this machine, as a cluster would."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from adapter_agent.errors import OwnerOnly
from adapter_api.document import read, validate
from adapter_api.job import KIND, MAX_NODES, AdapterTrainingJob
from adapter_api.progress import ExitCode
from atj.extras import require
from atj.machine.fork_server import ForkServer, fork_server
from atj.machine.local_data import on_this_machine
from atj.machine.local_run import Ending, run_job
from atj.machine.progress_display import display_on
from atj.storage import embedded_store
from atj.storage.checkpoint_table import ROWS, show_checkpoints
from atj.storage.committed import FOR_EVER, Committed
from atj.storage.output_folder import OutputFolder, RunRecord
from atj.terminal import results, say


def run_command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of the AdapterTrainingJob, the same as for a cluster.", show_default=False
        ),
    ],
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_NODES,
            metavar="COUNT",
            help="Number of nodes to run, instead of spec.nodes.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Output folder of this run; by default atj-output/JOB-NAME.", show_default=False
        ),
    ] = None,
) -> None:
    """Train a job on this machine, without a cluster.

    Every node runs in its own process, started by the same commands as in a pod. Checkpoints go to the endpoint in
    spec.output.s3 or, without one, to an S3 server in the output folder. To continue from the last committed checkpoint,
    run the same command again. Ctrl-C saves, commits and ends; a second Ctrl-C kills.
    """
    document = read(file, of_kind=KIND)
    job = on_this_machine(validate(AdapterTrainingJob, document), document)
    require("local")
    if nodes is not None:
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"nodes": nodes})})
    folder = OutputFolder(output or Path("atj-output") / job.metadata.name)
    folder.create()
    console = results()
    for note in cluster_only(job):
        say(console, f"{file}: {note}", "yellow")
    with folder.held(), forking(job, folder) as (record, server), reachable(job, folder) as (located, embedded_in):
        with display_on(console) as display:
            ending = run_job(located, folder, record, display, embedded_in=embedded_in, server=server)
        report(console, ending, Committed(located.spec.output.s3), folder, is_embedded=embedded_in is not None)
    if ending.state == "interrupted":
        again = [
            "atj",
            "run",
            str(file),
            *(() if nodes is None else ("--nodes", str(nodes))),
            "--output",
            str(folder.path),
        ]
        say(console, f"To continue: {shlex.join(again)}")
        raise typer.Exit(ExitCode.INTERRUPTED)


@contextmanager
def forking(job: AdapterTrainingJob, folder: OutputFolder) -> Iterator[tuple[RunRecord, ForkServer | None]]:
    """What is remembered of the run, and what its trainers are forked from, which starts now if there may be work for it.

    Raises:
        CommandError: the folder belongs to another job.
    """
    record = folder.record_of(job.metadata.name)
    with fork_server(job, folder, record.run_id) as server:
        if server is not None and record.complete is None:
            server.start()
        yield record, server


@contextmanager
def reachable(job: AdapterTrainingJob, folder: OutputFolder) -> Iterator[tuple[AdapterTrainingJob, str | None]]:
    """The job with every location ready to be used, and the folder of the embedded store if it uses that one."""
    if not embedded_store.is_wanted(job):
        yield job, None
        return
    with embedded_store.embedded_store(folder.store, embedded_store.buckets_of(job)) as endpoint:
        yield embedded_store.with_endpoint(job, endpoint), folder.store.name


def report(console: Console, ending: Ending, committed: Committed, folder: OutputFolder, *, is_embedded: bool) -> None:
    """Says how the run ended and where everything is."""
    headline = {
        "complete": "Complete: the final checkpoint is committed.",
        "already complete": "This run is already complete.",
        "interrupted": "Interrupted.",
    }
    say(console, headline[ending.state], "yellow" if ending.state == "interrupted" else "green")
    if ending.newest is None:
        say(console, "No checkpoint has been committed.")
        return
    current = committed.index()
    show_checkpoints(console, committed, () if current is None else current.checkpoints, rows=ROWS)
    say(console, f"Newest checkpoint: {committed.uri_of(ending.newest)}", "bold")
    for picture in folder.pictures():
        say(console, f"Pictures: {picture}")
    if is_embedded:
        with suppress(OwnerOnly):
            committed.delete_due(FOR_EVER)  # the store ends with the run, so that nobody is still fetching
        place = shlex.quote(str(folder.path))
        say(console, f"These addresses are in the embedded store of {place}. To read it:")
        say(console, f"  atj checkpoints list {place}\n  atj checkpoints get {place} --to FOLDER\n  atj sample {place}")


def cluster_only(job: AdapterTrainingJob) -> list[str]:
    """One note for each setting that changes what is trained or when it ends, and has no effect on this machine."""
    spec, notes = job.spec, []
    if spec.suspend:
        notes.append("spec.suspend has no effect here")
    if spec.active_deadline_seconds is not None:
        notes.append("spec.activeDeadlineSeconds has no effect here")
    if spec.pod.volumes:
        notes.append("spec.pod.volumes are not mounted here; their paths have to exist on this machine")
    names = [variable.name for variable in spec.pod.env if variable.secret_key_ref is not None]
    if names:
        notes.append(
            f"secrets cannot be read here; set in your environment what the trainer needs of {', '.join(names)}"
        )
    return notes
