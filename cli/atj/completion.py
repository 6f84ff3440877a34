"""What a shell completes the values of options and arguments with; nothing where it cannot be known at once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typer import Context

DEVICES = ("this", "h200", "h100", "a100", "l40s", "a10", "l4", "rtx4090", "rtx3090", "v100", "t4")
"""What `atj plan --device` takes; the trainer's table of devices brings torch, for which a shell does not wait."""
_SECONDS = 3
_FOLDER_PREFIX = "checkpoint-"


def device_names(incomplete: str) -> list[str]:
    """Devices whose names begin so."""
    return [device for device in DEVICES if device.startswith(incomplete.lower())]


def job_names(ctx: Context, incomplete: str) -> list[str]:
    """Jobs of the cluster and namespace that the options name."""
    names = _quietly(lambda: list(_names_of_jobs(ctx)))
    taken = ctx.params.get("jobs") or ()
    return [name for name in names if name.startswith(incomplete) and name not in taken]


def checkpoint_steps(ctx: Context, incomplete: str) -> list[str]:
    """Steps of the checkpoints in the folder that the first argument names; a store is not asked."""
    # Behind an option whose value is still to come, arguments have not been told apart yet.
    given = ctx.params.get("address") or next(iter(ctx.args), None)
    found = _quietly(lambda: sorted(_steps_in(Path(str(given))), reverse=True) if given else [])
    return [str(step) for step in found if str(step).startswith(incomplete)]


def _names_of_jobs(ctx: Context) -> Iterator[str]:
    from atj.cluster.api_server import Cluster  # asks a cluster

    given: dict[str, Any] = ctx.params
    cluster = Cluster.connect(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
    cluster.seconds = _SECONDS
    try:
        for job in cluster.jobs():
            yield job["metadata"]["name"]
    finally:
        cluster.close()


def _steps_in(folder: Path) -> set[int]:
    """Of checkpoint folders, also of those that the nodes of an `atj run` have in its output folder."""
    found = [path.name.removeprefix(_FOLDER_PREFIX) for path in folder.glob(f"{_FOLDER_PREFIX}*")]
    found += [path.name.removeprefix(_FOLDER_PREFIX) for path in folder.glob(f"node-*/output/{_FOLDER_PREFIX}*")]
    return {int(text) for text in found if text.isdecimal()}


def _quietly(ask: Callable[[], list[Any]]) -> list[Any]:
    """A shell shows nothing rather than an error in the middle of a line."""
    try:
        return ask()
    except Exception:  # noqa: BLE001 - whatever it is, there is nothing to complete with
        return []
