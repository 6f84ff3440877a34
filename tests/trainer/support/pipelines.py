"""SDXL in small: settings that train a whole pipeline, and diffusers' own pipeline of the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from adapter_trainer.data import order
from adapter_trainer.data.order import Place
from adapter_trainer.sampling import sample
from adapter_trainer.sampling.sample import Sampler
from tests.trainer.support import tiny
from tests.trainer.support.tiny import Settings

SIDE = 16
"""Pixels of a picture; the first stage halves it."""
VAE = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4}
ENCODER = {"params": {**tiny.IMAGE_ENCODER["params"], "hidden_size": 64, "projection_dim": 12}}


def pipeline_settings(data: Path, tokenizer: Path, adapters: Settings, changes: Settings | None = None) -> Settings:
    """SDXL in small: two text encoders, a first stage, adapters on a UNet that is not trained."""
    params = {
        "unet_config": {
            "train": False,
            "params": {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 32,
                       "projection_class_embeddings_input_dim": 48 + 16},
        },
        "first_stage_config": {"target": "AutoencoderKL", "params": VAE},
        "text_config": {"encoders": [tiny.text_encoder(tokenizer),
                                     tiny.text_encoder(tokenizer, target="CLIPTextModelWithProjection")]},
        "image_encoder_config": ENCODER,
        "adapters_config": adapters,
    }  # fmt: skip
    base = {
        "model": {"params": params},
        "data": {"params": {"resolution": SIDE, "image_mode": "RGB"}},
        "optimization": {"learning_rate": 0.05, "max_train_steps": 2},
        "sampling": {"steps": 3, "guidance_scale": 2.0},
    }
    settings = tiny.merged(tiny.settings(data, base), changes or {})
    settings["model"]["params"].setdefault("token_conditioners", {})
    if not (changes or {}).get("model"):
        del settings["model"]["params"]["token_conditioners"]
    return settings


def pipeline_of(sampler: Sampler) -> StableDiffusionXLPipeline:
    """A pipeline of the same weights, without what a checkpoint adds to them; the UNet is another object."""
    model = sampler.model
    assert model.text_encoders is not None
    assert model.tokenizers is not None
    unet = UNet2DConditionModel.from_config(model.unet.config)
    unet.load_state_dict({name.replace(".base_layer", ""): value
                          for name, value in model.unet.state_dict().items() if ".lora_" not in name})  # fmt: skip
    vae = model.first_stage.vae
    assert isinstance(vae, AutoencoderKL)
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=model.text_encoders.encoders[0],
        text_encoder_2=model.text_encoders.encoders[1],
        tokenizer=model.tokenizers.tokenizers[0],
        tokenizer_2=model.tokenizers.tokenizers[1],
        unet=unet,
        scheduler=DDIMScheduler(**sample.scheduler_settings(sampler.config, "DDIMScheduler")),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by(pipeline: StableDiffusionXLPipeline, sampler: Sampler, **inputs: Any) -> Tensor:
    """One picture, from the noise that our sampler begins with."""
    shape = sampler.model.latent_shape(SIDE)
    noise = order.generator_at(0, Place(0, 0), "picture").standard_normal(shape, dtype=np.float32)
    images: Tensor = pipeline(
        **inputs, latents=torch.from_numpy(noise)[None], height=SIDE, width=SIDE, guidance_scale=2.0,
        num_inference_steps=3, output_type="pt",
    ).images  # fmt: skip
    return images
