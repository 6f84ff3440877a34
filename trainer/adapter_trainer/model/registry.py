"""The fixed tables from `target:` names to classes; a configuration can name nothing that is not listed.

Projectors and token conditioners have theirs beside their classes, in `projectors` and `token_conditioners`.
"""

from typing import Any

import diffusers
import torch
import transformers

MODULES: dict[str, Any] = {
    "UNet2DConditionModel": diffusers.UNet2DConditionModel,
    "AutoencoderKL": diffusers.AutoencoderKL,
    "CLIPTextModel": transformers.CLIPTextModel,
    "CLIPTextModelWithProjection": transformers.CLIPTextModelWithProjection,
    "CLIPVisionModelWithProjection": transformers.CLIPVisionModelWithProjection,
}
"""Modules whose weights can come from a folder or a hub."""

ENCODER_CONFIGS: dict[str, Any] = {
    "CLIPTextModel": transformers.CLIPTextConfig,
    "CLIPTextModelWithProjection": transformers.CLIPTextConfig,
    "CLIPVisionModelWithProjection": transformers.CLIPVisionConfig,
}

WEIGHT_TYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Of frozen weights, by optimization.mixed_precision."""

SCHEDULERS: dict[str, Any] = {
    "DDPMScheduler": diffusers.DDPMScheduler,
    "DDIMScheduler": diffusers.DDIMScheduler,
    "EulerDiscreteScheduler": diffusers.EulerDiscreteScheduler,
    "DPMSolverMultistepScheduler": diffusers.DPMSolverMultistepScheduler,
}
