"""`atj submit|list|describe|suspend|resume|scale|delete`: jobs on a cluster."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import read
from adapter_api.job import KIND, MAX_NODES
from atj.cluster.changes import change, create, named_namespace, until_gone
from atj.cluster.connection import Context, JobName, Kubeconfig, Namespace, connected
from atj.cluster.description import description
from atj.cluster.table import job_table
from atj.completion import job_names
from atj.output_format import Output, OutputFormat
from atj.terminal import errors, results, say

JobNames = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB...", help="Names of AdapterTrainingJobs.", show_default=False, autocompletion=job_names
    ),
]


def submit_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of the AdapterTrainingJob.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the job, instead of metadata.name.", show_default=False)
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_NODES, metavar="COUNT", help="Number of nodes, instead of spec.nodes.", show_default=False
        ),
    ] = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the cluster check the job without creating it.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check a job here, then create it on a cluster. Faults are shown with their lines."""
    document = read(file, of_kind=KIND)
    for each in document.others:
        say(errors(), f"{file} also holds {each}, which is left alone: kubectl apply -f {file} creates it", "yellow")
    chosen = named_namespace(document, validate_for_cluster(document), namespace)
    with connected(kubeconfig, context, chosen) as cluster:
        created = create(cluster, document, name=name, nodes=nodes, dry_run=dry_run)["metadata"]
    if dry_run:
        say(results(), f"{created['namespace']}/{created['name']}: the cluster would accept it")
        return
    say(results(), f"{created['namespace']}/{created['name']}: submitted")
    place = f" -n {created['namespace']}" if chosen else ""
    say(
        results(),
        f"  atj logs -f {created['name']}{place}    follow it\n  atj wait {created['name']}{place}       until it ends",
    )


def list_command(
    *,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List the jobs of all namespaces.")
    ] = False,
    output: Output = OutputFormat.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the jobs of a cluster."""
    with connected(kubeconfig, context, namespace) as cluster:
        jobs = cluster.jobs(everywhere=everywhere)
        if output is OutputFormat.json:
            typer.echo(json.dumps(jobs, indent=2))
        elif jobs:
            console = results()
            console.print(job_table(jobs, datetime.now(UTC), with_namespace=everywhere, console=console))
        else:
            say(results(), "no jobs" if everywhere else f"no jobs in namespace {cluster.namespace}")


def describe_command(
    job: JobName,
    output: Output = OutputFormat.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a job's state, the reason for it, its pods and its Events."""
    with connected(kubeconfig, context, namespace) as cluster:
        found = cluster.job(job)
        pods, events = cluster.pods(job), cluster.events(found["metadata"]["uid"])
    if output is OutputFormat.json:
        typer.echo(json.dumps({"job": found, "pods": pods, "events": events}, indent=2))
        return
    say(results(), description(found, pods, events, datetime.now(UTC)))


def suspend_command(
    jobs: JobNames, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Suspend jobs: each saves a checkpoint and frees its pods until it is resumed."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            change(cluster, job, {"suspend": True})
            say(results(), f"{cluster.namespace}/{job}: saves, then stops")


def resume_command(
    jobs: JobNames, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Resume suspended jobs from their last committed checkpoint."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            change(cluster, job, {"suspend": False})
            say(results(), f"{cluster.namespace}/{job}: continues")


def scale_command(
    job: JobName,
    nodes: Annotated[
        int, typer.Option(min=1, max=MAX_NODES, metavar="COUNT", help="Number of pods to train on.", show_default=False)
    ],
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Change the number of nodes; a running job saves first, then continues at the new size."""
    with connected(kubeconfig, context, namespace) as cluster:
        change(cluster, job, {"nodes": nodes})
        say(results(), f"{cluster.namespace}/{job}: {nodes} node{'s' * (nodes > 1)}")


def delete_command(
    jobs: JobNames,
    *,
    wait: Annotated[bool, typer.Option(help="Wait until all pods are gone.")] = True,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete jobs and their pods. Their checkpoints are kept."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            cluster.delete(job)
        for job in jobs if wait else ():
            until_gone(cluster, job)
            say(results(), f"{cluster.namespace}/{job}: deleted")
