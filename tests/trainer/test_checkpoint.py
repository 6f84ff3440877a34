"""A checkpoint folder is complete or absent, whatever interrupts its writing."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapter_api.retention import Policy
from adapter_api.training import KeepBest
from adapter_trainer import checkpoint
from adapter_trainer.errors import DamagedCheckpoint, DiskFull, TrainingError
from adapter_trainer.processes import Processes

ALONE = Processes()


def fill(folder: Path) -> None:
    (folder / "model").mkdir()
    save_file({"weight": torch.ones(10)}, folder / "model" / "unet.safetensors")
    (folder / checkpoint.STATE_FILE).write_text("{}", encoding="utf-8")


def write(output: Path, step: int, how: Callable[[Path], None] = fill) -> Path:
    return checkpoint.write(output, step, how, ALONE)


def names(output: Path) -> set[str]:
    return {path.name for path in output.iterdir()}


def test_a_checkpoint_lists_every_file_with_its_size(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    assert folder == tmp_path / "checkpoint-7"
    assert checkpoint.fault_of(folder) is None
    assert checkpoint.latest_step(tmp_path, ALONE) == 7
    assert names(tmp_path) == {"checkpoint-7"}


def fail(error: Exception) -> Callable[[Path], None]:
    def fill_and_fail(folder: Path) -> None:
        fill(folder)
        raise error

    return fill_and_fail


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(28, "No space left on device"), DiskFull, "no space left on the device"),
        (OSError(122, "Disk quota exceeded"), DiskFull, "no space left on the device"),
        (OSError(5, "Input/output error"), TrainingError, "cannot be written: .*Input/output error"),
    ],
)
def test_a_failure_while_writing_leaves_nothing_and_no_older_checkpoint_harmed(
    tmp_path: Path, error: Exception, raised: type[TrainingError], message: str
) -> None:
    write(tmp_path, 1)
    with pytest.raises(raised, match=message) as caught:
        write(tmp_path, 2, fail(error))
    assert str(tmp_path / "checkpoint-2") in str(caught.value)
    assert names(tmp_path) == {"checkpoint-1"}
    assert checkpoint.fault_of(tmp_path / "checkpoint-1") is None


def fill_and_die(folder: Path) -> None:
    fill(folder)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_while_writing_leaves_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    process = multiprocessing.get_context("fork").Process(target=write, args=(tmp_path, 2, fill_and_die))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert checkpoint.complete_steps(tmp_path) == {1: True}
    assert not (tmp_path / "checkpoint-2").exists()
    checkpoint.clear_remains(tmp_path, ALONE)
    assert names(tmp_path) == {"checkpoint-1"}


def test_a_reader_sees_a_checkpoint_whole_or_not_at_all(tmp_path: Path) -> None:
    seen: list[str | None] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(checkpoint.fault_of(folder) for folder in tmp_path.glob("checkpoint-*"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(1, 30):
        write(tmp_path, step)
    done.set()
    watcher.join()
    assert seen
    assert set(seen) == {None}


DAMAGES: dict[str, Callable[[Path], object]] = {
    "has 5 bytes, not ": lambda folder: os.truncate(folder / "model" / "unet.safetensors", 5),
    "is missing": lambda folder: (folder / "model" / "unet.safetensors").unlink(),
    "was never finished": lambda folder: (folder / "complete-rank-00000.json").unlink(),
    "cannot be read": lambda folder: os.truncate(folder / "complete-rank-00000.json", 9),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(tmp_path: Path, message: str) -> None:
    write(tmp_path, 1)
    folder = write(tmp_path, 2)
    DAMAGES[message](folder)
    assert message in (checkpoint.fault_of(folder) or "")
    with pytest.raises(DamagedCheckpoint, match=message):
        checkpoint.check(folder)
    assert checkpoint.latest_step(tmp_path, ALONE) == 1


def test_other_names_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-x", "checkpoint-01", "checkpoint--1", ".checkpoint-3.tmp", "logs"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    (tmp_path / "checkpoint-9").touch()
    assert checkpoint.latest_step(tmp_path, ALONE) is None
    assert checkpoint.latest_step(tmp_path / "gone", ALONE) is None


@pytest.mark.parametrize(
    ("keep", "kept"), [(None, [1, 2, 3, 4]), (1, [4]), (2, [3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])]
)
def test_retention_keeps_the_newest(tmp_path: Path, keep: int | None, kept: list[int]) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    checkpoint.retain(tmp_path, Policy(last=keep), 4, ALONE)
    assert names(tmp_path) == {f"checkpoint-{step}" for step in kept}


def test_retention_keeps_also_the_best_and_every_so_many_steps(tmp_path: Path) -> None:
    for step, loss in ((2, 0.5), (3, 0.1), (4, 0.4), (5, 0.3), (6, 0.2)):
        folder = write(tmp_path, step)
        (folder / "metrics.json").write_text(json.dumps({"loss": loss}), encoding="utf-8")
    policy = Policy(last=1, every=2, best=KeepBest(metric="loss", count=1))
    checkpoint.retain(tmp_path, policy, 6, ALONE)
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-3", "checkpoint-4", "checkpoint-6"}


def test_remains_of_an_interrupted_deletion_do_not_stop_the_next(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    (tmp_path / ".checkpoint-1.deleted").mkdir()
    (tmp_path / ".checkpoint-1.deleted" / "rest").touch()
    checkpoint.retain(tmp_path, Policy(last=1), 2, ALONE)
    assert names(tmp_path) == {"checkpoint-2"}


def fill_anew(folder: Path) -> None:
    (folder / checkpoint.STATE_FILE).write_text("new", encoding="utf-8")


def test_a_step_written_again_replaces_what_stood_there(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 1, fill_anew)
    assert (tmp_path / "checkpoint-1" / checkpoint.STATE_FILE).read_text(encoding="utf-8") == "new"
    assert not (tmp_path / "checkpoint-1" / "model").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def large(folder: Path) -> None:
    save_file({"weight": torch.ones(100_000)}, folder / "large.safetensors")


def large_text(folder: Path) -> None:
    (folder / "large.json").write_text("x" * 400_000, encoding="utf-8")


@pytest.mark.parametrize("how", [large, large_text])
def test_a_full_disk_is_told_and_the_older_checkpoint_stands(small_disk: Path, how: Any) -> None:
    write(small_disk, 1)
    with pytest.raises(DiskFull, match="no space left on the device; free some, or keep fewer checkpoints"):
        write(small_disk, 2, how)
    assert names(small_disk) == {"checkpoint-1"}
    assert checkpoint.latest_step(small_disk, ALONE) == 1
