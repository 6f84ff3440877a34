"""PURE: names of a UNet's layers in the layout that SDXL was first published in, which ComfyUI and kohya's scripts use.

Blocks are numbered one after another there, the samplers between them too. Read off diffusers 0.42.1,
`loaders/single_file_utils.py` (`convert_ldm_unet_checkpoint`) and `loaders/lora_conversion_utils.py`, which go the other way.
"""

from collections.abc import Sequence

_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "conv_norm_out": "out.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_IN_RESNETS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_IN_MIDDLE = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}


def original_name(name: str, layers_per_block: Sequence[int], attention: Sequence[bool]) -> str:
    """The name of a module that diffusers calls `name`.

    Args:
        name: Below the UNet.
        layers_per_block: Residual layers of each block on the way down.
        attention: Whether each block on the way up has attention.
    """
    parts = name.split(".")
    for theirs, ours in _OUTSIDE.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    if parts[0] == "mid_block":
        return ".".join(["middle_block", str(_IN_MIDDLE[".".join(parts[1:3])]), *_inside(parts[1], parts[3:])])
    block, kind, layer, rest = int(parts[1]), parts[2], int(parts[3]), parts[4:]
    if parts[0] == "down_blocks":
        first = 1 + sum(layers + 1 for layers in layers_per_block[:block])
        if kind == "downsamplers":
            return ".".join(["input_blocks", str(first + layers_per_block[block]), "0", "op", *rest[1:]])
        return ".".join(["input_blocks", str(first + layer), _place(kind), *_inside(kind, rest)])
    upwards = list(reversed(layers_per_block))
    first = sum(layers + 1 for layers in upwards[:block])
    if kind == "upsamplers":
        return ".".join(["output_blocks", str(first + upwards[block]), str(1 + attention[block]), *rest])
    return ".".join(["output_blocks", str(first + layer), _place(kind), *_inside(kind, rest)])


def _place(kind: str) -> str:
    return {"resnets": "0", "attentions": "1"}[kind]


def _inside(kind: str, rest: Sequence[str]) -> list[str]:
    if kind != "resnets" or not rest:
        return list(rest)
    return [_IN_RESNETS[rest[0]], *rest[1:]]
