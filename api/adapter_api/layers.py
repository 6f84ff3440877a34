"""PURE: the names of a UNet's cross-attention layers, from its shape, and what the patterns of adapters match."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from adapter_api.networks import UNetParams

_SHOWN = 6


def cross_attention_layers(params: UNetParams) -> list[str]:
    """The layers' names as diffusers gives them: those of the way down, of the way up, of the middle."""
    blocks = len(params.block_out_channels)
    layers = _per_block(params.layers_per_block, blocks)
    depths = _per_block(params.transformer_layers_per_block, blocks)
    names = []
    for index, down in enumerate(params.down_block_types):
        if down.startswith("CrossAttn"):
            names += _block(f"down_blocks.{index}", layers[index], depths[index])
    for index, up in enumerate(params.up_block_types):
        if up.startswith("CrossAttn"):
            # The way up mirrors the way down, with one layer more in each block.
            names += _block(f"up_blocks.{index}", layers[-1 - index] + 1, depths[-1 - index])
    if params.mid_block_type is not None:
        names += _block("mid_block", 1, depths[-1])
    return names


def unmatched(pattern: str, names: Sequence[str]) -> str | None:
    """What is wrong with an adapter's pattern over layers, if it matches none; one ending in a block's name means all in it."""
    if any(fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*") for name in names):
        return None
    if not names:
        return f"{pattern!r} matches nothing: this UNet has no cross-attention layer"
    blocks = list(dict.fromkeys(name.partition(".transformer_blocks")[0] for name in names))
    more = f", … ({len(blocks)} in all)" if len(blocks) > _SHOWN else ""
    return f"{pattern!r} matches no cross-attention layer; they are in: {', '.join(blocks[:_SHOWN])}{more}"


def _per_block(value: int | tuple[int, ...], blocks: int) -> tuple[int, ...]:
    return (value,) * blocks if isinstance(value, int) else value


def _block(name: str, layers: int, depth: int) -> list[str]:
    return [
        f"{name}.attentions.{layer}.transformer_blocks.{block}.attn2"
        for layer in range(layers)
        for block in range(depth)
    ]
