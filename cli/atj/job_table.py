"""The table of a cluster's jobs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from atj.terminal import cell, duration

_NONE = "-"
STYLES = {"Complete": "green", "Failed": "red", "Invalid": "red", "Running": "cyan", "Restarting": "yellow"}
"""How states are shown to whoever reads them in colour."""


def job_table(jobs: Sequence[dict[str, Any]], now: datetime, *, with_namespace: bool) -> Table:
    """One row for each job, by namespace and name, with the columns that `kubectl get atj` shows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (*(("NAMESPACE",) if with_namespace else ()), "NAME", "STATE"):
        table.add_column(name, no_wrap=True)
    for name in ("STEP", "LOSS", "ETA", "CHECKPOINT", "NODES", "RESTARTS", "AGE"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in sorted(jobs, key=lambda job: (job["metadata"]["namespace"], job["metadata"]["name"])):
        metadata, status = job["metadata"], job.get("status") or {}
        progress = status.get("progress") or {}
        state = status.get("state", "Pending")
        table.add_row(
            *((cell(metadata["namespace"]),) if with_namespace else ()),
            cell(metadata["name"]),
            f"[{STYLES[state]}]{state}[/]" if state in STYLES else cell(state),
            f"{progress['step']}/{progress['totalSteps']}" if "step" in progress else _NONE,
            cell(progress.get("loss", _NONE)),
            cell(progress.get("eta", _NONE)) if state not in {"Complete", "Failed"} else _NONE,
            str((status.get("checkpoint") or {}).get("step", _NONE)),
            f"{(status.get('nodes') or {}).get('ready', 0)}/{job['spec'].get('nodes', 1)}",
            str((status.get("restarts") or {}).get("total", 0)),
            age(metadata["creationTimestamp"], now),
        )
    return table


def age(since: str, now: datetime) -> str:
    """How long ago a time of the API server was."""
    return duration(max(0.0, (now - datetime.fromisoformat(since)).total_seconds()))
