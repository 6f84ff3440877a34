"""Which local checkpoint folders are trusted, which is the newest, and which are to go."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adapter_api.layout import METRICS_FILE, STATE_FILE
from adapter_api.retention import Policy
from adapter_api.sections import KeepBest
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.arena import Contents
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DamagedCheckpoint
from tests.trainer.support.checkpoints import saved

ALONE = Processes()


def write(output: Path, step: int) -> Path:
    return saved(output, step, Contents(blobs={STATE_FILE: b"{}", "model/unet.safetensors": b"0123456789"}))


@pytest.mark.process
def test_a_checkpoint_lists_every_file_with_its_size(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    assert folder == tmp_path / "checkpoint-7"
    assert checkpoint_folder.fault_of(folder) is None
    assert checkpoint_folder.latest_step(tmp_path, ALONE) == 7


DAMAGES: dict[str, Callable[[Path], object]] = {
    "has 5 bytes, not ": lambda folder: os.truncate(folder / "model" / "unet.safetensors", 5),
    "is missing": lambda folder: (folder / "model" / "unet.safetensors").unlink(),
    "was never finished": lambda folder: (folder / "complete-rank-00000.json").unlink(),
    "cannot be read": lambda folder: os.truncate(folder / "complete-rank-00000.json", 9),
}


@pytest.mark.process
@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(tmp_path: Path, message: str) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    DAMAGES[message](folder)
    assert message in (checkpoint_folder.fault_of(folder) or "")
    with pytest.raises(DamagedCheckpoint, match=message):
        checkpoint_folder.check(folder)
    assert checkpoint_folder.latest_step(tmp_path, ALONE) == 1


def test_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-x", "checkpoint-01", "checkpoint--1", ".checkpoint-3.tmp", "logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / STATE_FILE).write_text("{}", encoding="utf-8")
    (tmp_path / "checkpoint-9").touch()
    assert checkpoint_folder.latest_step(tmp_path, ALONE) is None
    assert checkpoint_folder.latest_step(tmp_path / "gone", ALONE) is None


KEPT = [(None, [1, 2, 3, 4]), (1, [4]), (2, [3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])]


@pytest.mark.parametrize(("keep", "kept"), KEPT)
def test_retention_keeps_the_newest(tmp_path: Path, keep: int | None, kept: list[int]) -> None:
    for step in (1, 2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
    gone = checkpoint_folder.doomed(tmp_path, Policy(last=keep), 4, {})
    assert sorted({1, 2, 3, 4} - set(gone)) == kept


@pytest.mark.process
def test_retention_keeps_also_the_best_and_every_so_many_steps(tmp_path: Path) -> None:
    for step, loss in ((2, 0.5), (3, 0.1), (4, 0.4), (5, 0.3)):
        folder = write(tmp_path, step)
        (folder / METRICS_FILE).write_text(json.dumps({"loss": loss}), encoding="utf-8")
    policy = Policy(last=1, every=2, best=KeepBest(metric="loss", count=1))
    metrics = {**checkpoint_folder.metrics_of(tmp_path), 6: {"loss": 0.2}}
    assert checkpoint_folder.doomed(tmp_path, policy, 6, metrics) == [5]


def held(pass_id: str) -> checkpoint_folder.Held:
    return checkpoint_folder.Held(state=True, tensors=["model/unet.safetensors"], pass_id=pass_id)


def test_nodes_go_on_from_a_step_that_they_have_of_one_pass() -> None:
    first = {10: held("first"), 20: held("first")}
    assert checkpoint_folder.newest_of([first, first]) == 20
    assert checkpoint_folder.newest_of([first, {10: held("first"), 20: held("second")}]) == 10
    assert checkpoint_folder.newest_of([{20: held("first")}, {20: held("second")}]) is None


def test_a_folder_of_two_passes_is_no_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    for rank, pass_id in enumerate(("first", "first")):
        (folder / f"complete-rank-{rank:05d}.json").write_text(f'{{"step": 10, "pass": "{pass_id}", "files": {{}}}}')
    assert checkpoint_folder.fault_of(folder) is None
    (folder / "complete-rank-00001.json").write_text('{"step": 10, "pass": "second", "files": {}}')
    assert (
        checkpoint_folder.fault_of(folder)
        == "complete-rank-00001.json is of another pass than complete-rank-00000.json"
    )


def test_a_checkpoint_of_an_older_build_is_of_no_pass_and_gone_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    (folder / "complete-rank-00000.json").write_text('{"step": 10, "files": {}}')
    assert checkpoint_folder.complete_steps(tmp_path)[10].pass_id == ""
