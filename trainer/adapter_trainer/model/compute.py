"""How the model computes, apart from what: memory layout and compiled blocks. Neither changes names of parameters."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from adapter_trainer.model.adapter_model import AdapterModel

BLOCK_VARIANTS = 256
"""Compiled forms of one block's code: its shapes in the UNet, each with the adapters of a layer."""


def tune(model: AdapterModel, device: torch.device) -> None:
    """Makes the model compute as fast as the device and the configuration allow; before it is wrapped."""
    if device.type == "cuda":
        # Convolutions of tensor cores read channels last; elsewhere they would be turned around each time.
        model.unet.to(memory_format=torch.channels_last)
        model.first_stage.to(memory_format=torch.channels_last)
    if model.params.unet_config.compile:
        compile_blocks(model.unet)


def compile_blocks(unet: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compiles each transformer block by itself: equal ones share what was compiled, and a start takes a minute, not ten."""
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR") in {None, default_cache_dir()}:  # torch itself sets the latter
        # The common folder keeps what a killed process had half written, and every later start would fail over it.
        folder = tempfile.mkdtemp(prefix="compiled-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch._dynamo.config.recompile_limit = BLOCK_VARIANTS  # noqa: SLF001 - the documented place of this setting
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.compile(backend=backend)
