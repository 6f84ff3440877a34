"""What a configuration will cost, counted before anything is loaded: parameters, FLOPs and bytes of one training process.

The model is built and run once with fake tensors, which have shapes and types and no content: the real SDXL takes seconds
and no memory. Counted FLOPs are those of matrix products, convolutions and attention, as the field counts them.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from adapter_api.training import TrainingConfig
from adapter_trainer import sharding
from adapter_trainer.assumptions import Known, known
from adapter_trainer.compute import WEIGHT_TYPES
from adapter_trainer.encoders import ImageEncoder, new_encoder
from adapter_trainer.first_stage import Autoencoder
from adapter_trainer.model import AdapterModel
from adapter_trainer.tokens import conditioning_sequence

OPTIMIZER_BYTES = {"AdamW": 8, "AdamW8bit": 2, "Prodigy": 16, "Adafactor": 0}
"""Of state, for each trained parameter. Adafactor keeps rows and columns only."""

FORWARD_AND_BACKWARD = 3
"""Times the FLOPs of a forward pass: backward, each product is one for its input and one for its weights."""


@dataclass(frozen=True)
class Work:
    """What one process computes for one forward and backward pass of one batch, and what it holds for that."""

    batch: int
    forward_flops: float
    """Of the UNet with its adapters and token conditioners."""
    backward_flops: float
    learning_flops: float
    """Of encoders that are trained, forward and backward."""
    encode_flops: float
    """Of frozen encoders (first stage, text, images), where their outputs are not cached."""
    trained_parameters: int
    frozen_parameters: int
    memory: dict[str, int]
    """Bytes by what they are for."""
    assumed: tuple[str, ...]
    """What could not be known and was taken for granted."""

    @property
    def flops(self) -> float:
        """Of everything."""
        return self.forward_flops + self.backward_flops + self.learning_flops + self.encode_flops

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
    given = known(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    with FakeTensorMode(allow_non_fake_inputs=True), _default_type(precision):
        model = AdapterModel(given.config)
        texts = [new_encoder(each).requires_grad_(each.train) for each in given.text_encoders]
        saved = _SavedBytes(model)
        with FlopCounterMode(display=False) as counter:
            with saved:
                prediction = _forward(model, given)
            forward = counter.get_total_flops()
            prediction.float().square().mean().backward()
        backward = counter.get_total_flops() - forward
        encode, learning = _encoder_flops(model, given, texts)
        trained = sum(p.numel() for part in (model, *texts) for p in part.parameters() if p.requires_grad)
        parts = [model.unet, model.token_conditioners, model.adapters, *texts]
        parts += [model.image_encoder] if model.image_encoder is not None else []
        frozen = sum(p.numel() for part in parts for p in part.parameters() if not p.requires_grad)
        is_sharded = config.optimization.parallelism == "FSDP" and world_size > 1
        gathered = sharding.largest_gathered(model) if is_sharded else 0
        stage_bytes = _bytes(
            model.first_stage, 4 if given.config.model.params.first_stage_config.params.force_upcast else None
        )
    share = -(-trained // world_size) if is_sharded else trained
    memory = {
        "frozen weights": frozen * precision.itemsize,
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
        backward_flops=float(backward),
        learning_flops=learning,
        encode_flops=encode,
        trained_parameters=trained,
        frozen_parameters=frozen,
        memory={name: size for name, size in memory.items() if size},
        assumed=given.assumed,
    )


def timed_step(config: TrainingConfig, device: torch.device, clock: Callable[[], float], repeats: int = 3) -> float:
    """Seconds of one forward and backward pass on this device, measured: the median after one that is not counted.

    For models that are small enough to be built for it; the optimizer's step and the encoders are not in it.
    """
    given = known(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    with _default_type(precision), device:
        model = AdapterModel(given.config)
        seconds = []
        for _ in range(repeats + 1):
            started = clock()
            prediction = _forward(model, given)
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


def _forward(model: AdapterModel, given: Known) -> Tensor:
    config = given.config
    batch = config.optimization.train_batch_size
    latents = torch.randn(batch, *model.latent_shape(config.data.params.resolution))
    text = torch.randn(batch, given.text_tokens, model.token_dim) if given.text_tokens else None
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
def _encoder_flops(model: AdapterModel, given: Known, texts: Sequence[nn.Module]) -> tuple[float, float]:
    """Of one batch through first stage, text encoders and image encoder: frozen ones, forward; trained ones, both ways."""
    config = given.config
    batch, size = config.optimization.train_batch_size, config.data.params.resolution
    frozen = trained = 0.0

    def run(encoder: nn.Module, encode: Callable[[], object]) -> None:
        nonlocal frozen, trained
        with FlopCounterMode(display=False) as counter:
            encode()
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            trained += FORWARD_AND_BACKWARD * counter.get_total_flops()
        else:
            frozen += counter.get_total_flops()

    if isinstance(model.first_stage, Autoencoder):
        stage, channels = model.first_stage, config.model.params.first_stage_config.params.in_channels
        run(stage, lambda: stage.vae.encode(torch.randn(batch, channels, size, size)))
    for text, settings in zip(texts, given.text_encoders, strict=True):
        ids = torch.zeros(batch, settings.params.max_position_embeddings, dtype=torch.int64)
        run(text, functools.partial(text, ids))
    if isinstance(model.image_encoder, ImageEncoder):
        images = model.image_encoder
        run(images, lambda: images(torch.randn(batch, 3, images.image_size, images.image_size), sequence=True))
    return frozen, trained


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
