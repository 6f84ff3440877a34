"""A killed run that is resumed computes what the uninterrupted run computes, bit by bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from tests.support.repository import REPOSITORY
from tests.support.waiting import wait_until

pytestmark = pytest.mark.process

STEPS = 60
SAMPLES = 20
"""With 4 samples a step, an epoch ends after 5 steps."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    data = folder / "data"
    data.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for index in range(SAMPLES):
        Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8)).save(data / f"{index}.png")
        lines.append(f"{index}.png\tnumber {index % 3}\t{index % 3}\n")
    (data / "train.txt").write_text("".join(lines), encoding="utf-8")
    unet = {
        "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 1], "attention_head_dim": [1, 2], "cross_attention_dim": 16,
        "norm_num_groups": 4, "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64,
    }  # fmt: skip
    settings = {
        "model": {
            "params": {
                "unet_config": {"train": True, "params": unet},
                "first_stage_config": {"target": "Pixels"},
                "token_conditioners": {"label_to_token": {"params": {"num_tokens": 2}}},
                "adapters_config": {"style": {"column": "label", "null_condition": "learned"}},
            }
        },
        "data": {"params": {"resolution": 8, "image_mode": "L", "data_root_path": str(data), "random_flip": True}},
        "optimization": {
            "train_batch_size": 4, "max_train_steps": STEPS, "lr_scheduler": "cosine", "ema": {"decay": 0.9},
        },
        "checkpoint": {"save_steps": 3, "keep_last": 2},
        "logging": {"log_steps": 1, "html_report": False},
    }  # fmt: skip
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def start(config: Path, output: Path, processes: int, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    if processes == 1:
        command = [sys.executable]
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("api", "trainer"))
    return subprocess.Popen(
        [*command, "-m", "adapter_trainer.train", "--config", str(config), "--output_dir", str(output), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def history(output: Path) -> dict[int, float]:
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def tensors(output: Path) -> dict[str, Any]:
    folder = output / f"checkpoint-{STEPS}"
    files = [path for path in sorted(folder.rglob("*.safetensors")) if not path.name.startswith("random-rank")]
    return {f"{path.name}:{name}": value for path in files for name, value in load_file(path).items()}


def kill_after(run: subprocess.Popen[bytes], output: Path, step: int) -> None:
    def has_made_it() -> bool:
        assert run.poll() is None, "the run ended before it could be killed"
        return (output / "metrics.jsonl").exists() and max(history_so_far(output), default=0) >= step

    wait_until(f"step {step}", has_made_it, 200, pause=0.002)
    # The whole session, as a lost machine would: workers of torchrun are in sessions of their own.
    for line in subprocess.check_output(["ps", "-ww", "-eo", "pid,args"], text=True).splitlines():
        pid, _, arguments = line.strip().partition(" ")
        if str(output) in arguments:
            os.kill(int(pid), signal.SIGKILL)
    run.wait()


def history_so_far(output: Path) -> list[int]:
    steps = []
    for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            steps.append(int(json.loads(line)["step"]))
        except ValueError:
            continue
    return steps


@pytest.fixture(scope="module")
def one(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an uninterrupted run of one process."""
    output = tmp_path_factory.mktemp("one")
    assert start(config, output, 1).wait() == 0
    return output


@pytest.fixture(scope="module")
def two(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an uninterrupted run of two processes with the same global batch."""
    output = tmp_path_factory.mktemp("two")
    assert start(config, output, 2, "--train_batch_size", "2").wait() == 0
    return output


@pytest.mark.parametrize("killed_at", [4, 8], ids=["mid-epoch", "later-epoch"])
def test_killed_process_resumes_bit_by_bit(config: Path, one: Path, tmp_path: Path, killed_at: int) -> None:
    kill_after(start(config, tmp_path, 1), tmp_path, killed_at)
    assert not (tmp_path / f"checkpoint-{STEPS}").exists()
    assert start(config, tmp_path, 1, "--resume_from_checkpoint", "latest").wait() == 0
    assert_equal(tmp_path, one)


def test_killed_processes_resume_bit_by_bit(config: Path, two: Path, tmp_path: Path) -> None:
    batch = ("--train_batch_size", "2")
    kill_after(start(config, tmp_path, 2, *batch), tmp_path, 8)
    assert not (tmp_path / f"checkpoint-{STEPS}").exists()
    assert start(config, tmp_path, 2, *batch, "--resume_from_checkpoint", "latest").wait() == 0
    assert_equal(tmp_path, two)


def assert_equal(got: Path, expected: Path) -> None:
    assert history(got) == history(expected)
    weights = tensors(expected)
    assert tensors(got).keys() == weights.keys()
    assert all(np.array_equal(weights[name], value) for name, value in tensors(got).items())


def test_another_number_of_processes_trains_the_same(one: Path, two: Path) -> None:
    expected, got = history(one), history(two)
    assert expected.keys() == got.keys()
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-4)
