"""What is not trained is held in the precision that it is computed in."""

import torch
from torch import nn

from adapter_trainer.model.adapter_model import AdapterModel


def cast_frozen(model: AdapterModel, dtype: torch.dtype) -> None:
    """Holds what is not trained in the precision that it is computed in; the first stage keeps its own."""
    # diffusers' own `to` warns of what it keeps in float32, though it keeps nothing.
    for _, module, settings in model.trainable_parts():
        if not settings.train:
            nn.Module.to(module, dtype)
    if model.lora is not None:
        model.lora.float()  # what is trained is not held in less, though the UNet around it is
    config = model.params.first_stage_config
    if not config.params.force_upcast:
        nn.Module.to(model.first_stage, dtype)
