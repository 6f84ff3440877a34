"""`accelerate launch trainer/train.py`: flags override the configuration, trackers write, a second launch continues."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY
from tests.trainer.support import tiny

pytestmark = pytest.mark.process

ACCELERATE = [
    sys.executable, f"{sysconfig.get_path('scripts')}/accelerate", "launch", "--cpu", "--num_processes", "1",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
]  # fmt: skip


def launch(config: Path, output: Path, *flags: str) -> str:
    """What a successful launch printed. The entry point is run as a file: nothing of ours is installed for it."""
    command = [*ACCELERATE, "trainer/train.py", "--config", str(config), "--output_dir", str(output), *flags]
    hidden = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {**hidden, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launch")
    return tiny.write_settings(folder / "config.yaml", tiny.settings(tiny.write_data(folder)))


def test_flags_override_trackers_write_and_latest_continues(config: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    flags = ("--train_batch_size", "4", "--mixed_precision", "bf16", "--save_steps", "2")
    # 11 samples in batches of 4: an epoch is 3 steps.
    launch(config, output, *flags, "--num_train_epochs", "1", "--report_to", "tensorboard,wandb")
    assert {folder.name for folder in output.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    assert list(output.rglob("events.out.tfevents.*"))
    assert list(output.rglob("run-*.wandb"))
    said = launch(config, output, *flags, "--num_train_epochs", "2", "--report_to", "none", "--resume_from_checkpoint", "latest")  # fmt: skip
    assert f"resuming from {output / 'checkpoint-3'} at step 3 of 6" in said
    assert (output / "checkpoint-6").is_dir()
