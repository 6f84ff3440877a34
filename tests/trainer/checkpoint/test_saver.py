"""A save copies while training goes on and writes in a process of its own; the folder is complete or absent, whatever happens."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapter_api.layout import STATE_FILE
from adapter_api.retention import Policy
from adapter_trainer.checkpoint import checkpoint_folder, writer
from adapter_trainer.checkpoint.arena import Arena, Contents
from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DiskFull, TrainingError
from tests.support.waiting import wait_until
from tests.trainer.support import runs, tiny
from tests.trainer.support.checkpoints import SMALL, saved, saver_of

CPU = torch.device("cpu")


def names(output: Path) -> set[str]:
    return {path.name for path in output.iterdir()}


DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool])
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(DTYPES, SHAPES), max_size=6))
def test_files_are_laid_out_as_safetensors_writes_them(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    made = {name: (10 * torch.rand(shape, generator=generator)).to(dtype) for name, (dtype, shape) in tensors.items()}
    expected = tmp_path_factory.mktemp("files") / "file.safetensors"
    save_file(made, expected)
    arena = Arena(CPU)
    pairs, spans = arena.place(Contents({"file.safetensors": made}, {"note": b"text"}))
    for place, tensor in pairs:
        place.copy_(tensor)
    span = spans["file.safetensors"]
    assert os.pread(arena.descriptor, span.size, span.offset) == expected.read_bytes()
    assert os.pread(arena.descriptor, 4, spans["note"].offset) == b"text"
    del pairs
    arena.close()


@pytest.mark.process
def test_weights_of_any_memory_format_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last)
    folder = saved(tmp_path, 1, Contents({"a.safetensors": {"weight": weight}}))
    assert torch.equal(load_file(folder / "a.safetensors")["weight"], weight)


@pytest.mark.process
def test_what_changes_after_settle_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    saver, weight = saver_of(tmp_path), torch.zeros(1_000_000)
    for step in (1, 2, 3):
        saver.begin(step, Contents({"a.safetensors": {"weight": weight}}))
        saver.settle()
        weight += 1
        saver.finish()
    saver.close()
    for step in (1, 2, 3):
        kept = load_file(tmp_path / f"checkpoint-{step}" / "a.safetensors")["weight"]
        assert torch.equal(kept, torch.full_like(kept, step - 1))


@pytest.mark.process
def test_memory_is_taken_once_however_often_is_saved(tmp_path: Path) -> None:
    saver, weight = saver_of(tmp_path), torch.zeros(1_000_000)
    for step in range(1, 6):
        saver.begin(step, Contents({"a.safetensors": {"weight": weight}}, {"note": b"x" * step}))
        saver.finish()
    assert os.fstat(saver._arena.descriptor).st_size < weight.nbytes * 1.1
    saver.close()


@pytest.mark.process
def test_a_reader_sees_a_checkpoint_whole_or_not_at_all(tmp_path: Path) -> None:
    seen: list[str | None] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.extend(checkpoint_folder.fault_of(folder) for folder in tmp_path.glob("checkpoint-*"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    saver = saver_of(tmp_path)
    for step in range(1, 30):
        saver.begin(step, SMALL)
        saver.finish()
    saver.close()
    done.set()
    watcher.join()
    assert seen
    assert set(seen) == {None}


@pytest.mark.process
def test_older_checkpoints_go_when_the_new_one_stands(tmp_path: Path) -> None:
    saver = saver_of(tmp_path, keep_last=2)
    for step in (1, 2, 3, 4):
        saver.begin(step, SMALL)
        saver.finish()
    saver.close()
    assert names(tmp_path) == {"checkpoint-3", "checkpoint-4"}


@pytest.mark.process
def test_remains_of_an_interrupted_deletion_do_not_stop_the_next(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".checkpoint-1.deleted").mkdir()
    (tmp_path / ".checkpoint-1.deleted" / "rest").touch()
    saved(tmp_path, 2, keep_last=1)
    assert names(tmp_path) == {"checkpoint-2"}


@pytest.mark.process
def test_a_step_written_again_replaces_what_stood_there(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    folder = saved(tmp_path, 1, Contents(blobs={STATE_FILE: b"new"}))
    assert (folder / STATE_FILE).read_bytes() == b"new"
    assert not (folder / "model").exists()


@pytest.mark.process
def test_a_writer_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    said: list[str] = []
    saver = Saver(tmp_path, Processes(), CPU, Policy(), said.append)
    saver.begin(1, SMALL)
    saver.finish()
    assert saver._writer is not None
    os.kill(saver._writer._process.pid, signal.SIGKILL)
    saver.begin(2, SMALL)
    assert saver.finish() == 2
    saver.close()
    assert set(checkpoint_folder.complete_steps(tmp_path)) == {1, 2}
    assert said == ["the process that writes checkpoints was killed (signal 9); another one writes the copy"]


@pytest.mark.process
def test_a_writer_that_cannot_live_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    saver = saver_of(tmp_path)
    saver.begin(1, SMALL)
    with pytest.raises(TrainingError, match=r"was killed \(exit code 1\), twice; is memory short\?"):
        saver.finish()
    assert names(tmp_path) == set()


@pytest.mark.process
def test_a_writer_dies_with_its_trainer(tmp_path: Path) -> None:
    """Killed while the writer waits for another rank's files, the trainer leaves no process and no checkpoint."""
    script = f"""
import sys, time, torch
from pathlib import Path
from adapter_api.retention import Policy
from adapter_trainer.checkpoint.arena import Contents
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.checkpoint.saver import Saver
saver = Saver(Path({str(tmp_path)!r}), Processes(sharing=(0, 1)), torch.device("cpu"), Policy(), print)
saver.begin(1, Contents(blobs={{"a": b"b"}}))
while not (Path({str(tmp_path)!r}) / ".checkpoint-1.tmp" / ".written-by-0").exists():
    time.sleep(0.01)
print(saver._writer._process.pid, flush=True)
time.sleep(60)
"""
    trainer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=runs.environment()
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    trainer.kill()
    trainer.communicate()
    wait_until("the writer has ended", lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    assert names(tmp_path) == {".checkpoint-1.tmp"}
    assert checkpoint_folder.latest_step(tmp_path, Processes()) is None
    checkpoint_folder.clear_remains(tmp_path, Processes())
    assert names(tmp_path) == set()


def test_ranks_that_share_a_folder_make_one_checkpoint(tmp_path: Path) -> None:
    memory = os.memfd_create("test")
    os.write(memory, b"zeroone")

    def command(rank: int) -> writer.Command:
        aside, final = str(tmp_path / ".checkpoint-5.tmp"), str(tmp_path / "checkpoint-5")
        files = {f"random-rank-{rank}": [(0, 4), (4, 3)][rank]}
        return writer.Command(aside, final, files, 5, rank, [0, 1], [])

    leader = threading.Thread(target=writer.carry_out, args=(command(0), memory))
    leader.start()
    assert not (tmp_path / "checkpoint-5").exists()
    writer.carry_out(command(1), memory)
    leader.join(10)
    os.close(memory)
    assert checkpoint_folder.fault_of(tmp_path / "checkpoint-5") is None
    assert (tmp_path / "checkpoint-5" / "random-rank-1").read_bytes() == b"one"
    assert names(tmp_path / "checkpoint-5") == {"random-rank-0", "random-rank-1", "complete-rank-00000.json"}


class _OtherFails(Processes):
    """Rank 0 of two; the other one could not write."""

    def gather(self, value: object) -> list[object]:  # type: ignore[override]
        return [value, DiskFull("the other rank's disk is full")]


@pytest.mark.process
def test_a_rank_that_cannot_write_fails_the_save_of_all_without_a_wait(tmp_path: Path) -> None:
    saver = Saver(tmp_path, _OtherFails(0, 2, sharing=(0, 1)), CPU, Policy(), lambda _: None)
    saver.begin(1, SMALL)
    with pytest.raises(DiskFull, match="the other rank's disk"):
        saver.finish()
    assert names(tmp_path) == set()


@pytest.mark.process
def test_a_disk_that_a_save_has_filled_has_room_again_when_training_ends_for_it(small_disk: Path) -> None:
    saver = saver_of(small_disk)
    saver.begin(2, Contents({"large.safetensors": {"weight": torch.ones(100_000)}}))
    saver.close()  # as where something else failed first for want of room
    (small_disk / "outcome.json").write_bytes(b"x" * 200_000)
    assert names(small_disk) == {"outcome.json"}


LARGE = {
    "tensors": Contents({"large.safetensors": {"weight": torch.ones(100_000)}}),
    "text": Contents(blobs={"large.json": b"x" * 400_000}),
}


@pytest.mark.process
@pytest.mark.parametrize("what", LARGE)
def test_a_full_disk_is_told_and_the_older_checkpoint_stands(small_disk: Path, what: str) -> None:
    saved(small_disk, 1)
    saver = saver_of(small_disk)
    saver.begin(2, LARGE[what])
    with pytest.raises(DiskFull, match="checkpoint-2: no space left on the device; free some, or keep fewer"):
        saver.finish()
    assert names(small_disk) == {"checkpoint-1"}
    assert checkpoint_folder.latest_step(small_disk, Processes()) == 1


@pytest.mark.process
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-2.tmp").touch()
    saver = saver_of(tmp_path)
    saver.begin(2, SMALL)
    with pytest.raises(TrainingError, match=r"checkpoint-2: cannot be written: .*File exists"):
        saver.finish()


@pytest.mark.process
def test_a_failed_save_ends_training_at_the_next_step(tmp_path: Path) -> None:
    data = tiny.write_data(tmp_path / "data")
    changes = {"checkpoint": {"save_steps": 2}, "optimization": {"max_train_steps": 5000}}
    output = tmp_path / "output"
    output.mkdir()
    (output / "checkpoint-2").write_text("in the way", encoding="utf-8")
    assert runs.train_here(tiny.settings(data, changes), output) == 1
    told = runs.outcome(output)
    assert "checkpoint-2: cannot be written" in told.message
    assert told.step < 5000
