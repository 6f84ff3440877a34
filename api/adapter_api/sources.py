"""PURE: where each part of a model comes from, and where what lies in object storage is on a node."""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from adapter_api.base import S3_SCHEME, S3URI, ResourceModel
from adapter_api.conditions import Conditioned, TextConfig
from adapter_api.model import ModelConfig, ModelParams
from adapter_api.networks import FirstStageConfig, Source, TextEncoderConfig

SCHEDULER_FOLDER, UNET_FOLDER = "scheduler", "unet"
"""Of a pipeline: beside each other."""
PIPELINE_FIELD = "model.params.pretrained_model_name_or_path"
PIPELINE_ENCODERS = (
    TextEncoderConfig(target="CLIPTextModel"),
    TextEncoderConfig(target="CLIPTextModelWithProjection"),
)
"""An SDXL pipeline's."""

SINGLE_FILE = ".safetensors"
"""Ending of a model that is one file rather than a folder or hub name."""
SDXL_TOKENIZERS = "stabilityai/stable-diffusion-xl-base-1.0"
"""A single file holds no tokenizers; those of all SDXL's are the same."""

SourceConfig = TypeVar("SourceConfig", bound=Source)
ConditionedConfig = TypeVar("ConditionedConfig", bound=Conditioned)


def with_pipeline_sources(params: ModelParams) -> ModelParams:
    """Gives every part without a source of its own the pipeline's, in SDXL's folder layout."""
    pipeline = params.pretrained_model_name_or_path
    if pipeline is None:
        return params

    def source(part: SourceConfig, subfolder: str, **more: Any) -> SourceConfig:
        if part.pretrained is not None:
            return part
        state = {"revision": part.revision or params.revision, "variant": part.variant or params.variant}
        return part.model_copy(update={"pretrained": pipeline, "subfolder": subfolder, **state, **more})

    def tokenizer(encoder: TextEncoderConfig, suffix: str) -> dict[str, str | None]:
        if is_single_file(pipeline) and encoder.tokenizer is not None:
            return {"tokenizer": encoder.tokenizer, "tokenizer_subfolder": encoder.tokenizer_subfolder}
        name = SDXL_TOKENIZERS if is_single_file(pipeline) else pipeline
        return {"tokenizer": name, "tokenizer_subfolder": f"tokenizer{suffix}"}

    encoders = params.text_config.encoders or PIPELINE_ENCODERS
    text = TextConfig(
        encoders=tuple(
            source(encoder, f"text_encoder{suffix}", **tokenizer(encoder, suffix))
            for encoder, suffix in zip(encoders, ("", "_2"), strict=False)
        ),
        dropout=params.text_config.dropout,
        null_condition=params.text_config.null_condition,
    )
    stage: FirstStageConfig = params.first_stage_config
    return params.model_copy(
        update={
            "unet_config": source(params.unet_config, UNET_FOLDER),
            "first_stage_config": stage if stage.target == "Pixels" else source(stage, "vae"),
            "text_config": text,
        }
    )


class StoredModel(ResourceModel):
    """A model folder in object storage that training needs."""

    uri: S3URI
    field: str
    """Field of the training configuration that names the model."""
    holds: Literal["weights", "tokenizer", "scheduler", "parts"] = "weights"
    """What the folder holds. A scheduler may be absent; parts are conditions that `atj export` wrote."""
    folder: str = ""
    """Folder inside the address."""
    variant: str | None = None
    """Variant of the weight files."""


def stored_models(params: ModelParams) -> tuple[StoredModel, ...]:
    """Everything that has to be staged before these parts can be loaded; empty where no address is in object storage."""
    return tuple(_stored(params))


def _stored(params: ModelParams) -> Iterator[StoredModel]:
    filled = with_pipeline_sources(params)
    parts: dict[str, Source] = {"unet_config": filled.unet_config, "first_stage_config": filled.first_stage_config}
    parts |= {f"text_config.encoders[{index}]": each for index, each in enumerate(filled.text_config.encoders)}
    if filled.image_encoder_config is not None:
        parts["image_encoder_config"] = filled.image_encoder_config
    pipeline = params.pretrained_model_name_or_path
    for path, part in parts.items():
        if part.pretrained is not None and is_stored(part.pretrained):
            field = PIPELINE_FIELD if part.pretrained == pipeline else f"model.params.{path}.pretrained"
            yield StoredModel(uri=part.pretrained, field=field, folder=part.subfolder or "", variant=part.variant)
            if (
                path == "unet_config"
                and not is_single_file(part.pretrained)
                and (folder := scheduler_folder(part.subfolder)) is not None
            ):
                yield StoredModel(uri=part.pretrained, field=field, holds="scheduler", folder=folder)
        name = (part.tokenizer or part.pretrained) if isinstance(part, TextEncoderConfig) else None
        if isinstance(part, TextEncoderConfig) and name is not None and is_stored(name) and not is_single_file(name):
            field = PIPELINE_FIELD if name == pipeline else f"model.params.{path}.tokenizer"
            yield StoredModel(uri=name, field=field, holds="tokenizer", folder=part.tokenizer_subfolder or "")
    for module_path, module in ModelConfig(params=params).conditioned.items():
        if module.pretrained is not None and is_stored(module.pretrained):
            yield StoredModel(uri=module.pretrained, field=f"{module_path.field}.pretrained", holds="parts")
    lora = params.unet_config.lora
    if lora is not None and lora.pretrained is not None and is_stored(lora.pretrained):
        yield StoredModel(uri=lora.pretrained, field="model.params.unet_config.lora.pretrained", holds="parts")


def scheduler_folder(subfolder: str | None) -> str | None:
    """Where the scheduler of a pipeline is whose UNet is in this folder; None where the folder tells of no pipeline."""
    before, _, last = (subfolder or "").strip("/").rpartition("/")
    return f"{before}/{SCHEDULER_FOLDER}".lstrip("/") if last == UNET_FOLDER else None


def is_stored(name: str) -> bool:
    """Whether a model's name is an address in object storage."""
    return name.startswith(S3_SCHEME)


def is_single_file(name: str) -> bool:
    """Whether a model is one file."""
    return name.endswith(SINGLE_FILE)


def staged_name(uri: str) -> str:
    """Name of the folder, in a node's models, that an address is staged to: readable, and another for each address."""
    digest = hashlib.sha256(uri.encode()).hexdigest()[:12]
    return f"{uri.rpartition('/')[2]}-{digest}"


def with_staged_models(params: ModelParams, models: str) -> ModelParams:
    """The same with folders below `models` in place of addresses in object storage."""

    def local(name: str | None) -> str | None:
        if name is None or not is_stored(name):
            return name
        folder = f"{models}/{staged_name(name)}"
        return f"{folder}/{name.rpartition('/')[2]}" if is_single_file(name) else folder

    def moved(part: SourceConfig) -> SourceConfig:
        return part.model_copy(update={"pretrained": local(part.pretrained)})

    def begun(module: ConditionedConfig) -> ConditionedConfig:
        return module.model_copy(update={"pretrained": local(module.pretrained)})

    tokens = {name: each if each is None else begun(each) for name, each in params.token_conditioners}

    encoders = tuple(
        moved(each).model_copy(update={"tokenizer": local(each.tokenizer)}) for each in params.text_config.encoders
    )
    image = params.image_encoder_config
    unet, lora = moved(params.unet_config), params.unet_config.lora
    if lora is not None:
        unet = unet.model_copy(update={"lora": lora.model_copy(update={"pretrained": local(lora.pretrained)})})
    return params.model_copy(
        update={
            "pretrained_model_name_or_path": local(params.pretrained_model_name_or_path),
            "unet_config": unet,
            "first_stage_config": moved(params.first_stage_config),
            "text_config": params.text_config.model_copy(update={"encoders": encoders}),
            "image_encoder_config": None if image is None else moved(image),
            "adapters_config": {name: begun(each) for name, each in params.adapters_config.items()},
            "token_conditioners": params.token_conditioners.model_copy(update=tokens),
        }
    )
