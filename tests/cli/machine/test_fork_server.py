"""What of a local run is forked, and where nothing is."""

from pathlib import Path

import pytest

from atj.machine.fork_server import forked, is_of_use


def test_torchrun_and_the_trainers_it_starts_are_forked() -> None:
    command = ("python", "-m", "torch.distributed.run", "--nnodes=2", "-m", "adapter_trainer.train", "--config", "c")
    assert forked(command) == (
        "python", "-m", "adapter_trainer.forked", "torch.distributed.run", "--nnodes=2",
        "-m", "adapter_trainer.forked", "adapter_trainer.train", "--config", "c",
    )  # fmt: skip


@pytest.mark.parametrize("device", ["nvidiactl", "kfd", "dxg", "accel"])
def test_nothing_is_forked_where_there_is_an_accelerator(tmp_path: Path, device: str) -> None:
    assert is_of_use(tmp_path)
    (tmp_path / device).touch()
    assert not is_of_use(tmp_path)
