"""Passes of a model on inputs that are made up, of the shapes that training gives it: to be counted or timed."""

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from adapter_api.conditions import adapter_path, conditioner_path
from adapter_api.training import TrainingConfig
from adapter_trainer.forecast.assumptions import Known
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.token_conditioners import conditioning_sequence


def predict(model: AdapterModel, given: Known, batch: int) -> Tensor:
    """UNet, adapters and token conditioners on what encoders would have made of `batch` samples."""
    config = given.config
    latents = torch.randn(batch, *model.latent_shape(config.data.params.resolution))
    text = torch.randn(batch, given.text_tokens, model.token_dim) if given.text_tokens else None
    dropped = torch.zeros(batch, dtype=torch.bool)
    vectors = {
        name: torch.randn(batch, model.columns[conditioner_path(name)].width) for name in model.token_conditioners
    }
    sequence = conditioning_sequence(
        text, model.token_conditioners, vectors, dict.fromkeys(model.token_conditioners, dropped),
        batch_size=batch, token_dim=model.token_dim, like=latents,
    )  # fmt: skip
    tokens = {
        name: adapter.tokens(_features(model, config, name, batch), dropped)  # type: ignore[operator]
        for name, adapter in model.adapters.items()
    }
    pooled = torch.randn(batch, max(model.params.unet_config.params.pooled_dim, 0))
    timesteps, time_ids = torch.zeros(batch, dtype=torch.int64), torch.randn(batch, 6)
    return model.denoise(latents, timesteps, sequence, tokens, pooled, time_ids)


def _features(model: AdapterModel, config: TrainingConfig, name: str, batch: int) -> Tensor:
    """What an adapter's projector is given."""
    column, encoder = model.columns[adapter_path(name)], model.image_encoder
    if not column.is_reference or encoder is None:
        return torch.randn(batch, column.width)
    if config.model.params.adapters_config[name].projector.reads_sequence:
        return torch.randn(batch, encoder.sequence_length, encoder.sequence_dim)
    return torch.randn(batch, encoder.pooled_dim)


def encoders(
    model: AdapterModel, given: Known, texts: Sequence[nn.Module], batch: int
) -> Iterator[tuple[nn.Module, Callable[[], object]]]:
    """First stage, text encoders (`texts`) and image encoder, each with what runs it on `batch` samples."""
    config = given.config
    if isinstance(model.first_stage, Autoencoder):
        stage, channels = model.first_stage, config.model.params.first_stage_config.params.in_channels
        size = config.data.params.resolution
        yield stage, lambda: stage.posterior(torch.randn(batch, channels, size, size))
    for text, settings in zip(texts, given.text_encoders, strict=True):
        ids = torch.zeros(batch, settings.params.max_position_embeddings, dtype=torch.int64)
        yield text, functools.partial(text, ids)
    if model.image_encoder is not None:
        images = model.image_encoder
        side = images.image_size
        yield images, lambda: images(torch.randn(batch, 3, side, side), sequence=True)
