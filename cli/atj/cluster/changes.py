"""What commands and the client do to jobs on a cluster: create, change, delete, wait."""

import json
import time
from collections.abc import Callable
from typing import Any, Literal

from adapter_api.document import Document
from adapter_api.job import GENERATED, AdapterTrainingJob
from adapter_api.progress import ExitCode
from atj.cluster.api_server import Cluster
from atj.cluster.job_view import has_ended, holds, state_in, status_in, where
from atj.errors import CommandError, refusal

Plain = dict[str, Any]
Condition = Literal["Complete", "Running", "Suspended"]

POLL_SECONDS = 1.0
GONE_SECONDS = 300.0
"""How long the pods of a deleted job may still save."""


def named_namespace(document: Document, job: AdapterTrainingJob, given: str | None) -> str | None:
    """The namespace that the file or an option names.

    Raises:
        CommandError: they name different ones.
    """
    named = job.metadata.namespace if "namespace" in document.data["metadata"] else None
    if named is not None and given is not None and named != given:
        raise refusal(f"{document.source}: metadata.namespace is {named}, but {given} is asked for; give one of them")
    return given or named


def create(cluster: Cluster, document: Document, *, name: str | None, nodes: int | None, dry_run: bool) -> Plain:
    """Creates the job of a document that has been validated.

    Raises:
        CommandError: there is one of that name, or the cluster refuses it.
    """
    raw = json.loads(json.dumps(document.data, default=str))
    if name is not None:
        raw["metadata"]["name"] = name
        raw["metadata"].pop("generateName", None)
    if nodes is not None:
        raw["spec"]["nodes"] = nodes
    raw["metadata"]["namespace"] = cluster.namespace
    if raw["metadata"].get("name") == f"{raw['metadata'].get('generateName')}{GENERATED}":
        del raw["metadata"]["name"]  # the model's own, which stands for the one to come
    given = raw["metadata"].get("name")
    known = None if given is None else cluster.find_job(given)  # of generateName, the cluster makes a name of its own
    if known is not None:
        raise refusal(
            f"there is a job {cluster.namespace}/{known['metadata']['name']} already ({state_in(known)}): choose another "
            "--name, or delete it first (its checkpoints are kept, and a job with the same output continues from them)"
        )
    return cluster.create(raw, dry_run=dry_run)


def change(cluster: Cluster, job: str, spec: Plain) -> None:
    """Changes the specification of a job that has not ended.

    Raises:
        CommandError: there is no such job, or it has ended.
    """
    state = state_in(cluster.job(job))
    if state in {"Complete", "Failed"}:
        raise refusal(f"{cluster.namespace}/{job} has ended ({state}); submit it under another name to train on")
    cluster.patch(job, {"spec": spec})


def until_gone(cluster: Cluster, job: str) -> None:
    """Returns when a deleted job and its pods are gone.

    Raises:
        CommandError: its pods take too long.
    """
    end = time.monotonic() + GONE_SECONDS
    while cluster.find_job(job) is not None or cluster.pods(job):
        if time.monotonic() > end:
            raise CommandError(
                f"{cluster.namespace}/{job}: deleted, but its pods still save after {GONE_SECONDS:.0f} s"
            )
        time.sleep(0.5)


def until(
    cluster: Cluster, job: str, awaited: Condition, timeout: float | None, show: Callable[[Plain], None]
) -> Plain:
    """The job once its condition holds; `show` is given each job that was read until then.

    Raises:
        CommandError: the job failed, has ended without the condition, or the time is over.
    """
    end = None if timeout is None else time.monotonic() + timeout
    place = f"{cluster.namespace}/{job}"
    while True:
        found = cluster.job(job)
        if holds(found, awaited) or has_ended(found):
            break
        if end is not None and time.monotonic() >= end:
            raise CommandError(f"{place}: {where(found)} after {timeout:g} s, not {awaited}")
        show(found)
        time.sleep(POLL_SECONDS)
    if holds(found, "Failed"):
        raise CommandError(f"{place}: {_reason(found, 'Failed')}", ExitCode.FAILED)
    if not holds(found, awaited):
        raise CommandError(f"{place}: has ended ({where(found)}), and will not be {awaited}")
    return found


def _reason(job: Plain, name: str) -> str:
    condition = next(each for each in status_in(job).conditions if each.type == name)
    return f"{condition.reason}: {condition.message}".rstrip(": ")
