"""Configurations with a VAE, a text encoder and an image encoder, all of them tiny: what a cache can hold."""

from pathlib import Path
from typing import Any

from tests.trainer.support import tiny

STAGE: tiny.Settings = {
    "target": "AutoencoderKL",
    "params": {
        "in_channels": 1, "out_channels": 1, "latent_channels": 2, "block_out_channels": [4, 4],
        "layers_per_block": 1, "norm_num_groups": 2, "scaling_factor": 0.5,
    },
}  # fmt: skip
PICTURE = {"projector": {"target": "Linear"}, "null_condition": "encoded", "dropout": 0.4}
PLUS = {
    "projector": {"target": "PerceiverResampler", "params": {"depth": 1, "heads": 2}},
    "null_condition": "encoded",
    "dropout": 0.4,
}
UNET = {
    "train": False,
    "params": {"in_channels": 2, "out_channels": 2, "projection_class_embeddings_input_dim": 48 + 16},
}


def settings(data: Path, tokenizer: Path, mode: str = "on", **more: Any) -> tiny.Settings:
    """A VAE, a text encoder and an image encoder, all frozen, and three epochs; `more` are data.params."""
    model = {
        "unet_config": UNET,
        "first_stage_config": STAGE,
        "text_config": {
            "encoders": [tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")],
            "dropout": 0.4,
            "null_condition": "encoded",
        },
        "image_encoder_config": tiny.IMAGE_ENCODER,
        "adapters_config": {"picture": PICTURE, "plus": PLUS},
    }
    changes = {
        "model": {"params": model},
        "data": {"params": {"resolution": 16, "random_flip": True, "cache": {"mode": mode, "batch_size": 2}, **more}},
        "optimization": {"max_train_steps": 8, "lr_scheduler": "cosine"},
    }
    return tiny.merged(tiny.settings(data, changes), {})
