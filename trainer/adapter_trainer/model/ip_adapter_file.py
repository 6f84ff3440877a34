"""PURE: adapters as the IP-Adapter files that diffusers and ComfyUI read, and why some adapters cannot be such a file.

A file holds the projector as `image_proj.*` and each layer's keys and values as `ip_adapter.<number>.to_k_ip.weight` and
`to_v_ip`; the number of a layer is its place among all of `unet.attn_processors`. Read off diffusers 0.42.1,
`loaders/unet.py`, which tells layouts apart by the names in `image_proj` and fixes everything else; and off
ComfyUI_IPAdapter_plus (`IPAdapterPlus.py`, 2024), which fixes more: by the names in `image_proj` it takes Plus and full
alike for files whose tokens are 1280 wide, where the UNet is SDXL's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from adapter_trainer.model.adapters import Adapter, cross_attention_layers
from adapter_trainer.model.projectors import HEAD_DIM, LinearProjector, MLPProjector, PerceiverResampler, SequenceMLP

LINEAR_TOKENS = 4
RESAMPLER_DEPTH = 4
"""Both fixed in diffusers' loader, which for another depth crashes, or loads the first four layers without a word."""
SDXL_CONTEXT = 2048
COMFYUI_RESAMPLER_DIM = 1280
COMFYUI_RESAMPLER_TOKENS = 16
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


_LAYOUTS: dict[type[nn.Module], str] = {
    LinearProjector: "base",
    MLPProjector: "FaceID",
    SequenceMLP: "full",
    PerceiverResampler: "Plus",
}
UNKNOWN = "unknown"


def layout_of(projector: nn.Module) -> str:
    """What published files of this layout are called."""
    return _LAYOUTS.get(type(projector), UNKNOWN)


def diffusers_obstacle(adapter: Adapter) -> str | None:
    """Why `load_ip_adapter` would fail or load something else; None when it loads exactly this adapter."""
    projector = adapter.tokens.projector
    if type(projector) not in _LAYOUTS:
        return f"a projector of kind {type(projector).__name__} is not known to load"
    if isinstance(projector, PerceiverResampler):
        return _resampler_obstacle(projector)
    if isinstance(projector, SequenceMLP | MLPProjector):
        first = projector.proj[0]  # type: ignore[index]
        inside, given = first.out_features, first.in_features
        if isinstance(projector, SequenceMLP) and inside != given:
            return f"projector.params.hidden_dim is {inside}; a SequenceMLP's is the input's width, {given}"
        if inside % given:
            return f"projector.params.hidden_dim is {inside}; an MLP's is a multiple of the input's width, {given}"
    elif isinstance(projector, LinearProjector) and projector.num_tokens != LINEAR_TOKENS:
        return f"projector.params.num_tokens is {projector.num_tokens}; a Linear projector has {LINEAR_TOKENS}"
    return None


def _resampler_obstacle(projector: PerceiverResampler) -> str | None:
    width = projector.hidden_dim
    if len(projector.layers) != RESAMPLER_DEPTH:
        return f"projector.params.depth is {len(projector.layers)}; a resampler loads with {RESAMPLER_DEPTH}"
    if width != projector.heads * HEAD_DIM:
        return (
            f"projector.params.heads is {projector.heads} for a hidden_dim of {width}; a resampler's heads are "
            f"{HEAD_DIM} wide, so that heads is hidden_dim / {HEAD_DIM}"
        )
    return None


def comfyui_obstacle(adapter: Adapter, context: int) -> str | None:
    """Why ComfyUI_IPAdapter_plus would not load the file, or feed it what it was not trained on; None when it fits."""
    if (obstacle := diffusers_obstacle(adapter)) is not None:
        return obstacle
    if context != SDXL_CONTEXT:
        return f"the UNet's cross_attention_dim is {context}; SDXL's is {SDXL_CONTEXT}"
    return _comfyui_layout_obstacle(adapter)


def _comfyui_layout_obstacle(adapter: Adapter) -> str | None:
    projector = adapter.tokens.projector
    if isinstance(projector, PerceiverResampler):
        if projector.hidden_dim != COMFYUI_RESAMPLER_DIM:
            return f"projector.params.hidden_dim is {projector.hidden_dim}; it expects {COMFYUI_RESAMPLER_DIM}"
        if projector.num_tokens != COMFYUI_RESAMPLER_TOKENS:
            return f"projector.params.num_tokens is {projector.num_tokens}; it expects {COMFYUI_RESAMPLER_TOKENS}"
    elif isinstance(projector, MLPProjector):
        return "an MLP projector is taken for FaceID, which reads InsightFace's embedding of a face"
    elif isinstance(projector, SequenceMLP):
        return (
            f"a SequenceMLP; of an adapter for SDXL it makes the full layout's tokens {COMFYUI_RESAMPLER_DIM} wide, and this "
            f"one's are {SDXL_CONTEXT}"
        )
    return None


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
