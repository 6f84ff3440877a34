"""Where each part's weights come from: a folder or hub name, or a seeded construction from its parameters."""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from adapter_api.training import FirstStageConfig, ModelParams, Source, TextConfig, TextEncoderConfig
from adapter_trainer.errors import InvalidConfig

Module = TypeVar("Module", bound=nn.Module)
SourceConfig = TypeVar("SourceConfig", bound=Source)


def with_pipeline_sources(params: ModelParams) -> ModelParams:
    """PURE: gives every part without a source of its own the pipeline's, in SDXL's folder layout."""
    pipeline = params.pretrained_model_name_or_path
    if pipeline is None:
        return params

    def source(part: SourceConfig, subfolder: str, **more: Any) -> SourceConfig:
        if part.pretrained is not None:
            return part
        return part.model_copy(update={"pretrained": pipeline, "subfolder": subfolder, **more})

    encoders = params.text_config.encoders or (
        TextEncoderConfig(target="CLIPTextModel"),
        TextEncoderConfig(target="CLIPTextModelWithProjection"),
    )
    folders = ("", "_2")
    if len(encoders) > len(folders):
        raise InvalidConfig("model.params.text_config.encoders: an SDXL pipeline has two text encoders; name sources")
    text = TextConfig(
        encoders=tuple(
            source(encoder, f"text_encoder{folder}", tokenizer=pipeline, tokenizer_subfolder=f"tokenizer{folder}")
            for encoder, folder in zip(encoders, folders, strict=False)
        ),
        dropout=params.text_config.dropout,
        null_condition=params.text_config.null_condition,
    )
    stage: FirstStageConfig = params.first_stage_config
    return params.model_copy(
        update={
            "unet_config": source(params.unet_config, "unet"),
            "first_stage_config": stage if stage.target == "Pixels" else source(stage, "vae"),
            "text_config": text,
        }
    )


def load(loader: Any, source: Source, field: str) -> Any:
    """`from_pretrained` of a diffusers or transformers class; safetensors only.

    Raises:
        InvalidConfig: the folder or hub name does not hold such a module.
    """
    options = {"subfolder": source.subfolder, "revision": source.revision, "variant": source.variant}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return loader.from_pretrained(source.pretrained, use_safetensors=True, **given)
    except (OSError, ValueError, KeyError) as error:
        where = source.pretrained if source.subfolder is None else f"{source.pretrained} (folder {source.subfolder})"
        raise InvalidConfig(
            f"{field}: {where} cannot be loaded as {loader.__name__}: {_first_line(error)}; name a local folder or hub "
            "name in the layout of diffusers or transformers, with safetensors weights"
        ) from error


def build(name: str, seed: int, construct: Callable[[], Module], field: str) -> Module:
    """Constructs a module with weights that depend on the seed and its name alone, not on what was built before.

    Raises:
        InvalidConfig: the parameters do not fit together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
        try:
            return construct()
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise InvalidConfig(f"{field}: cannot be built: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
