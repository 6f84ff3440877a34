"""SDXL in small, once as a folder in diffusers' layout and once as a single file in the original one, of the same weights."""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from adapter_trainer.model.original_names import original_name
from tests.trainer.support import tiny

VAE: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 16], "layers_per_block": 1,
    "norm_num_groups": 4, "scaling_factor": 0.13025,
}  # fmt: skip
UNET: dict[str, Any] = {
    **tiny.UNET, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 32,
    "projection_class_embeddings_input_dim": 48 + 16, "use_linear_projection": True,
}  # fmt: skip
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
TEXT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 1, "projection_dim": 16,
    "vocab_size": 80, "max_position_embeddings": 12, **_SPECIAL,
}  # fmt: skip


def write(folder: Path) -> None:
    """`folder/unet` and so on, with a tokenizer, and `folder/base.safetensors`."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, addition_embed_type="text_time", sample_size=8)
    blocks = len(VAE["block_out_channels"])
    vae = AutoencoderKL(
        **VAE, down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks
    )
    first = CLIPTextModel(CLIPTextConfig(**TEXT, hidden_act="quick_gelu"))
    second = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, hidden_act="gelu"))
    for name, module in {"unet": unet, "vae": vae, "text_encoder": first, "text_encoder_2": second}.items():
        module.save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2"):
        tiny.write_tokenizer(folder / name)
    save_file(
        {name: value.contiguous().clone() for name, value in _single(unet, vae, first, second).items()},
        folder / "base.safetensors",
    )


def _single(unet: Any, vae: Any, first: Any, second: Any) -> dict[str, Tensor]:
    attention = ["CrossAttn" in kind for kind in UNET["up_block_types"]]
    found = {}
    for name, value in unet.state_dict().items():
        module, _, kind = name.rpartition(".")
        found[f"model.diffusion_model.{original_name(module, [1, 1], attention)}.{kind}"] = value
    found |= {f"first_stage_model.{_vae_name(name)}": _as_convolution(name, value)
              for name, value in vae.state_dict().items()}  # fmt: skip
    found |= {
        f"conditioner.embedders.0.transformer.text_model.{name.removeprefix('text_model.')}": value
        for name, value in first.state_dict().items()
    }
    found["conditioner.embedders.0.transformer.text_model.embeddings.position_ids"] = torch.arange(12)[None]
    return {**found, **_open_clip(second.state_dict())}


def _vae_name(name: str) -> str:
    last = len(VAE["block_out_channels"]) - 1
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(
        r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda found: f"up.{last - int(found[1])}.block.{found[2]}", name
    )
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("conv_norm_out", "norm_out").replace("group_norm", "norm").replace("to_out.0", "proj_out")
    return re.sub(r"\.to_([qkv])\.", r".\1.", name)


def _as_convolution(name: str, value: Tensor) -> Tensor:
    return value[..., None, None] if "attentions" in name and value.ndim == 2 else value


def _open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix, found = "conditioner.embedders.1.model.", {}
    outside = {
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
    }
    inside = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
              "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for name, value in state.items():
        if name == "text_projection.weight":
            found[f"{prefix}text_projection"] = value.T
        elif name in outside:
            found[f"{prefix}{outside[name]}"] = value
        elif (
            attention := re.fullmatch(r"text_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(\w+)", name)
        ) is not None:
            joined = torch.cat([state[name.replace("q_proj", f"{each}_proj")] for each in "qkv"])
            found[f"{prefix}transformer.resblocks.{attention[1]}.attn.in_proj_{attention[2]}"] = joined
        elif "k_proj" not in name and "v_proj" not in name:
            renamed = name.replace("text_model.encoder.layers.", f"{prefix}transformer.resblocks.")
            for ours, theirs in inside.items():
                renamed = renamed.replace(ours, theirs)
            found[renamed] = value
    found[f"{prefix}logit_scale"] = torch.tensor(4.6)
    return found
