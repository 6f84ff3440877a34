"""The table of committed checkpoints."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from adapter_agent.errors import Damaged, ObjectMissing
from adapter_api.checkpoint import IndexEntry
from atj.storage.committed import Committed
from atj.terminal import say, size

_ANY_WIDTH = 10_000
"""Wider than any address, so that nothing is broken while the table is measured."""
ROWS = 20
"""Newest checkpoints that the table holds: the number of files takes one request each."""


def show_checkpoints(
    console: Console, committed: Committed, entries: Sequence[IndexEntry], *, rows: int | None = None
) -> None:
    """Prints one row for each checkpoint, newest last; only the newest `rows` of them where that is given.

    Where whole addresses would be broken, what they have in common stands above the table.
    """
    shown = entries if rows is None else entries[-rows:]
    files = {entry.step: _files(committed, entry) for entry in shown}
    table = _table(shown, files, "ADDRESS", [committed.uri_of(entry) for entry in shown])
    if console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum > console.width:
        say(console, f"In {committed.uri}:")
        table = _table(shown, files, "CHECKPOINT", [entry.folder for entry in shown])
    console.print(table)


def _table(shown: Sequence[IndexEntry], files: dict[int, str], head: str, names: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("STEP", "SIZE", "FILES"):
        table.add_column(name, justify="right", no_wrap=True)
    has_loss = any("loss" in entry.metrics for entry in shown)
    if has_loss:
        table.add_column("LOSS", justify="right", no_wrap=True)
    table.add_column("COMMITTED", no_wrap=True)
    table.add_column(head, overflow="fold")
    for entry, name in zip(shown, names, strict=True):
        loss = entry.metrics.get("loss")
        table.add_row(
            str(entry.step),
            size(entry.bytes),
            files[entry.step],
            *(["" if loss is None else f"{loss:.4g}"] if has_loss else []),
            f"{entry.committed_at.astimezone():%Y-%m-%d %H:%M:%S}",
            f"{name}{' (pinned)' if entry.pinned else ''}",
        )
    return table


def _files(committed: Committed, entry: IndexEntry) -> str:
    try:
        return str(len(committed.manifest(entry).files))
    except (Damaged, ObjectMissing):
        return "damaged"
