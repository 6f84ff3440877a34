"""What a configuration will cost, counted before anything is loaded: parameters, FLOPs and bytes of one training process.

The model is built and run once with fake tensors, which have shapes and types and no content: the real SDXL takes seconds
and no memory. Counted FLOPs are those of matrix products, convolutions and attention, as the field counts them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from adapter_api.columns import columns_of
from adapter_api.conditions import TextConfig
from adapter_api.model import ModelParams
from adapter_api.networks import ImageEncoderConfig, Source, TransformerParams
from adapter_api.sources import with_pipeline_sources
from adapter_api.training import TrainingConfig
from adapter_trainer import sharding
from adapter_trainer.compute import WEIGHT_TYPES
from adapter_trainer.encoders import ImageEncoder
from adapter_trainer.first_stage import Autoencoder
from adapter_trainer.model import AdapterModel
from adapter_trainer.tokens import conditioning_sequence

OPTIMIZER_BYTES = {"AdamW": 8, "AdamW8bit": 2, "Prodigy": 16, "Adafactor": 0}
"""Of state, for each trained parameter. Adafactor keeps rows and columns only."""
TEXT_TOKENS = 77
UNKNOWN_WIDTH = 1280
"""Of a column whose width only the data tell."""
VIT_H = TransformerParams(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, projection_dim=1024
)
"""The image encoder that published SDXL adapters use (its `config.json` in laion/CLIP-ViT-H-14-laion2B-s32B-b79K)."""
SDXL_TEXT_FLOPS = 0.11e12
"""Of both text encoders, for one caption of 77 tokens: 2 x 77 x their 818 million parameters."""
SDXL_TEXT_PARAMETERS = 817_719_552


@dataclass(frozen=True)
class Work:
    """What one process computes for one forward and backward pass of one batch, and what it holds for that."""

    batch: int
    forward_flops: float
    """Of the UNet with its adapters and token conditioners."""
    backward_flops: float
    encode_flops: float
    """Of first stage, text and image encoders, where their outputs are not cached."""
    trained_parameters: int
    frozen_parameters: int
    memory: dict[str, int]
    """Bytes by what they are for."""
    assumed: tuple[str, ...]
    """What could not be known and was taken for granted."""

    @property
    def flops(self) -> float:
        """Of everything."""
        return self.forward_flops + self.backward_flops + self.encode_flops

    @property
    def bytes(self) -> int:
        """At the same time."""
        return sum(self.memory.values())


def count(config: TrainingConfig, world_size: int = 1) -> Work:
    """Counts one forward and backward pass of config.optimization.train_batch_size samples.

    Args:
        config: What is trained.
        world_size: Processes, which with FSDP share out what is trained.

    Raises:
        InvalidConfig: parts that do not fit together.
    """
    known, assumed = _self_contained(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    with FakeTensorMode(allow_non_fake_inputs=True), _default_type(precision):
        model = AdapterModel(known)
        saved = _SavedBytes(model)
        has_text = bool(with_pipeline_sources(config.model.params).text_config.encoders)
        with FlopCounterMode(display=False) as counter:
            with saved:
                prediction = _forward(model, known, text_tokens=TEXT_TOKENS if has_text else 0)
            forward = counter.get_total_flops()
            prediction.float().square().mean().backward()
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        parts = [model.unet, model.token_conditioners, model.adapters]
        parts += [model.image_encoder] if model.image_encoder is not None else []
        frozen = sum(p.numel() for part in parts for p in part.parameters() if not p.requires_grad)
        encode = _encode_flops(model, known) + (SDXL_TEXT_FLOPS * known.optimization.train_batch_size * has_text)
        is_sharded = config.optimization.parallelism == "FSDP" and world_size > 1
        gathered = sharding.largest_gathered(model) if is_sharded else 0
        stage_bytes = _bytes(
            model.first_stage, 4 if known.model.params.first_stage_config.params.force_upcast else None
        )
    share = -(-trained // world_size) if is_sharded else trained
    memory = {
        "frozen weights": frozen * precision.itemsize + has_text * SDXL_TEXT_PARAMETERS * precision.itemsize,
        "first stage": stage_bytes,
        "trained weights": share * 4,
        "gathered from other processes": gathered * 4,
        "their copies in lower precision": 0 if precision is torch.float32 else trained * precision.itemsize,
        "gradients": share * 4,
        "optimizer": share * OPTIMIZER_BYTES.get(config.optimization.optimizer.target, 8),
        "average of the weights": 0 if config.optimization.ema is None else share * 4,
        "activations": saved.total,
    }
    return Work(
        batch=config.optimization.train_batch_size,
        forward_flops=float(forward),
        backward_flops=float(counter.get_total_flops() - forward),
        encode_flops=encode,
        trained_parameters=trained,
        frozen_parameters=frozen + has_text * SDXL_TEXT_PARAMETERS,
        memory={name: size for name, size in memory.items() if size},
        assumed=assumed,
    )


def timed_step(config: TrainingConfig, device: torch.device, clock: Callable[[], float], repeats: int = 3) -> float:
    """Seconds of one forward and backward pass on this device, measured: the median after one that is not counted.

    For models that are small enough to be built for it; the optimizer's step and the encoders are not in it.
    """
    known, _ = _self_contained(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    has_text = bool(with_pipeline_sources(config.model.params).text_config.encoders)
    with _default_type(precision), device:
        model = AdapterModel(known)
        seconds = []
        for _ in range(repeats + 1):
            started = clock()
            prediction = _forward(model, known, text_tokens=TEXT_TOKENS if has_text else 0)
            prediction.float().square().mean().backward()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            seconds.append(clock() - started)
    return median(seconds[1:])


class _SavedBytes:
    """Counts what the forward pass keeps for the backward pass, the model's own weights apart."""

    def __init__(self, model: nn.Module) -> None:
        # Addresses mean nothing for fake tensors: it is the storages' identities that tell them apart.
        self._seen = {parameter.untyped_storage()._cdata for parameter in model.parameters()}  # noqa: SLF001
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self.total = 0

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:  # noqa: SLF001
            self._seen.add(storage._cdata)  # noqa: SLF001
            self.total += storage.nbytes()
        return tensor

    def __enter__(self) -> None:
        self._hooks.__enter__()

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)


def _forward(model: AdapterModel, config: TrainingConfig, text_tokens: int) -> Tensor:
    batch = config.optimization.train_batch_size
    latents = torch.randn(batch, *model.latent_shape(config.data.params.resolution))
    text = torch.randn(batch, text_tokens, model.token_dim) if text_tokens else None
    dropped = torch.zeros(batch, dtype=torch.bool)
    vectors = {
        name: torch.randn(batch, model.columns[f"token_conditioners.{name}"].width) for name in model.token_conditioners
    }
    sequence = conditioning_sequence(
        text, model.token_conditioners, vectors, dict.fromkeys(model.token_conditioners, dropped),
        batch_size=batch, token_dim=model.token_dim, like=latents,
    )  # fmt: skip
    tokens = {
        name: adapter.tokens(_features(model, config, name, batch), dropped)  # type: ignore[operator]
        for name, adapter in model.adapters.items()
    }
    micro = None
    if model.unet.config.addition_embed_type == "text_time":
        pooled = model.params.unet_config.params.pooled_dim
        micro = {"text_embeds": torch.randn(batch, pooled), "time_ids": torch.randn(batch, 6)}
    prediction: Tensor = model.unet(
        latents,
        torch.zeros(batch, dtype=torch.int64),
        encoder_hidden_states=sequence,
        added_cond_kwargs=micro,
        cross_attention_kwargs={"ip_hidden_states": tokens} if tokens else None,
        return_dict=False,
    )[0]
    return prediction


def _features(model: AdapterModel, config: TrainingConfig, name: str, batch: int) -> Tensor:
    """What an adapter's projector is given."""
    column, encoder = model.columns[f"adapters_config.{name}"], model.image_encoder
    if not column.is_reference or encoder is None:
        return torch.randn(batch, column.width)
    if config.model.params.adapters_config[name].projector.reads_sequence:
        return torch.randn(batch, _patches(config) + 1, encoder.sequence_dim)
    return torch.randn(batch, encoder.pooled_dim)


def _patches(config: TrainingConfig) -> int:
    settings = config.model.params.image_encoder_config
    return 0 if settings is None else (settings.params.image_size // settings.params.patch_size) ** 2


@torch.no_grad()
def _encode_flops(model: AdapterModel, config: TrainingConfig) -> float:
    """Of one batch through first stage and image encoder."""
    batch, size = config.optimization.train_batch_size, config.data.params.resolution
    with FlopCounterMode(display=False) as counter:
        if isinstance(model.first_stage, Autoencoder):
            stage = model.first_stage
            images = torch.randn(batch, config.model.params.first_stage_config.params.in_channels, size, size)
            stage.vae.encode(images)
        if isinstance(model.image_encoder, ImageEncoder):
            side = model.image_encoder.image_size
            model.image_encoder(torch.randn(batch, 3, side, side), sequence=True)
    return float(counter.get_total_flops())


def _bytes(module: nn.Module, itemsize: int | None) -> int:
    return sum(p.numel() * (itemsize or p.element_size()) for p in module.parameters())


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _self_contained(config: TrainingConfig) -> tuple[TrainingConfig, tuple[str, ...]]:
    """PURE: the configuration with nothing to load: shapes instead of names, columns with widths; and what is assumed."""
    params: ModelParams = with_pipeline_sources(config.model.params)
    assumed = []

    def unnamed(part: Any, field: str) -> Any:
        if not isinstance(part, Source) or part.pretrained is None:
            return part
        assumed.append(f"{field}: {part.pretrained} has the shape that `params` give, by default SDXL's")
        return part.model_copy(update={"pretrained": None})

    encoder: ImageEncoderConfig | None = params.image_encoder_config
    if encoder is not None and encoder.pretrained is not None:
        assumed.append(f"model.params.image_encoder_config: {encoder.pretrained} is a CLIP ViT-H/14")
        encoder = encoder.model_copy(update={"pretrained": None, "params": VIT_H})
    columns = []
    for column in columns_of(config):
        if column.width is None and column.kind != "reference":
            assumed.append(f"data.params.columns: {column.name!r} is {UNKNOWN_WIDTH} wide")
            columns.append(column.model_copy(update={"width": UNKNOWN_WIDTH}))
        else:
            columns.append(column)
    known = params.model_copy(
        update={
            "pretrained_model_name_or_path": None,
            "unet_config": unnamed(params.unet_config, "model.params.unet_config"),
            "first_stage_config": unnamed(params.first_stage_config, "model.params.first_stage_config"),
            "image_encoder_config": encoder,
            "text_config": TextConfig(),
        }
    )
    data = config.data.params.model_copy(update={"columns": tuple(columns)})
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"params": known}),
            "data": config.data.model_copy(update={"params": data}),
        }
    ), tuple(assumed)
