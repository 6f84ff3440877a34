"""`atj submit|list|describe|suspend|resume|scale|delete`: jobs on a cluster."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import read
from adapter_api.job import MAX_NODES
from atj.checkpoints import OutputFormat
from atj.cluster import Cluster
from atj.connection import Context, JobName, Kubeconfig, Namespace, connected
from atj.errors import CommandError, refusal
from atj.job_description import description
from atj.job_table import job_table
from atj.terminal import results, say

JobNames = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Names of AdapterTrainingJobs.", show_default=False)
]
_GONE_SECONDS = 300.0


def submit_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The AdapterTrainingJob, as for `atj run`.", show_default=False)
    ],
    name: Annotated[str | None, typer.Option(help="Instead of metadata.name.", show_default=False)] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=MAX_NODES, help="Instead of spec.nodes.", show_default=False)
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Let the cluster check it, and create nothing.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Create a job on a cluster, after checking it here: faults are named with their lines."""
    document = read(file)
    job = validate_for_cluster(document)
    raw = json.loads(json.dumps(document.data, default=str))
    if name is not None:
        raw["metadata"]["name"] = name
    if nodes is not None:
        raw["spec"]["nodes"] = nodes
    named = job.metadata.namespace if "namespace" in raw["metadata"] else None
    if named is not None and namespace is not None and named != namespace:
        raise refusal(f"{file}: metadata.namespace is {named}, --namespace is {namespace}; give one of them")
    with connected(kubeconfig, context, namespace or named) as cluster:
        raw["metadata"]["namespace"] = cluster.namespace
        known = cluster.find_job(raw["metadata"]["name"])
        if known is not None:
            state = (known.get("status") or {}).get("state", "Pending")
            raise refusal(
                f"there is a job {cluster.namespace}/{known['metadata']['name']} already ({state}): choose another "
                "--name, or delete it first (what it stored stays, and a job with the same output goes on from there)"
            )
        created = cluster.create(raw, dry_run=dry_run)["metadata"]
    if dry_run:
        say(results(), f"{created['namespace']}/{created['name']}: the cluster would accept it")
        return
    say(results(), f"{created['namespace']}/{created['name']}: submitted")
    place = f" -n {created['namespace']}" if namespace or named else ""
    say(
        results(),
        f"  atj logs -f {created['name']}{place}    follow it\n  atj wait {created['name']}{place}       until it ends",
    )


def list_command(
    *,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of the whole cluster.")] = False,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="For people, or for programs.")] = (
        OutputFormat.table
    ),
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
            results().print(job_table(jobs, datetime.now(UTC), with_namespace=everywhere))
        else:
            say(results(), "no jobs" if everywhere else f"no jobs in namespace {cluster.namespace}")


def describe_command(
    job: JobName, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Show where a job stands, why, its pods and Events."""
    with connected(kubeconfig, context, namespace) as cluster:
        found = cluster.job(job)
        pods, events = cluster.pods(job), cluster.events(found["metadata"]["uid"])
    say(results(), description(found, pods, events, datetime.now(UTC)))


def suspend_command(
    jobs: JobNames, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Let jobs save, and free their pods until they are resumed."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            _change(cluster, job, {"suspend": True})
            say(results(), f"{cluster.namespace}/{job}: saves, and stops")


def resume_command(
    jobs: JobNames, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Let suspended jobs go on from their last committed checkpoint."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            _change(cluster, job, {"suspend": False})
            say(results(), f"{cluster.namespace}/{job}: goes on")


def scale_command(
    job: JobName,
    nodes: Annotated[int, typer.Option(min=1, max=MAX_NODES, help="Pods to train on.", show_default=False)],
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Change the number of nodes; a running job saves first, and goes on at the new size."""
    with connected(kubeconfig, context, namespace) as cluster:
        _change(cluster, job, {"nodes": nodes})
        say(results(), f"{cluster.namespace}/{job}: {nodes} node{'s' * (nodes > 1)}")


def delete_command(
    jobs: JobNames,
    *,
    wait: Annotated[bool, typer.Option(help="Until all pods are gone.")] = True,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Delete jobs and their pods. What they stored stays."""
    with connected(kubeconfig, context, namespace) as cluster:
        for job in jobs:
            cluster.delete(job)
        for job in jobs if wait else ():
            _until_gone(cluster, job)
            say(results(), f"{cluster.namespace}/{job}: deleted")


def _change(cluster: Cluster, job: str, spec: dict[str, object]) -> None:
    state = (cluster.job(job).get("status") or {}).get("state")
    if state in {"Complete", "Failed"}:
        raise refusal(f"{cluster.namespace}/{job} has ended ({state}); submit it under another name to train on")
    cluster.patch(job, {"spec": spec})


def _until_gone(cluster: Cluster, job: str) -> None:
    end = time.monotonic() + _GONE_SECONDS
    while cluster.find_job(job) is not None or cluster.pods(job):
        if time.monotonic() > end:
            raise CommandError(
                f"{cluster.namespace}/{job}: deleted, but its pods still save after {_GONE_SECONDS:.0f} s"
            )
        time.sleep(0.5)
