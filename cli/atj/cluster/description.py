"""What is known of one job, written out for a person: where it stands, why, and what to do."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from adapter_api.names import ATTEMPT_LABEL, INDEX_LABEL
from adapter_api.status import JobStatus
from atj.cluster.job_view import state_in, status_in
from atj.cluster.table import age
from atj.terminal import size

Plain = dict[str, Any]


def description(job: Plain, pods: list[Plain], events: list[Plain], now: datetime) -> str:
    """All sections that have something to say, separated by empty lines.

    Args:
        job: The AdapterTrainingJob, as the API server gives it.
        pods: Its pods of all attempts.
        events: The Events about it, oldest first.
        now: Ages count up to here.
    """
    status = status_in(job)
    sections = (
        _overview(job, status, now),
        _conditions(status, now),
        _last_failure(status, now),
        _interruptions(status, now),
        _pods(pods, now),
        _events(events, now),
    )
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section)))


def _overview(job: Plain, status: JobStatus, now: datetime) -> Iterator[str]:
    spec, metadata, restarts = job["spec"], job["metadata"], status.restarts
    yield _line("Name", f"{metadata['namespace']}/{metadata['name']}")
    yield _line("State", f"{state_in(job)}, created {age(metadata['creationTimestamp'], now)} ago")
    yield _line("Nodes", f"{status.nodes.ready} of {spec.get('nodes', 1)} train")
    if (progress := status.progress) is not None:
        parts = [f"step {progress.step} of {progress.total_steps} ({progress.percent:g} %)"]
        parts += [f"loss {progress.loss}"] if progress.loss is not None else []
        parts += [f"{progress.images_per_second:g} images/s"] if progress.images_per_second is not None else []
        parts += [f"{progress.eta} left"] if progress.eta is not None and status.completion_time is None else []
        yield _line("Progress", ", ".join(parts))
    if (checkpoint := status.checkpoint) is not None:
        committed = age(checkpoint.committed_at, now)
        yield _line("Checkpoint", f"{checkpoint.uri} ({size(checkpoint.bytes)}, committed {committed} ago)")
    else:
        yield _line("Output", f"{spec['output']['s3']['uri']} (no checkpoint is committed yet)")
    allowed = (spec.get("restart") or {}).get("maxRestarts")
    limit = "" if allowed is None else f" of {allowed}"
    yield _line(
        "Restarts", f"{restarts.charged}{limit} charged, {restarts.uncharged} uncharged; attempt {status.attempt}"
    )
    if status.goodput_percent is not None:
        yield _line("Goodput", f"{status.goodput_percent:g} % of the time since the start")


def _conditions(status: JobStatus, now: datetime) -> Iterator[str]:
    if status.conditions:
        yield "Conditions"
    for condition in status.conditions:
        head = f"{condition.type}={condition.status}"
        yield f"  {head:<16} {condition.reason}, since {age(condition.last_transition_time, now)}"
        yield from _indented(condition.message, 4)


def _last_failure(status: JobStatus, now: datetime) -> Iterator[str]:
    failure = status.last_failure
    if failure is None:
        return
    where = f" on node {failure.node}" if failure.node is not None else ""
    code = f", exit code {failure.exit_code}" if failure.exit_code is not None else ""
    yield f"Last failure: {failure.reason}{where}{code}, attempt {failure.attempt}, {age(failure.at, now)} ago"
    yield from _indented(failure.message, 2)
    if failure.log_tail:
        yield "  Its log ended with:"
        yield from _indented(failure.log_tail, 4)


def _interruptions(status: JobStatus, now: datetime) -> Iterator[str]:
    if status.interruptions:
        yield f"Interruptions (steps trained again: {status.lost_steps or 0})"
    for each in status.interruptions:
        lost = f"{each.lost_steps} steps lost" if each.lost_steps is not None else "not known yet what it cost"
        reached = f" at step {each.step}" if each.step is not None else ""
        yield f"  attempt {each.attempt}: {each.reason}{reached}, {age(each.at, now)} ago, {lost}"
        yield from _indented(each.message, 4)


def _pods(pods: list[Plain], now: datetime) -> Iterator[str]:
    if pods:
        yield "Pods"
    for pod in sorted(pods, key=_place):
        attempt, index = _place(pod)
        phase = "Terminating" if "deletionTimestamp" in pod["metadata"] else pod["status"].get("phase", "Pending")
        place = pod["spec"].get("nodeName", "no machine yet")
        yield (
            f"  node {index}  {pod['metadata']['name']}: {phase} on {place}, attempt {attempt}, "
            f"{age(pod['metadata']['creationTimestamp'], now)}"
        )


def _events(events: list[Plain], now: datetime) -> Iterator[str]:
    if events:
        yield "Events"
    for event in events:
        seen = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
        yield f"  {age(seen, now)} ago  {event.get('type', 'Normal')}  {event.get('reason', '')}"
        yield from _indented(event.get("message", ""), 4)


def _place(pod: Plain) -> tuple[int, int]:
    labels = pod["metadata"].get("labels", {})
    attempt, index = labels.get(ATTEMPT_LABEL, "0"), labels.get(INDEX_LABEL, "0")
    return int(attempt) if attempt.isdecimal() else 0, int(index) if index.isdecimal() else 0


def _line(name: str, text: str) -> str:
    return f"{name + ':':<12}{text}"


def _indented(text: str, width: int) -> Iterator[str]:
    for line in text.splitlines():
        yield " " * width + line
