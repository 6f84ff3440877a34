"""A killed run that is resumed computes what the uninterrupted run computes, bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.trainer.support import runs, tiny

pytestmark = pytest.mark.process

STEPS = 60
SAMPLES = 20
"""With 4 samples a step, an epoch ends after 5 steps."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tiny.Settings:
    data = tmp_path_factory.mktemp("data")
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
    return {
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


def tensors(output: Path) -> dict[str, Any]:
    folder = output / f"checkpoint-{STEPS}"
    files = [path for path in sorted(folder.rglob("*.safetensors")) if not path.name.startswith("random-rank")]
    return {f"{path.name}:{name}": value for path in files for name, value in load_file(path).items()}


BATCH = ("--train_batch_size", "2")
"""With two processes, the same global batch."""
LATEST = ("--resume_from_checkpoint", "latest")


@pytest.fixture(scope="module")
def one(given: tiny.Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an uninterrupted run of one process."""
    output = tmp_path_factory.mktemp("one")
    runs.finish(given, [output], folder=tmp_path_factory.mktemp("one-logs"))
    return output


@pytest.fixture(scope="module")
def two(given: tiny.Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of an uninterrupted run of two processes with the same global batch."""
    output = tmp_path_factory.mktemp("two")
    runs.finish(given, [output, output], *BATCH, folder=tmp_path_factory.mktemp("two-logs"))
    return output


@pytest.mark.parametrize("killed_at", [4, 8], ids=["mid-epoch", "later-epoch"])
def test_killed_process_resumes_bit_by_bit(given: tiny.Settings, one: Path, tmp_path: Path, killed_at: int) -> None:
    output = tmp_path / "output"
    run = runs.start(given, [output], folder=tmp_path)
    runs.wait_for_step(run, output, killed_at)
    run.kill()
    assert not (output / f"checkpoint-{STEPS}").exists()
    runs.finish(given, [output], *LATEST, folder=tmp_path)
    assert_equal(output, one)


def test_killed_processes_resume_bit_by_bit(given: tiny.Settings, two: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    run = runs.start(given, [output, output], *BATCH, folder=tmp_path)
    runs.wait_for_step(run, output, 8)
    run.kill()
    assert not (output / f"checkpoint-{STEPS}").exists()
    runs.finish(given, [output, output], *BATCH, *LATEST, folder=tmp_path)
    assert_equal(output, two)


def assert_equal(got: Path, expected: Path) -> None:
    assert runs.losses(got) == runs.losses(expected)
    weights = tensors(expected)
    assert tensors(got).keys() == weights.keys()
    assert all(np.array_equal(weights[name], value) for name, value in tensors(got).items())


def test_another_number_of_processes_trains_the_same(one: Path, two: Path) -> None:
    expected, got = runs.losses(one), runs.losses(two)
    assert expected.keys() == got.keys()
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-4)
