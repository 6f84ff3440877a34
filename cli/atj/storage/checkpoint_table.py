"""The table of committed checkpoints."""

from collections.abc import Sequence

from rich.table import Table

from adapter_agent.errors import Damaged, ObjectMissing
from adapter_api.checkpoint import IndexEntry
from atj.storage.committed import Committed
from atj.terminal import size

ROWS = 20
"""Newest checkpoints that the table holds: the number of files takes one request each."""


def checkpoint_table(committed: Committed, entries: Sequence[IndexEntry], *, rows: int | None = None) -> Table:
    """One row for each checkpoint, newest last; only the newest `rows` of them where that is given."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("STEP", "SIZE", "FILES"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = entries if rows is None else entries[-rows:]
    has_loss = any("loss" in entry.metrics for entry in shown)
    if has_loss:
        table.add_column("LOSS", justify="right", no_wrap=True)
    table.add_column("COMMITTED", no_wrap=True)
    table.add_column("ADDRESS", overflow="fold")
    for entry in shown:
        loss = entry.metrics.get("loss")
        table.add_row(
            str(entry.step),
            size(entry.bytes),
            _files(committed, entry),
            *(["" if loss is None else f"{loss:.4g}"] if has_loss else []),
            f"{entry.committed_at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{committed.uri_of(entry)}{' (pinned)' if entry.pinned else ''}",
        )
    return table


def _files(committed: Committed, entry: IndexEntry) -> str:
    try:
        return str(len(committed.manifest(entry).files))
    except (Damaged, ObjectMissing):
        return "damaged"
