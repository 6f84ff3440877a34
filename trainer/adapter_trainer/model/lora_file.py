"""LoRA files that others publish, read as the weights that training starts from."""

from collections.abc import Mapping

import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import single_file
from adapter_trainer.model.lora import LoraWeights

_UNET = "unet."
_MATRICES = ("A", "B")


def begin_lora(lora: LoraWeights, source: str, field: str) -> None:
    """Gives low-rank weights the values of a file, which diffusers' own conversion reads.

    The product of the two matrices, times alpha / rank, is what the file's is: the file may have another alpha.

    Args:
        lora: In the UNet; takes the values.
        source: A .safetensors file in the names of diffusers, peft or kohya's scripts: a path, or owner/repository/file.
        field: Of the configuration, that describes these weights.

    Raises:
        InvalidConfig: The file cannot be read, or is of other layers or another rank; names the field.
    """
    from diffusers import StableDiffusionXLPipeline  # brings all of SDXL's pipelines, which few runs need

    path = single_file.file_named(source, f"{field}.pretrained")
    try:
        with safe_open(path, framework="pt") as file:
            is_decomposed = any("dora_scale" in name for name in file.keys())  # noqa: SIM118 - it is no mapping
        state, alphas, metadata = StableDiffusionXLPipeline.lora_state_dict(
            str(path.resolve()), unet_config=lora.unet_config, return_lora_metadata=True
        )
    except (OSError, SafetensorError, ValueError, KeyError, IndexError) as error:
        raise InvalidConfig(
            f"{field}.pretrained: {source} cannot be read as a LoRA for SDXL: {_first_line(error)}; name a .safetensors file in "
            "the names of diffusers or of kohya's scripts"
        ) from error
    if is_decomposed:
        raise InvalidConfig(
            f"{field}.pretrained: {source} is a DoRA, whose magnitudes are not trained here; name a plain LoRA"
        )
    if others := sorted({name.partition(".")[0] for name in state if not name.startswith(_UNET)}):
        raise InvalidConfig(
            f"{field}.pretrained: {source} holds weights for {', '.join(others)} as well, which are not trained here; save its "
            "UNet's part alone and name that"
        )
    found = _by_layer(state)
    stated = metadata or {}
    _check_layers(set(found), {name.replace("/", ".") for name in lora.layers}, source, field)
    with torch.no_grad():
        for name, matrices in found.items():
            layer = lora.layers[name.replace(".", "/")]
            rank = matrices["A"].shape[0]
            alpha = (alphas or {}).get(f"{_UNET}{name}.alpha", stated.get(f"{_UNET}lora_alpha"))
            factor = (1.0 if alpha is None else float(alpha) / rank) / lora.scale
            for kind, value in matrices.items():
                own = layer[kind].weight  # type: ignore[index]
                if own.shape != value.shape:
                    raise InvalidConfig(
                        f"{field}.pretrained: {source} has {name} of rank {rank} and shape {tuple(value.shape)}, not "
                        f"{tuple(own.shape)}; set {field}.rank to the file's, or name a LoRA of this UNet"
                    )
                own.copy_(value * factor if kind == "B" else value)


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The two matrices of each layer, by its name in the UNet; other kinds of weights keep their own name."""
    found: dict[str, dict[str, Tensor]] = {}
    named = convert_unet_state_dict_to_peft({name.removeprefix(_UNET): value for name, value in state.items()})
    for name, value in named.items():
        layer, _, kind = name.removesuffix(".weight").rpartition(".lora_")
        found.setdefault(layer if kind in _MATRICES else name, {})[kind] = value
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _check_layers(theirs: set[str], ours: set[str], source: str, field: str) -> None:
    if missing := sorted(ours - theirs):
        raise InvalidConfig(
            f"{field}.pretrained: {source} has no weights for {missing[0]} and {len(missing) - 1} more of the layers that "
            f"{field}.target_modules names; name the layers that the file has"
        )
    if more := sorted(theirs - ours):
        raise InvalidConfig(
            f"{field}.pretrained: {source} has weights for {more[0]} and {len(more) - 1} more that are not among the layers of "
            f"{field}.target_modules; add them there"
        )
