"""The smallest data and configurations that exercise a part of the trainer; 8 x 8 pixels, two-block UNets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from transformers import CLIPTokenizer

from adapter_api.document import Document, validate
from adapter_api.training import TrainingConfig

Settings = dict[str, Any]

LABELS = 3
SAMPLES = 11

UNET: Settings = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}
"""Six cross-attention layers: one in down_blocks.1, two in up_blocks.0, one in mid_block."""

LABEL_COLUMN = {"name": "digit", "kind": "label", "width": LABELS}
VECTOR_COLUMN = {"name": "shape", "kind": "vector", "width": 5}


def merged(base: Settings, changes: Mapping[str, Any]) -> Settings:
    """`base` with nested `changes`; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return result


def settings(data: Path | str = "/data", changes: Mapping[str, Any] | None = None) -> Settings:
    """A UNet on pixels, trained together with label_to_token."""
    base: Settings = {
        "seed": 3,
        "model": {
            "params": {
                "unet_config": {"train": True, "params": UNET},
                "first_stage_config": {"target": "Pixels"},
                "token_conditioners": {"label_to_token": {"params": {"num_tokens": 2}, "dropout": 0.3}},
            }
        },
        "data": {
            "params": {
                "resolution": 8,
                "image_mode": "L",
                "data_root_path": str(data),
                "columns": [LABEL_COLUMN, VECTOR_COLUMN],
            }
        },
        "optimization": {"train_batch_size": 4, "learning_rate": 0.002, "max_train_steps": 3},
        "logging": {"log_steps": 1, "html_report": False},
    }
    return merged(base, changes or {})


def configuration(given: Settings) -> TrainingConfig:
    return validate(TrainingConfig, Document("tiny.yaml", given))


def write_settings(path: Path, given: Settings) -> Path:
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    return path


def write_data(folder: Path, samples: int = SAMPLES) -> Path:
    """Random 10 x 8 pictures, a caption, a label and a vector for each, as pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    lines = []
    for index in range(samples):
        pixels = random.integers(0, 256, (10, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        vector = " ".join(f"{number:.3f}" for number in random.standard_normal(5))
        lines.append(f"{index}.png\ta picture of {index}\t{index % LABELS}\t{vector}\n")
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def write_tokenizer(folder: Path) -> Path:
    """A CLIP tokenizer that knows lower-case letters and digits only."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    tokenizer.save_pretrained(folder)
    return folder


def text_encoder(tokenizer: Path, **more: Any) -> Settings:
    """A CLIP text encoder of width 16 for `write_tokenizer`'s tokens."""
    shape = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 16, "vocab_size": 80, "max_position_embeddings": 12,
    }  # fmt: skip
    return {"params": shape, "tokenizer": str(tokenizer), **more}


IMAGE_ENCODER: Settings = {
    "params": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 12, "image_size": 16, "patch_size": 8,
    }
}  # fmt: skip
"""A CLIP vision encoder that reads 16 x 16 pixels as four patches."""
