"""Refuses parts that do not fit each other, once all of them are built or loaded: before the first step, by field."""

from typing import Any

from adapter_api.conditions import adapter_path
from adapter_api.networks import FirstStageConfig, FirstStageParams
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidConfig
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.parts import Parts

SDXL_SCALE = 0.13025
"""By which SDXL's UNets had their latents multiplied (`vae/config.json` of stabilityai/stable-diffusion-xl-base-1.0)."""
SDXL_SHAPE = {"cross_attention_dim": 2048, "addition_embed_type": "text_time", "in_channels": 4}
"""Of SDXL's UNets, and of no other published ones'."""
_NOT_OF_THE_FILE = {"force_upcast"}
"""Settings of a first stage that say how it is used, not what it is."""


def check(parts: Parts, config: TrainingConfig) -> None:
    """Every rule in turn.

    Raises:
        InvalidConfig: two parts do not fit; names the field to change.
    """
    _channels(parts, config)
    if isinstance(parts.first_stage, Autoencoder):
        _first_stage(parts, parts.first_stage, config)
    _overlap(parts, config)
    _resolution(parts, config)
    _text(parts)


def _channels(parts: Parts, config: TrainingConfig) -> None:
    unet, latents = parts.unet.config, parts.first_stage.channels
    remedy = "name a UNet and a first stage that were made for each other"
    if unet.in_channels != latents:
        raise InvalidConfig(
            f"model.params.unet_config: takes {unet.in_channels} channels, the first stage gives {latents}; {remedy}"
        )
    if unet.out_channels != latents:
        raise InvalidConfig(
            f"model.params.unet_config: gives {unet.out_channels} channels, the first stage has {latents}; {remedy}"
        )
    if isinstance(parts.first_stage, Autoencoder):
        channels = config.data.params.channels
        if (given := int(parts.first_stage.vae.config.in_channels)) != channels:
            raise InvalidConfig(
                f"model.params.first_stage_config: takes pictures of {given} channels, data.params.image_mode "
                f"{config.data.params.image_mode} has {channels}; change one of them"
            )


def _first_stage(parts: Parts, stage: Autoencoder, config: TrainingConfig) -> None:
    settings, found = parts.params.first_stage_config, stage.vae.config
    if settings.pretrained is None:
        return
    field = "model.params.first_stage_config"
    name = config.model.params.first_stage_config.pretrained or config.model.params.pretrained_model_name_or_path
    # A configuration that was written out in full has the defaults in it, which then claim nothing.
    for parameter, default in FirstStageParams():
        claimed = getattr(settings.params, parameter)
        if parameter in _NOT_OF_THE_FILE or claimed == default:
            continue
        if claimed != (loaded := _plain(found[parameter])):
            raise InvalidConfig(
                f"{field}.params.{parameter}: is {claimed}, but {name} has {loaded}; remove it, or name another first stage"
            )
    if found.latents_mean is not None or found.latents_std is not None:
        raise InvalidConfig(
            f"{field}: {name} shifts and scales each channel of its latents by itself (latents_mean, latents_std), which "
            "UNets that are trained here do not expect; name SDXL's first stage"
        )
    _scale(parts, stage, settings, str(name))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _scale(parts: Parts, stage: Autoencoder, settings: FirstStageConfig, name: str) -> None:
    """Latents of another scale train without an error, and draw noise."""
    unet = parts.unet.config
    is_sdxl = parts.params.unet_config.pretrained is not None and all(
        unet[key] == value for key, value in SDXL_SHAPE.items()
    )
    if is_sdxl and stage.scale not in (SDXL_SCALE, settings.params.scaling_factor):
        raise InvalidConfig(
            f"model.params.first_stage_config: {name} multiplies latents by {stage.scale:g}, SDXL's UNets were trained on "
            f"{SDXL_SCALE}; name SDXL's first stage, or, if this UNet is another, set params.scaling_factor to "
            f"{stage.scale:g}"
        )


def _overlap(parts: Parts, config: TrainingConfig) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for name, adapter in parts.adapters.items():
        projector = config.model.params.adapters_config[name].projector.target
        column = parts.columns[adapter_path(name)].name
        for layer in adapter.layer_names():
            other = seen.setdefault((column, projector, layer), name)
            if other != name:
                raise InvalidConfig(
                    f"{adapter_path(name).field}.layers: overlaps {other!r} in {layer}, with the same column "
                    f"{column!r} and projector {projector}, so that nothing tells them apart; give them other layers, "
                    "columns or projectors, or remove one"
                )


def _resolution(parts: Parts, config: TrainingConfig) -> None:
    resolution, buckets = config.data.params.resolution, config.data.params.aspect_buckets
    multiple = parts.first_stage.factor * 2 ** (len(parts.unet.config.block_out_channels) - 1)
    if resolution % multiple:
        nearest = max(resolution // multiple, 1) * multiple
        raise InvalidConfig(f"data.params.resolution: {resolution} is not a multiple of {multiple}; use {nearest}")
    if buckets is not None and buckets.step % multiple:
        raise InvalidConfig(
            f"data.params.aspect_buckets.step: {buckets.step} is not a multiple of {multiple}; use {multiple}"
        )


def _text(parts: Parts) -> None:
    if parts.text_encoders is None:
        return
    field, unet = "model.params.text_config.encoders", parts.unet.config
    if parts.text_encoders.width != parts.token_dim:
        raise InvalidConfig(
            f"{field}: their joined width is {parts.text_encoders.width}, the UNet's cross_attention_dim is "
            f"{parts.token_dim}; name the encoders that the UNet was trained with"
        )
    if unet.addition_embed_type != "text_time":
        return
    wanted = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
    if (given := parts.text_encoders.pooled_width) != wanted:
        raise InvalidConfig(
            f"{field}: the last one's pooled embedding has {given} numbers, the UNet takes {wanted} in addition to its micro-"
            "conditions; name the encoders that the UNet was trained with, the one whose pooled embedding it takes last"
        )
