"""SDXL's adapter training at two scales: its real shapes, and the same with a tenth of the channels for a CPU."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import CLIPTokenizer

from adapter_api.training import TrainingConfig

Settings = dict[str, Any]

PICTURES = 32


@dataclass(frozen=True)
class Scale:
    """One size of everything."""

    resolution: int
    batch_size: int
    params: Settings
    """model.params, but for tokenizers."""
    mixed_precision: str
    tokens: int


def _encoder(width: int, layers: int, head: int = 64, projection: int | None = None, **more: Any) -> Settings:
    shape = {
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // head, "projection_dim": projection or width, **more,
    }  # fmt: skip
    return {"params": shape}


def _params(text: tuple[Settings, Settings], image: Settings, vae: Settings, unet: Settings) -> Settings:
    return {
        "unet_config": unet,
        "first_stage_config": vae,
        "text_config": {"encoders": [text[0], {**text[1], "target": "CLIPTextModelWithProjection"}]},
        "image_encoder_config": image,
        "adapters_config": {"picture": {"projector": {"target": "Linear", "params": {"num_tokens": 4}}}},
    }


def tiny() -> Scale:
    """A tenth of SDXL's channels, a quarter of 512² on each side; encoders with about the share of FLOPs that they have there."""
    unet = {
        "block_out_channels": [32, 64, 128], "attention_head_dim": [1, 2, 4], "cross_attention_dim": 192,
        "norm_num_groups": 16, "addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 192 + 128,
    }  # fmt: skip
    vae = {"params": {"block_out_channels": [16, 32, 64, 64], "norm_num_groups": 8}}
    text = (
        _encoder(64, 2, 32, vocab_size=80, max_position_embeddings=32),
        _encoder(128, 4, 32, vocab_size=80, max_position_embeddings=32),
    )
    image = _encoder(160, 48, 32, intermediate_size=816, image_size=56, patch_size=14, projection=128)
    return Scale(128, 4, _params(text, image, vae, {"params": unet}), "no", 32)


def compiled(scale: Scale) -> Scale:
    """The same with compiled transformer blocks."""
    unet = {**scale.params["unet_config"], "compile": True}
    return replace(scale, params={**scale.params, "unet_config": unet})


VIT_BIG_G = _encoder(1664, 48, 104, intermediate_size=8192, projection=1280, image_size=224, patch_size=14)
VIT_H = _encoder(1280, 32, 80, projection=1024, image_size=224, patch_size=14)


def sdxl(resolution: int, batch_size: int, image: Settings = VIT_BIG_G) -> Scale:
    """The published shapes (the `config.json` files of stable-diffusion-xl-base-1.0 and the CLIP models), random weights."""
    text = (
        _encoder(768, 12, vocab_size=49_408, max_position_embeddings=77),
        _encoder(1280, 32, vocab_size=49_408, max_position_embeddings=77),
    )
    unet = {"gradient_checkpointing": resolution > 512 and batch_size > 1}
    return Scale(resolution, batch_size, _params(text, image, {}, unet), "bf16", 77)


def write_data(folder: Path, scale: Scale, pictures: int = PICTURES) -> None:
    """Photograph-like JPEGs of twice the resolution, a caption each, and a tokenizer of letters."""
    random = np.random.default_rng(0)
    lines = []
    for index in range(pictures):
        coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        side = 2 * scale.resolution
        coarse.resize((side, side + 16), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=92)
        lines.append(f"{index}.jpg\ta picture of number {index}\n")
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(
        json.dumps({token: number for number, token in enumerate(tokens)}), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=scale.tokens)
    tokenizer.save_pretrained(folder / "tokenizer")


def configuration(folder: Path, scale: Scale, cache: str, **optimization: Any) -> TrainingConfig:
    """A run on what `write_data` wrote, long enough that everything is read more than once."""
    params = json.loads(json.dumps(scale.params))
    for encoder in params["text_config"]["encoders"]:
        encoder["tokenizer"] = str(folder / "tokenizer")
    return TrainingConfig.model_validate(
        {
            "model": {"params": params},
            "data": {
                "params": {
                    "resolution": scale.resolution,
                    "data_root_path": str(folder),
                    "verify": "open",
                    "cache": {"mode": cache, "folder": str(folder / "cache")},
                }
            },
            "optimization": {
                "train_batch_size": scale.batch_size,
                "max_train_steps": 100_000,
                "mixed_precision": scale.mixed_precision,
                **optimization,
            },
        }
    )
