"""Tables fit into a terminal of 80 columns: nothing is cut, and what there is no room for is left out whole."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from adapter_agent.errors import ObjectMissing
from adapter_api.checkpoint import IndexEntry
from adapter_trainer.forecast import forecast
from adapter_trainer.forecast.device_speed import KNOWN
from atj.cluster.table import job_table
from atj.machine.plan import _memory_table, _speed_table
from atj.storage.checkpoint_table import show_checkpoints
from tests.trainer.support import tiny

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(name: str, **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "creationTimestamp": "2025-12-31T12:00:00Z"}
    return {"metadata": metadata, "spec": {"nodes": 16}, "status": status}


def lines(table: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


RUNNING = {
    "state": "Running", "nodes": {"ready": 16}, "restarts": {"total": 3},
    "progress": {"step": 10_000, "totalSteps": 100_000, "loss": 0.123456, "eta": "12h5m"},
    "checkpoint": {"step": 10_000},
}  # fmt: skip


@pytest.mark.parametrize("name", ["style", "a-name-as-long-as-kubernetes-and-our-pods-can-take-it"])
def test_the_list_of_jobs_leaves_out_columns_rather_than_cut_names(name: str) -> None:
    console = Console(width=80)
    shown = lines(job_table([job(name, **RUNNING)], NOW, with_namespace=True, console=console), 80)
    assert max(map(len, shown)) <= 80
    first, *rest = shown[1:]
    assert first.split()[1] + "".join(line.strip() for line in rest) == name
    assert "…" not in "".join(shown)
    assert {"NAMESPACE", "NAME", "STATE", "STEP"} <= set(shown[0].split())


def test_a_wide_terminal_shows_every_column() -> None:
    shown = lines(job_table([job("style", **RUNNING)], NOW, with_namespace=True, console=Console(width=160)), 160)
    assert len(shown[0].split()) == 10


def test_the_tables_of_a_plan_fit() -> None:
    config = tiny.configuration(
        tiny.settings(changes={"evaluation": {"pairs_file_path": "held-out.txt", "pictures": 4}})
    )
    found = forecast.forecast(config, KNOWN["h100"], world_size=8)
    for table in (_memory_table(found), _speed_table(found, config, 8, 100_000)):
        shown = lines(table, 80)
        assert max(map(len, shown)) <= 80
        assert "…" not in "".join(shown)


class Output:
    """An output with checkpoints whose files are gone."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def uri_of(self, entry: IndexEntry) -> str:
        return f"{self.uri}/{entry.folder}"

    def manifest(self, entry: IndexEntry) -> Any:
        raise ObjectMissing(entry.folder)


@pytest.mark.parametrize("width", [80, 160])
def test_addresses_of_checkpoints_are_never_broken(width: int) -> None:
    entries = [
        IndexEntry(
            step=step, attempt=1, manifest_sha256="0" * 64, committed_at=NOW, bytes=9_200_000, metrics={"loss": 0.1},
            pinned=step == 500,
        )
        for step in (250, 500)
    ]  # fmt: skip
    console = Console(file=io.StringIO(), width=width)
    output: Any = Output("s3://checkpoints/a-team/styles-of-2026")
    show_checkpoints(console, output, entries)
    shown = [line.rstrip() for line in str(console.file.getvalue()).splitlines()]  # type: ignore[attr-defined]
    assert max(map(len, shown)) <= width
    if width == 80:
        assert shown[0] == f"In {output.uri}:"
        assert shown[1].split()[-1] == "CHECKPOINT"
        assert [line.partition("00:00:00  ")[2] for line in shown[2:]] == [
            entries[0].folder,
            f"{entries[1].folder} (pinned)",
        ]
    else:
        assert shown[0].split()[-1] == "ADDRESS"
        assert shown[1].endswith(f"  {output.uri}/{entries[0].folder}")
