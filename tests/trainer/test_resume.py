"""A killed run that is resumed computes what the uninterrupted run computes, bit by bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
STEPS = 150
SAMPLES = 20
"""With 4 samples a step, an epoch ends after 5 steps."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    data = tmp_path / "data"
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
                "adapters_config": {"style": {"column": "label", "null": "learned"}},
            }
        },
        "data": {"params": {"resolution": 8, "image_mode": "L", "data_root_path": str(data), "random_flip": True}},
        "optimization": {
            "train_batch_size": 4, "max_train_steps": STEPS, "lr_scheduler": "cosine", "ema": {"decay": 0.9},
        },
        "checkpoint": {"save_steps": 3, "keep_last": 2},
        "logging": {"log_steps": 1},
    }  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def start(config: Path, output: Path, processes: int, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    if processes == 1:
        command = [sys.executable]
    path = os.pathsep.join(str(ROOT / part) for part in ("api", "trainer"))
    return subprocess.Popen(
        [*command, "-m", "adapter_trainer.train", "--config", str(config), "--output_dir", str(output), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def history(output: Path) -> dict[int, float]:
    lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def tensors(output: Path) -> dict[str, Any]:
    folder = output / f"checkpoint-{STEPS}"
    files = [path for path in sorted(folder.rglob("*.safetensors")) if not path.name.startswith("random-rank")]
    return {f"{path.name}:{name}": value for path in files for name, value in load_file(path).items()}


def kill_after(run: subprocess.Popen[bytes], output: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while not (output / "metrics.jsonl").exists() or max(history_so_far(output), default=0) < step:
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    # The whole session, as a lost machine would: workers of torchrun are in sessions of their own.
    for line in subprocess.check_output(["ps", "-eo", "pid,args"], text=True).splitlines():
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


@pytest.mark.parametrize(("processes", "killed_at"), [(1, 4), (1, 8), (2, 8)], ids=["mid-epoch", "later-epoch", "two"])
def test_killed_run_resumes_bit_by_bit(config: Path, tmp_path: Path, processes: int, killed_at: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(config, whole, processes).wait() == 0
    kill_after(start(config, killed, processes), killed, killed_at)
    assert not (killed / f"checkpoint-{STEPS}").exists()
    assert start(config, killed, processes, "--resume_from_checkpoint", "latest").wait() == 0
    assert history(killed) == history(whole)
    expected, got = tensors(whole), tensors(killed)
    assert expected.keys() == got.keys()
    assert all(np.array_equal(expected[name], got[name]) for name in expected)


def test_another_number_of_processes_sees_the_same_samples(config: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert start(config, one, 1).wait() == 0
    assert start(config, two, 2, "--train_batch_size", "2").wait() == 0
    expected, got = history(one), history(two)
    assert expected.keys() == got.keys()
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-4)
