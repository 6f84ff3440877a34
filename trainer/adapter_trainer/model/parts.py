"""The parts of a model, each built or loaded from a configuration; `fit` checks that they fit each other."""

from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel

from adapter_api.columns import column_of
from adapter_api.conditions import Conditioned, ModulePath, adapter_path
from adapter_api.model import ModelParams
from adapter_api.sources import with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model import lora_file, part_weights, registry, sources
from adapter_trainer.model.adapters import Adapter, AdapterLayer, cross_attention_layers, matching_layers
from adapter_trainer.model.encoders import (
    ImageEncoder,
    TextEncoders,
    Tokenizers,
    image_encoder,
    text_encoders,
    tokenizers,
)
from adapter_trainer.model.first_stage import Autoencoder, Pixels, first_stage
from adapter_trainer.model.lora import LoraWeights
from adapter_trainer.model.projectors import PROJECTORS, ConditionTokens
from adapter_trainer.model.token_conditioners import TOKEN_CONDITIONERS


@dataclass(frozen=True)
class ConditionColumn:
    """The column that feeds a module."""

    name: str
    width: int
    """Width of the column's vectors; 0 for reference images, whose features have the image encoder's width."""
    is_reference: bool


@dataclass(frozen=True)
class Parts:
    """All parts of a model, not yet wired together."""

    params: ModelParams
    """The configuration of the model, with the source of each part that a whole pipeline provides."""
    first_stage: Pixels | Autoencoder
    tokenizers: Tokenizers | None
    text_encoders: TextEncoders | None
    image_encoder: ImageEncoder | None
    unet: UNet2DConditionModel
    columns: dict[ModulePath, ConditionColumn]
    """Columns, by the module that each feeds."""
    token_conditioners: dict[str, ConditionTokens]
    adapters: dict[str, Adapter]
    lora: LoraWeights | None
    """The low-rank weights in the UNet, if there are any."""

    @property
    def token_dim(self) -> int:
        """Width of the UNet's cross-attention."""
        return int(self.unet.config.cross_attention_dim)


def parts_of(config: TrainingConfig) -> Parts:
    """Builds or loads every part of `config`, whose column widths must be known.

    What is loaded and not trained has the precision that it is computed in from the start: half the room on the way.

    Raises:
        InvalidConfig: a part that cannot be built or loaded.
    """
    params, seed = with_pipeline_sources(config.model.params), config.seed
    precision = registry.WEIGHT_TYPES[config.optimization.mixed_precision]
    texts = tokenizers(params.text_config)
    stage = first_stage(params.first_stage_config, config.data.params.channels, seed, precision)
    text = text_encoders(params.text_config, seed, texts, precision)
    images = image_encoder(params.image_encoder_config, seed, precision)
    unet = _unet(params, config, stage.factor, precision)
    columns = _columns(config)
    # Low-rank weights come last: adapters begin as copies of the UNet's own layers.
    return Parts(
        params=params,
        first_stage=stage,
        tokenizers=texts,
        text_encoders=text,
        image_encoder=images,
        unet=unet,
        columns=columns,
        token_conditioners={
            path.name: _token_conditioner(config, path, module, columns[path], unet)
            for path, module in config.model.conditioned.items()
            if not path.is_adapter
        },
        adapters={
            name: _adapter(config, name, columns[adapter_path(name)], images, unet) for name in params.adapters_config
        },
        lora=_low_rank(params, seed, unet),
    )


def _columns(config: TrainingConfig) -> dict[ModulePath, ConditionColumn]:
    columns = {}
    for path, module in config.model.conditioned.items():
        column = column_of(config, path, module)
        if column is None:
            raise InvalidConfig(f"{path.field}: has no data column")
        is_reference = column.kind == "reference"
        if column.width is None and not is_reference:
            raise InvalidConfig(f"data.params.columns: the width of column {column.name!r} is not known; set `width`")
        columns[path] = ConditionColumn(column.name, column.width or 0, is_reference)
    return columns


def _unet(params: ModelParams, config: TrainingConfig, factor: int, precision: torch.dtype) -> UNet2DConditionModel:
    settings, field = params.unet_config, "model.params.unet_config"
    if settings.pretrained is not None:
        dtype = torch.float32 if settings.train else precision
        loaded: UNet2DConditionModel = sources.load(registry.MODULES[settings.target], settings, field, dtype)
        return loaded
    shape = settings.params.model_dump()
    shape["sample_size"] = shape["sample_size"] or config.data.params.resolution // factor
    if shape["addition_embed_type"] is None:
        del shape["addition_time_embed_dim"], shape["projection_class_embeddings_input_dim"]
    return sources.build("unet", config.seed, lambda: UNet2DConditionModel(**shape), f"{field}.params")


def _token_conditioner(
    config: TrainingConfig, path: ModulePath, module: Conditioned, column: ConditionColumn, unet: UNet2DConditionModel
) -> ConditionTokens:
    name, token_dim = path.name, int(unet.config.cross_attention_dim)
    projector = config.model.params.token_conditioners.present[name].projector
    built = sources.build(
        name,
        config.seed,
        lambda: TOKEN_CONDITIONERS[name](
            PROJECTORS[projector.target](column.width, token_dim, projector.params),
            token_dim,
            module.null_condition,
        ),
        path.field,
    )
    if module.pretrained is not None:
        part_weights.begin_conditioner(built, path, module.pretrained)
    return built


def _adapter(
    config: TrainingConfig, name: str, column: ConditionColumn, images: ImageEncoder | None, unet: UNet2DConditionModel
) -> Adapter:
    settings, token_dim = config.model.params.adapters_config[name], int(unet.config.cross_attention_dim)
    path = adapter_path(name)
    field = path.field
    kind = PROJECTORS[settings.projector.target]
    projector, width, shape = settings.projector, column.width, settings.projector.params
    if column.is_reference:
        if images is None:
            raise InvalidConfig(f"{field}: takes reference images; set model.params.image_encoder_config")
        width = images.sequence_dim if projector.reads_sequence else images.pooled_dim
        if kind.is_per_feature:
            shape = shape.model_copy(update={"num_tokens": images.sequence_length})
    available = cross_attention_layers(unet)
    chosen = matching_layers(settings.layers, list(available), f"{field}.layers")
    tokens = sources.build(
        path.module,
        config.seed,
        lambda: ConditionTokens(kind(width, token_dim, shape), token_dim, settings.null_condition),
        f"{field}.projector",
    )
    adapter = Adapter(tokens, {layer: AdapterLayer(available[layer]) for layer in chosen}, settings.scale)
    if settings.pretrained is not None:
        part_weights.begin_adapter(adapter, path, unet, settings.pretrained)
    return adapter


def _low_rank(params: ModelParams, seed: int, unet: UNet2DConditionModel) -> LoraWeights | None:
    settings = params.unet_config.lora
    if settings is None:
        return None
    field = "model.params.unet_config.lora"
    built = sources.build("unet_lora", seed, lambda: LoraWeights(unet, settings), field)
    if settings.pretrained is not None:
        lora_file.begin_lora(built, settings.pretrained, field)
    return built
