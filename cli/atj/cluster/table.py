"""The table of a cluster's jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from atj.cluster.job_view import state_in, status_in
from atj.terminal import cell, duration

_NONE = "-"
STYLES = {"Complete": "green", "Failed": "red", "Invalid": "red", "Running": "cyan", "Restarting": "yellow"}
"""How states are shown to whoever reads them in colour."""


_LEAST_NEEDED = ("RESTARTS", "LOSS", "CHECKPOINT", "NODES", "ETA", "AGE")
"""Columns that a narrow terminal does without, the first of them first; `-o json` has everything."""
_ENDLESS = 10_000
_LEFT = ("NAMESPACE", "NAME", "STATE")


def job_table(
    jobs: Sequence[dict[str, Any]], now: datetime, *, with_namespace: bool, console: Console | None = None
) -> Table:
    """One row for each job, by namespace and name, with the columns that `kubectl get atj` shows and the console has room for."""
    rows = [
        _row(job, now) for job in sorted(jobs, key=lambda job: (job["metadata"]["namespace"], job["metadata"]["name"]))
    ]
    names = [name for name in _COLUMNS if with_namespace or name != "NAMESPACE"]
    table = _table(names, rows)
    for name in _LEAST_NEEDED:
        if console is None or _width(console, table) <= console.width:
            break
        names.remove(name)
        table = _table(names, rows)
    return table


_COLUMNS = ("NAMESPACE", "NAME", "STATE", "STEP", "LOSS", "ETA", "CHECKPOINT", "NODES", "RESTARTS", "AGE")


def _table(names: Sequence[str], rows: Sequence[dict[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        # A name that is cut is no name.
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=name not in _LEFT, overflow="fold")
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _width(console: Console, table: Table) -> int:
    """Of the table with room for all of it."""
    return Measurement.get(console, console.options.update(max_width=_ENDLESS), table).maximum


def _row(job: dict[str, Any], now: datetime) -> dict[str, str]:
    metadata, status, state = job["metadata"], status_in(job), state_in(job)
    progress, checkpoint = status.progress, status.checkpoint
    return {
        "NAMESPACE": cell(metadata["namespace"]),
        "NAME": cell(metadata["name"]),
        "STATE": f"[{STYLES[state]}]{state}[/]" if state in STYLES else cell(state),
        "STEP": _NONE if progress is None else f"{progress.step}/{progress.total_steps}",
        "LOSS": _NONE if progress is None or progress.loss is None else cell(progress.loss),
        "ETA": _NONE
        if progress is None or progress.eta is None or state in {"Complete", "Failed"}
        else cell(progress.eta),
        "CHECKPOINT": _NONE if checkpoint is None else str(checkpoint.step),
        "NODES": f"{status.nodes.ready}/{job['spec'].get('nodes', 1)}",
        "RESTARTS": str(status.restarts.total),
        "AGE": age(metadata["creationTimestamp"], now),
    }


def age(since: datetime | str, now: datetime) -> str:
    """How long ago a time was; a text is one of the API server."""
    at = datetime.fromisoformat(since) if isinstance(since, str) else since
    return duration(max(0.0, (now - at).total_seconds()))
