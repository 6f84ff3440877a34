"""Bases in one .safetensors file, in the layout that SDXL was first published in, as most fine-tunes are shared.

The weights are renamed by diffusers' own conversion (0.42.1, `loaders/single_file_utils.py`). Its `from_single_file` asks the
hub for the shapes; here they are the configuration's, by default SDXL's, and of text encoders those of the weights.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.loaders import single_file_utils
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adapter_api.networks import FirstStageConfig, Source, UNetConfig
from adapter_trainer.errors import InvalidConfig

Tensors = dict[str, Tensor]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_L, BIG_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_HEAD = 64
"""Width of an attention head of both text encoders."""
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
"""As SDXL's text encoders have them: 2 tells transformers that the last token is that of the highest number."""


def load(loader: type, source: Source, field: str, dtype: torch.dtype) -> nn.Module:
    """A network out of a single file, its weights of `dtype`, in evaluation mode.

    Args:
        loader: Which one, by its class.
        source: The configuration of it.
        field: Of the configuration.
        dtype: Of the weights, however they are stored.

    Raises:
        InvalidConfig: There is no such file, or it does not hold such a network.
    """
    kinds: dict[str, tuple[str, Callable[[Any, Tensors], nn.Module]]] = {
        "UNet2DConditionModel": (UNET, _unet),
        "AutoencoderKL": (VAE, _vae),
        "CLIPTextModel": (CLIP_L, _clip_l),
        "CLIPTextModelWithProjection": (BIG_G, _big_g),
    }
    path = path_of(source, field)
    if loader.__name__ not in kinds:
        raise InvalidConfig(
            f"{field}: {source.pretrained} is a single file, which holds no {loader.__name__}; name a folder"
        )
    prefix, make = kinds[loader.__name__]
    try:
        with safe_open(path, framework="pt") as file:
            named = list(file.keys())
            # An autoencoder is shared by itself as well, without a prefix.
            own = [name for name in named if name.startswith(prefix)] or (named if prefix == VAE else [])
            tensors = {name: file.get_tensor(name) for name in own}
        module = make(source, tensors).to(dtype)
    except (OSError, SafetensorError) as error:
        raise InvalidConfig(f"{field}: {path} cannot be read: {_first_line(error)}; fetch it again") from error
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise InvalidConfig(
            f"{field}: {path} does not hold {loader.__name__} in the layout of SDXL's single files, of the shape that "
            f"`params` give: {_first_line(error)}; name another file, or a folder in diffusers' layout"
        ) from error
    return module.eval()


def path_of(source: Source, field: str) -> Path:
    """The file of a base on this machine; see `file_named`."""
    return file_named(str(source.pretrained), field, source.revision)


def file_named(name: str, field: str, revision: str | None = None) -> Path:
    """A file on this machine: as named, or fetched from the hub.

    Args:
        name: A path, or owner/repository/file.
        field: Of the configuration, that names it.
        revision: Of the hub's repository.

    Raises:
        InvalidConfig: It is neither here nor there.
    """
    if (path := Path(name)).is_file():
        return path
    owner, _, rest = name.partition("/")
    repository, _, inside = rest.partition("/")
    if path.is_absolute() or name.startswith(".") or not inside:
        raise InvalidConfig(
            f"{field}: there is no file {name}; correct the path, or name owner/repository/file on the hub"
        )
    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{repository}", inside, revision=revision))
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"{field}: {name} is neither a file here nor one on the hub: {_first_line(error)}"
        ) from error


def stated_schedule(source: Source, field: str) -> dict[str, Any] | None:
    """What a file says of how its UNet was trained, as a `scheduler_config.json` would; None where it says nothing.

    Tensors named `v_pred` and `ztsnr` are how ComfyUI knows velocity and zero terminal SNR (`comfy/supported_models.py`,
    SDXL.model_type); `modelspec.prediction_type` in the metadata is what kohya's scripts write.
    """
    path = path_of(source, field)
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = set(file.keys()), file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InvalidConfig(f"{field}: {path} cannot be read: {_first_line(error)}; fetch it again") from error
    if names & {"edm_mean", "edm_vpred.sigma_max"}:
        return {"_class_name": "EDMEulerScheduler"}
    stated = metadata.get("modelspec.prediction_type", "").lower()
    spoken = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}.get(stated)
    prediction = "v_prediction" if "v_pred" in names else spoken
    if prediction is None:
        return None
    return {
        "_class_name": "EulerDiscreteScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": "ztsnr" in names,
    }


def _unet(config: UNetConfig, tensors: Tensors) -> nn.Module:
    shape = config.params.model_dump()
    shape["sample_size"] = shape["sample_size"] or 128
    with init_empty_weights():
        module = diffusers.UNet2DConditionModel(**shape)
    return _filled(module, single_file_utils.convert_ldm_unet_checkpoint(tensors, config=dict(module.config)))


def _vae(config: FirstStageConfig, tensors: Tensors) -> nn.Module:
    blocks = len(config.params.block_out_channels)
    with init_empty_weights():
        module = diffusers.AutoencoderKL(
            **config.params.model_dump(),
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
        )
    return _filled(module, single_file_utils.convert_ldm_vae_checkpoint(tensors, config=dict(module.config)))


def _clip_l(_: Source, tensors: Tensors) -> nn.Module:
    found = {name.removeprefix(CLIP_L): value for name, value in tensors.items() if not name.endswith("position_ids")}
    embeddings, layer = "text_model.embeddings.", "text_model.encoder.layers."
    width = found[f"{embeddings}token_embedding.weight"].shape[1]
    config = transformers.CLIPTextConfig(
        vocab_size=found[f"{embeddings}token_embedding.weight"].shape[0],
        max_position_embeddings=found[f"{embeddings}position_embedding.weight"].shape[0],
        intermediate_size=found[f"{layer}0.mlp.fc1.weight"].shape[0],
        hidden_size=width,
        projection_dim=width,
        num_hidden_layers=_count(found, layer),
        num_attention_heads=max(width // _HEAD, 1),
        hidden_act="quick_gelu",
        **_SPECIAL,
    )
    with init_empty_weights(include_buffers=False):
        module = transformers.CLIPTextModel(config)
    if not hasattr(module, "text_model"):  # flattened since transformers 5.6
        found = {name.removeprefix("text_model."): value for name, value in found.items()}
    return _filled(module, found)


def _big_g(_: Source, tensors: Tensors) -> nn.Module:
    layer = f"{BIG_G}transformer.resblocks."
    words = tensors[f"{BIG_G}token_embedding.weight"]
    config = transformers.CLIPTextConfig(
        vocab_size=words.shape[0],
        max_position_embeddings=tensors[f"{BIG_G}positional_embedding"].shape[0],
        intermediate_size=tensors[f"{layer}0.mlp.c_fc.weight"].shape[0],
        hidden_size=words.shape[1],
        projection_dim=tensors[f"{BIG_G}text_projection"].shape[1],
        num_hidden_layers=_count(tensors, layer),
        num_attention_heads=max(words.shape[1] // _HEAD, 1),
        hidden_act="gelu",
        **_SPECIAL,
    )
    with init_empty_weights(include_buffers=False):
        module = transformers.CLIPTextModelWithProjection(config)
    return _filled(module, single_file_utils.convert_open_clip_checkpoint(module, tensors, prefix=BIG_G))


def _count(names: Tensors, prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).partition(".")[0]) for name in names if name.startswith(prefix))


def _filled(module: nn.Module, state: Tensors) -> nn.Module:
    module.load_state_dict(state, strict=True, assign=True)
    return module


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2])[:300]
