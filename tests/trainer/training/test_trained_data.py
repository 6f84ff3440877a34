"""A run goes on with the rows, captions, pictures and embeddings that it began with, or says that it does not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapter_trainer import circumstances
from adapter_trainer.publishing.card import DataRecord
from adapter_trainer.training import setup, trained_data
from tests.trainer.support import runs, tiny

LATEST = ("--resume_from_checkpoint", "latest")


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that may be changed, with an embedding for each sample."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    lines = []
    for index, line in enumerate((folder / "train.txt").read_text(encoding="utf-8").splitlines()):
        np.save(folder / f"{index}.npy", np.full(4, index, np.float32))
        lines.append(f"{line}\t{index}.npy\n")
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def settings(data: Path, steps: int = 2, **params: Any) -> tiny.Settings:
    columns = [tiny.LABEL_COLUMN, tiny.VECTOR_COLUMN, {"name": "feature", "kind": "embedding"}]
    changes = {
        "data": {"params": {"columns": columns, **params}}, "optimization": {"max_train_steps": steps},
    }  # fmt: skip
    return tiny.settings(data, changes)


def a_caption(folder: Path) -> None:
    table = folder / "train.txt"
    table.write_text(table.read_text(encoding="utf-8").replace("picture of 3", "drawing of 3"), encoding="utf-8")


def a_value(folder: Path) -> None:
    table = folder / "train.txt"
    table.write_text(table.read_text(encoding="utf-8").replace("picture of 3\t0", "picture of 3\t1"), encoding="utf-8")


def the_order(folder: Path) -> None:
    table = folder / "train.txt"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")


def a_row(folder: Path) -> None:
    table = folder / "train.txt"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(lines[:-1]), encoding="utf-8")


def a_picture(folder: Path) -> None:
    """Another one of as many bytes: only what it holds tells."""
    for name, colour in (("3.png", 10), ("4.png", 11)):
        Image.new("L", (10, 8), colour).save(folder / name)


def an_embedding(folder: Path) -> None:
    np.save(folder / "3.npy", np.full(4, 0.5, np.float32))


CHANGES = {
    a_caption: "other rows or captions", a_value: "other rows", the_order: "other rows", a_row: "11 samples then, 10 now",
    a_picture: "other pictures", an_embedding: "other embeddings",
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changed_under_a_checkpoint_stops_a_resume_and_a_new_run_says_it(
    own: Path, tmp_path: Path, change: Any
) -> None:
    if change is a_picture:
        for name, colour in (("3.png", 20), ("4.png", 21)):
            Image.new("L", (10, 8), colour).save(own / name)
    output, message = tmp_path / "output", CHANGES[change]
    assert runs.train_here(settings(own), output) == 0
    change(own)
    assert runs.train_here(settings(own, 4), output, *LATEST) == 2
    ended = runs.outcome(output)
    assert ended.reason == "IncompatibleCheckpoint"
    assert "was trained on other data than what train.txt gives now" in ended.message
    assert message in ended.message
    begun = ("--resume_from_checkpoint", str(output / "checkpoint-2"))
    assert runs.train_here(settings(own, 3), tmp_path / "new", *begun) == 0
    (start,) = [line["start"] for line in runs.history(tmp_path / "new") if "start" in line]
    (notice,) = start["notices"]
    assert notice.startswith("begins from a checkpoint of other data: ")
    assert message in notice
    progress = json.loads((tmp_path / "new" / "progress.json").read_text(encoding="utf-8"))
    assert progress["notice"] == notice


@pytest.mark.process
def test_the_same_data_elsewhere_is_the_same(own: Path, tmp_path: Path) -> None:
    output, moved = tmp_path / "output", tmp_path / "moved"
    assert runs.train_here(settings(own), output) == 0
    own.rename(moved)
    table = (moved / "train.txt").read_bytes()
    (moved / "train.txt").write_bytes(table.replace(b"\n", b"\r\n"))  # as another editor saves it
    for verify in ("open", "none"):
        run = setup.prepare(
            tiny.configuration(settings(moved, 4, verify=verify)), setup.RunOptions(output, "latest", lambda _: None)
        )
        assert run.state.notices == []


@pytest.mark.process
def test_a_checkpoint_that_has_no_digests_is_gone_on_from(own: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert runs.train_here(settings(own), output) == 0
    file = output / "checkpoint-2" / "trainer_state.json"
    kept = json.loads(file.read_text(encoding="utf-8"))
    for name in ("data", "circumstances", "run_id", "samples_skipped"):
        del kept[name]
    text = json.dumps(kept)
    seal = next((output / "checkpoint-2").glob("complete-rank-*.json"))
    sealed = json.loads(seal.read_text(encoding="utf-8"))
    sealed["files"]["trainer_state.json"] = len(text)
    seal.write_text(json.dumps(sealed), encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    (output / "checkpoint-2" / "scheduler.json").write_text(
        json.dumps({"last_epoch": 2, "_step_count": 3}).ljust(
            (output / "checkpoint-2" / "scheduler.json").stat().st_size
        ),
        encoding="utf-8",
    )
    a_caption(own)
    assert runs.train_here(settings(own, 4), output, *LATEST) == 0


def test_a_picture_that_several_rows_show_counts_once_whoever_reads_it() -> None:
    record = DataRecord("train.txt", "", 3, "a", rows="b")
    assert trained_data.changes(trained_data.kept_of(record), record) == []
    assert trained_data.changes({}, record) == []
    assert trained_data.changes({"pictures": None, "rows": "b", "samples": 3}, record) == []


def test_what_else_bits_depend_on_is_said_when_it_has_changed() -> None:
    before = {"torch": "2.14.0", "processes": 2, "cuDNN": "9"}
    assert circumstances.changes(before, {"torch": "2.15.0", "processes": 2, "threads": 1}) == [
        "torch 2.14.0 then, 2.15.0 now"
    ]


@pytest.mark.process
def test_a_run_that_goes_on_with_other_libraries_says_so_first(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs.train_here(settings(own), tmp_path / "output") == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    said: list[str] = []
    setup.prepare(tiny.configuration(settings(own, 4)), setup.RunOptions(tmp_path / "output", "latest", said.append))
    resumed = next(number for number, line in enumerate(said) if line.startswith("resuming from"))
    assert said[resumed + 1] == "continues, but not with bit-identical results: threads 1 then, 7 now"
