"""Frozen encoders that nothing needs while training reads their encodings: they leave the device, and come back to draw.

Those that a folder or hub name can give back leave memory altogether. Those that were built from the configuration
stay in the host's, because checkpoints hold them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adapter_trainer.data.cache.encodings import Encodings
from adapter_trainer.model import encoders, first_stage
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder


@dataclass
class _Part:
    module: nn.Module
    is_pretrained: bool
    dtype: torch.dtype
    restore: Callable[[torch.dtype], Any]
    """Loads the weights anew: a module of the same structure."""


class Resting:
    """The encoders of a model that rest; none, when every step needs them."""

    def __init__(self, model: AdapterModel, encodings: Encodings | None, seed: int) -> None:
        self.parts = [] if encodings is None else list(_parts(model, encodings, seed))
        self.device = next(model.unet.parameters()).device
        self._rest()

    def _rest(self) -> None:
        for part in self.parts:
            if part.is_pretrained:
                for tensor in (*part.module.parameters(), *part.module.buffers()):
                    # Wrappers keep lists of parameters (DistributedDataParallel does): only an empty one frees its memory.
                    tensor.data = tensor.data.new_empty(0)
            part.module.to("meta" if part.is_pretrained else "cpu")

    @contextmanager
    def awake(self) -> Iterator[None]:
        """All encoders on the device as long as the context lasts."""
        for part in self.parts:
            if part.is_pretrained:
                # Whole submodules: a state dict would not bring back buffers that are not saved.
                for name, child in part.restore(part.dtype).named_children():
                    setattr(part.module, name, child.requires_grad_(False).eval())
            part.module.to(self.device)
        try:
            yield
        finally:
            self._rest()


def _parts(model: AdapterModel, encodings: Encodings, seed: int) -> Iterator[_Part]:
    params = model.params
    stage = params.first_stage_config
    if encodings.has_latents and isinstance(model.first_stage, Autoencoder):
        channels = model.first_stage.vae.config.in_channels
        yield _Part(
            model.first_stage,
            stage.pretrained is not None,
            model.first_stage.dtype,
            lambda dtype: first_stage.first_stage(stage, channels, seed, dtype),
        )
    if encodings.has_text and model.text_encoders is not None:
        names = [encoder.pretrained for encoder in params.text_config.encoders]
        yield _Part(
            model.text_encoders,
            all(name is not None for name in names),
            next(model.text_encoders.parameters()).dtype,
            lambda dtype: encoders.text_encoders(params.text_config, seed, model.tokenizers, dtype),
        )
    config = params.image_encoder_config
    if encodings.features and model.image_encoder is not None and config is not None:
        yield _Part(
            model.image_encoder,
            config.pretrained is not None,
            next(model.image_encoder.parameters()).dtype,
            lambda dtype: encoders.image_encoder(config, seed, dtype),
        )
