"""Weights that a folder or hub name gave: which parts of a model have them, and digests that tell them from others."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import xor

import torch
from torch import Tensor, nn

from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder


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
    """128 bits for each tensor: of its values, in whatever order they lie. Of SDXL's UNet on a processor, ten seconds.

    The upper half is the exclusive or of torch 2.15's `hash_tensor`, in which equal values cancel each other; the lower
    one is the sum of the values' bits, in which they do not.
    """
    some = [tensor for tensor in tensors if tensor.numel()]
    if not some:
        return {}
    with torch.no_grad():
        unordered = torch.stack([torch.hash_tensor(tensor) for tensor in some]).tolist()
        sums = torch.stack([_sum_of_bits(tensor.detach()) for tensor in some]).tolist()
    pairs = zip(unordered, sums, strict=True)
    return {
        tensor: _SECOND * (first % _SECOND) + second % _SECOND
        for tensor, (first, second) in zip(some, pairs, strict=True)
    }


_SECOND = 2**64
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_AT_ONCE = 2**18
"""Values that a processor widens together: those stay in its cache, which is ten times as fast as torch's widening sum."""


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """Of all values as integers, modulo 2^64."""
    flat = tensor.contiguous().view(-1).view(_BITS[tensor.element_size()])
    if flat.device.type != "cpu":
        return flat.sum(dtype=torch.int64)
    return torch.stack([part.to(torch.int64).sum() for part in flat.split(_AT_ONCE)]).sum()


def base_digests(model: AdapterModel, known: Mapping[Tensor, int]) -> dict[str, str]:
    """A digest of each part that was loaded and stays as it is: the base that everything else is trained beside.

    It depends neither on the names nor on the order of parameters, which differ between versions of libraries.

    Args:
        model: As it was built or loaded.
        known: `digests` of its parameters.
    """
    return {
        name: _together([known.get(parameter, 0) for parameter in parameters])
        for name, _, parameters in parts(model)
        if not any(parameter.requires_grad for parameter in parameters)
    }


def _together(found: list[int]) -> str:
    """The exclusive or of the upper halves; and the sum of digests of the whole, in which equal tensors do not cancel."""
    unordered = reduce(xor, (digest // _SECOND for digest in found), 0)
    mixed = (hashlib.blake2b(digest.to_bytes(16, "big"), digest_size=8).digest() for digest in found)
    return f"{unordered:016x}-{sum(int.from_bytes(each, 'big') for each in mixed) % _SECOND:016x}"


def differs(before: str, now: str | None) -> bool:
    """PURE: whether a part's digest in a checkpoint is another than now; older checkpoints have the first half of it."""
    return now is not None and before != now[: len(before)]
