"""The history of a run goes with its checkpoints, and is cut where a run goes on."""

import json
import shutil
from pathlib import Path

import pytest

from adapter_api.layout import CHECKPOINT_HISTORY_FILE, HISTORY_FILE
from adapter_trainer.reporting.history import History, Line, read_history
from tests.trainer.support import runs, tiny


def write(file: Path, steps: list[int], more: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in steps) + more, encoding="utf-8")
    return file


def steps_of(lines: list[Line]) -> list[int]:
    return [line["step"] for line in lines]


def test_steps_that_are_repeated_are_cut_with_the_line_that_a_killed_process_was_writing(tmp_path: Path) -> None:
    write(tmp_path / HISTORY_FILE, [1, 2, 3, 4], more='{"step": 5, "lo')
    history = History(tmp_path)
    history.resume(2, None)
    history.add({"step": 3, "loss": 0.5})
    assert steps_of(read_history(tmp_path / HISTORY_FILE)) == [1, 2, 3]


def test_a_checkpoint_gives_back_the_history_that_its_folder_has_lost_or_never_had(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint-4" / CHECKPOINT_HISTORY_FILE, [1, 2, 3, 4])
    History(tmp_path).resume(4, tmp_path / "checkpoint-4")
    assert steps_of(read_history(tmp_path / HISTORY_FILE)) == [1, 2, 3, 4]
    write(tmp_path / HISTORY_FILE, [3, 7])
    History(tmp_path).resume(4, tmp_path / "checkpoint-4")
    assert steps_of(read_history(tmp_path / HISTORY_FILE)) == [1, 2, 3, 4]


def test_what_is_no_history_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / HISTORY_FILE
    file.write_bytes(b'[1]\n{"loss": 1}\n\xff\xfe\n{"step": 1, "loss": 2}\n')
    assert read_history(file) == [{"step": 1, "loss": 2}]
    assert read_history(tmp_path / "absent.jsonl") == []


@pytest.mark.process
def test_a_run_that_goes_on_from_its_checkpoint_in_an_empty_folder_has_its_whole_history(tmp_path: Path) -> None:
    data, output, elsewhere = tiny.write_data(tmp_path / "data"), tmp_path / "output", tmp_path / "elsewhere"
    assert runs.train_here(tiny.settings(data), output) == 0
    elsewhere.mkdir()
    shutil.copytree(output / "checkpoint-3", elsewhere / "checkpoint-3")
    longer = tiny.settings(data, {"optimization": {"max_train_steps": 5}})
    assert runs.train_here(longer, elsewhere, "--resume_from_checkpoint", "latest") == 0
    assert list(runs.losses(elsewhere)) == [1, 2, 3, 4, 5]
    assert [line["step"] for line in runs.history(elsewhere) if "start" in line] == [0, 3]
