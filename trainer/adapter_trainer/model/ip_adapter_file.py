"""PURE: adapters as the IP-Adapter files that diffusers and ComfyUI read, and why some adapters cannot be such a file.

A file holds the projector as `image_proj.*` and each layer's keys and values as `ip_adapter.<number>.to_k_ip.weight` and
`to_v_ip`; the number of a layer is its place among all of `unet.attn_processors`. Each projector says what loaders make of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from adapter_trainer.model.adapters import Adapter, cross_attention_layers
from adapter_trainer.model.projectors import SDXL_CONTEXT, UNKNOWN, Projector

NULL = "null_tokens"
"""A learned null has no place in the format: it stands beside, under a name that no loader looks for."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """A cross-attention layer of the UNet, as a file numbers it."""

    name: str
    number: int
    width: int
    """Rows of its key and value matrices."""
    context: int
    """Columns of them: the width of the conditioning tokens."""


def layers_of(unet: UNet2DConditionModel) -> list[Layer]:
    """Every cross-attention layer, in the order of `unet.attn_processors`."""
    numbers = {name.removesuffix(".processor"): number for number, name in enumerate(unet.attn_processors)}
    return [
        Layer(name, numbers[name], layer.to_k.out_features, layer.to_k.in_features)
        for name, layer in cross_attention_layers(unet).items()
    ]


def part_of(adapter: str, adapters: int) -> str:
    """Name of an adapter's file, without its ending, in a checkpoint with so many adapters."""
    return "ip_adapter" if adapters == 1 else f"ip_adapter-{adapter}"


def layout_of(projector: Projector) -> str:
    """What published files of this layout are called."""
    return projector.layout


def diffusers_obstacle(adapter: Adapter) -> str | None:
    """Why `load_ip_adapter` would fail or load something else; None when it loads exactly this adapter."""
    projector = adapter.tokens.projector
    return projector.unknown_obstacle if projector.layout == UNKNOWN else projector.diffusers_obstacle()


def comfyui_obstacle(adapter: Adapter, context: int) -> str | None:
    """Why ComfyUI_IPAdapter_plus would not load the file, or feed it what it was not trained on; None when it fits."""
    if (obstacle := diffusers_obstacle(adapter)) is not None:
        return obstacle
    if context != SDXL_CONTEXT:
        return f"the UNet's cross_attention_dim is {context}; SDXL's is {SDXL_CONTEXT}"
    return adapter.tokens.projector.comfyui_obstacle()


def to_file(state: State, layers: list[Layer]) -> dict[str, Tensor]:
    """An adapter's state under the names of the file; layers that it does not reach get zeros, which add exactly nothing.

    Zeros are float16 whatever the weights are: loaders want them to be there, and cast them.
    """
    found = {
        f"image_proj.{name.removeprefix(_PROJECTOR)}": value
        for name, value in state.items()
        if name.startswith(_PROJECTOR)
    }
    if _NULL_TOKENS in state:
        found[NULL] = state[_NULL_TOKENS]
    for layer in layers:
        for kind in ("k", "v"):
            value = state.get(_own_name(layer, kind))
            if value is None:
                value = torch.zeros(layer.width, layer.context, dtype=torch.float16)
            found[_file_name(layer, kind)] = value
    return found


def from_file(tensors: State, layers: list[Layer], reached: set[str]) -> dict[str, Tensor]:
    """The inverse of `to_file` for an adapter that reaches the layers of these names."""
    found = {
        _PROJECTOR + name.removeprefix("image_proj."): value
        for name, value in tensors.items()
        if name.startswith("image_proj.")
    }
    if NULL in tensors:
        found[_NULL_TOKENS] = tensors[NULL]
    for layer in layers:
        for kind in ("k", "v"):
            if layer.name in reached and (name := _file_name(layer, kind)) in tensors:
                found[_own_name(layer, kind)] = tensors[name]
    return found


_PROJECTOR = "tokens.projector."
_NULL_TOKENS = "tokens.null_tokens"


def _own_name(layer: Layer, kind: str) -> str:
    return f"layers.{layer.name.replace('.', '/')}.to_{kind}.weight"


def _file_name(layer: Layer, kind: str) -> str:
    return f"ip_adapter.{layer.number}.to_{kind}_ip.weight"
