"""Weights that a folder or hub name gave: which parts of a model have them, and digests that tell them from others."""

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import xor

import torch
from torch import Tensor, nn

from adapter_trainer.first_stage import Autoencoder
from adapter_trainer.model import AdapterModel


def parts(model: AdapterModel) -> Iterator[tuple[str, str, list[nn.Parameter]]]:
    """Name, source and parameters of each such part; low-rank weights in a UNet are not its own."""
    built = set() if model.lora is None else set(model.lora.parameters())
    modules = [
        (name, module, getattr(settings, "pretrained", None)) for name, module, settings in model.trainable_parts()
    ]
    if isinstance(model.first_stage, Autoencoder):
        modules.append(("first_stage", model.first_stage, model.params.first_stage_config.pretrained))
    for name, module, source in modules:
        if source is not None:
            yield name, source, [parameter for parameter in module.parameters() if parameter not in built]


def digests(tensors: Iterable[Tensor]) -> dict[Tensor, int]:
    """64 bits for each tensor: of its values, in whatever order they lie. Of SDXL's UNet on a processor, two seconds."""
    some = [tensor for tensor in tensors if tensor.numel()]
    with torch.no_grad():
        found = torch.stack([torch.hash_tensor(tensor) for tensor in some]).tolist()
    return dict(zip(some, found, strict=True))


def base_digests(model: AdapterModel, known: Mapping[Tensor, int]) -> dict[str, str]:
    """A digest of each part that was loaded and stays as it is: the base that everything else is trained beside.

    It depends neither on the names nor on the order of parameters, which differ between versions of libraries.

    Args:
        model: As it was built or loaded.
        known: `digests` of its parameters.
    """
    return {
        name: f"{reduce(xor, (known.get(parameter, 0) for parameter in parameters)):016x}"
        for name, _, parameters in parts(model)
        if not any(parameter.requires_grad for parameter in parameters)
    }
