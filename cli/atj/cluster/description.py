"""What is known of one job, written out for a person: where it stands, why, and what to do."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from adapter_api.names import ATTEMPT_LABEL, INDEX_LABEL
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
    status = job.get("status") or {}
    sections = (
        _overview(job, status, now),
        _conditions(status, now),
        _last_failure(status, now),
        _interruptions(status, now),
        _pods(pods, now),
        _events(events, now),
    )
    return "\n\n".join("\n".join(lines) for section in sections if (lines := list(section)))


def _overview(job: Plain, status: Plain, now: datetime) -> Iterator[str]:
    spec, metadata = job["spec"], job["metadata"]
    progress, restarts = status.get("progress") or {}, status.get("restarts") or {}
    yield _line("Name", f"{metadata['namespace']}/{metadata['name']}")
    yield _line("State", f"{status.get('state', 'Pending')}, created {age(metadata['creationTimestamp'], now)} ago")
    nodes = status.get("nodes") or {}
    yield _line("Nodes", f"{nodes.get('ready', 0)} of {spec.get('nodes', 1)} train")
    if progress:
        parts = [f"step {progress['step']} of {progress['totalSteps']} ({progress['percent']:g} %)"]
        parts += [f"loss {progress['loss']}"] if "loss" in progress else []
        parts += [f"{progress['imagesPerSecond']:g} images/s"] if "imagesPerSecond" in progress else []
        parts += [f"{progress['eta']} left"] if "eta" in progress and not status.get("completionTime") else []
        yield _line("Progress", ", ".join(parts))
    if checkpoint := status.get("checkpoint"):
        committed = age(checkpoint["committedAt"], now)
        yield _line("Checkpoint", f"{checkpoint['uri']} ({size(checkpoint['bytes'])}, committed {committed} ago)")
    else:
        yield _line("Output", f"{spec['output']['s3']['uri']} (no checkpoint is committed yet)")
    attempt = status.get("attempt", 0)
    charged, allowed = restarts.get("charged", 0), (spec.get("restart") or {}).get("maxRestarts")
    limit = "" if allowed is None else f" of {allowed}"
    yield _line("Restarts", f"{charged}{limit} charged, {restarts.get('uncharged', 0)} uncharged; attempt {attempt}")
    if "goodputPercent" in status:
        yield _line("Goodput", f"{status['goodputPercent']:g} % of the time since the start")


def _conditions(status: Plain, now: datetime) -> Iterator[str]:
    conditions = status.get("conditions") or []
    if conditions:
        yield "Conditions"
    for condition in conditions:
        head = f"{condition['type']}={condition['status']}"
        yield f"  {head:<16} {condition['reason']}, since {age(condition['lastTransitionTime'], now)}"
        yield from _indented(condition.get("message", ""), 4)


def _last_failure(status: Plain, now: datetime) -> Iterator[str]:
    failure = status.get("lastFailure")
    if failure is None:
        return
    where = f" on node {failure['node']}" if "node" in failure else ""
    code = f", exit code {failure['exitCode']}" if "exitCode" in failure else ""
    yield f"Last failure: {failure['reason']}{where}{code}, attempt {failure['attempt']}, {age(failure['at'], now)} ago"
    yield from _indented(failure.get("message", ""), 2)
    if failure.get("logTail"):
        yield "  Its log ended with:"
        yield from _indented(failure["logTail"], 4)


def _interruptions(status: Plain, now: datetime) -> Iterator[str]:
    interruptions = status.get("interruptions") or []
    if interruptions:
        yield f"Interruptions (steps trained again: {status.get('lostSteps', 0)})"
    for each in interruptions:
        lost = f"{each['lostSteps']} steps lost" if "lostSteps" in each else "not known yet what it cost"
        reached = f" at step {each['step']}" if "step" in each else ""
        yield f"  attempt {each['attempt']}: {each['reason']}{reached}, {age(each['at'], now)} ago, {lost}"
        yield from _indented(each.get("message", ""), 4)


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
