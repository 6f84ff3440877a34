"""What one training process holds at the same time, counted before anything is loaded: in steps, while encoding, while drawing.

As in `plan`, everything is run once with fake tensors. What the UNet keeps for its backward pass depends on the device: under
autocast, GPUs normalise in float32 (PyTorch's list of operators that autocast to float32), and processors do not.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor, nn

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import trial
from adapter_trainer.forecast.assumptions import Known, known
from adapter_trainer.forecast.fake_tensors import fake_tensors
from adapter_trainer.forecast.live_bytes import LiveBytes
from adapter_trainer.model import sharding
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.encoders import new_encoder
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.precision import cast_frozen
from adapter_trainer.model.registry import WEIGHT_TYPES
from adapter_trainer.sampling.evaluation import MAX_BATCH

OPTIMIZER_BYTES = {"AdamW": 8, "AdamW8bit": 2, "Prodigy": 16, "Adafactor": 0}
"""Of state, for each trained parameter. Adafactor keeps rows and columns only."""

WHILE_BUILDING = {"frozen weights", "trained weights", "average of the weights", "gathered from other processes"}
"""What is there before the first step; the optimizer's state comes with it."""

Autocast = Callable[[], AbstractContextManager[None]]

Bytes = dict[str, int]
"""By what they are for."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process by what they are for, in each phase of a run."""

    steps: Bytes
    encoding: Bytes
    """While the cache is built; empty where steps run the encoders."""
    drawing: Bytes
    """While pictures are drawn or judged; empty where none are."""
    host: int
    """Of the host's memory, where the device has its own: a checkpoint on its way to the disk."""

    @property
    def parts(self) -> dict[str, Bytes]:
        """Those of each phase that there is, by its name."""
        named = {"training": self.steps, "encoding": self.encoding, "drawing": self.drawing}
        return {name: parts for name, parts in named.items() if parts}

    @property
    def phases(self) -> dict[str, int]:
        """Bytes of each phase that there is."""
        return {name: sum(parts.values()) for name, parts in self.parts.items()}

    @property
    def bytes(self) -> int:
        """At the same time, at most."""
        return max(self.phases.values())


def footprint(config: TrainingConfig, world_size: int = 1, device: str = "cuda") -> Footprint:
    """Counts what one of `world_size` processes holds, which with FSDP share out what is trained; `device`: cuda or cpu.

    Raises:
        InvalidConfig: parts that do not fit together.
    """
    counted = _counted(config, device)
    optimization, sizes = config.optimization, counted.sizes
    is_sharded = optimization.parallelism == "FSDP" and world_size > 1
    share = -(-sizes.trained // world_size) if is_sharded else sizes.trained
    copies = 0 if counted.precision is torch.float32 else sizes.trained * counted.precision.itemsize
    saved = {
        "trained weights": share * 4,
        "optimizer": share * OPTIMIZER_BYTES.get(optimization.optimizer.target, 8),
        "average of the weights": 0 if optimization.ema is None else share * 4,
    }
    saving = sum(saved.values())
    standing = {
        "frozen weights": sizes.frozen_bytes,
        **saved,
        "their copies in lower precision": copies,
        "gathered from other processes": counted.gathered * 4 if is_sharded else 0,
        "checkpoint on its way to the disk": saving if device == "cpu" else 0,
    }
    encoders = {"encoders": sizes.encoder_bytes}
    steps = {**standing, "activations": counted.activations - copies, "gradients": share * 4}
    if not counted.keeps:
        steps = {**steps, **encoders, "activations": max(steps["activations"], counted.encoding)}
    building = {name: size for name, size in standing.items() if name in WHILE_BUILDING}
    draws = bool(config.sampling.rows) or config.evaluation is not None
    return Footprint(
        steps=_present(steps),
        encoding=_present({**building, **encoders, "activations": counted.encoding}) if counted.keeps else {},
        drawing=_present({**standing, **encoders, "activations": counted.drawing}) if draws else {},
        host=0 if device == "cpu" else saving,
    )


def _present(parts: Bytes) -> Bytes:
    return {name: size for name, size in parts.items() if size}


@dataclass(frozen=True)
class _Counted:
    """What the passes of one process held."""

    precision: torch.dtype
    sizes: "_Sizes"
    keeps: bool
    """Whether a cache keeps what encoders make."""
    activations: int
    """Peak of a forward and backward pass, with copies of trained weights in lower precision."""
    encoding: int
    """Of the encoders: on as many samples as the cache's build gives them, or on those of a step where nothing is kept."""
    drawing: int
    gathered: int
    """Numbers that a rank holds beside its rows where weights are sharded."""


def _counted(config: TrainingConfig, device: str) -> _Counted:
    given, precision = known(config), WEIGHT_TYPES[config.optimization.mixed_precision]
    cache = config.data.params.cache
    with fake_tensors(), torch.device(device), _fused_attention(device):
        model, texts = _held(given, precision)
        autocast = functools.partial(_autocast, device, precision)
        kept, peak = _activations(model, given, autocast, backward=device == "cpu")
        sizes = _sizes(model, texts)
        keeps = cache.mode != "off" and sizes.encoder_bytes > 0
        encoded = cache.batch_size if keeps else config.optimization.train_batch_size
        found = _Counted(
            precision=precision,
            sizes=sizes,
            keeps=keeps,
            activations=peak,
            encoding=_encoding_peak(model, given, texts, autocast, encoded),
            drawing=_drawing_peak(model, given, autocast),
            gathered=sharding.largest_gathered(model),
        )
    if device == "cpu":
        return found
    # Autograd refuses a device that is not there: how far the backward pass goes above what it is given is the processor's.
    with fake_tensors():
        for part in model.children():
            if part not in (model.first_stage, model.image_encoder):  # these take no part in a step
                part.to("cpu")
        kept_there, peak_there = _activations(
            model, given, functools.partial(_autocast, "cpu", precision), backward=True
        )
    return replace(found, activations=max(peak, kept + peak_there - kept_there))


# --- what is held ---


def _held(given: Known, precision: torch.dtype) -> tuple[AdapterModel, list[Any]]:
    """The model and its text encoders with weights of the types that a run holds them in."""
    model = AdapterModel.of(given.config)
    cast_frozen(model, precision)
    texts = [new_encoder(each).requires_grad_(each.train) for each in given.text_encoders]
    return model, [
        text if settings.train else text.to(precision)
        for text, settings in zip(texts, given.text_encoders, strict=True)
    ]


@dataclass(frozen=True)
class _Sizes:
    trained: int
    """Parameters."""
    frozen_bytes: int
    encoder_bytes: int
    """Of frozen ones, the first stage among them."""


def _sizes(model: AdapterModel, texts: Sequence[nn.Module]) -> _Sizes:
    everything = [parameter for part in (model, *texts) for parameter in part.parameters()]
    parts = [model.first_stage, *texts, *([model.image_encoder] if model.image_encoder is not None else [])]
    encoders = {parameter for part in parts for parameter in part.parameters() if not parameter.requires_grad}
    frozen = [parameter for parameter in everything if not parameter.requires_grad and parameter not in encoders]
    return _Sizes(
        sum(parameter.numel() for parameter in everything if parameter.requires_grad), _bytes(frozen), _bytes(encoders)
    )


def _bytes(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


# --- what comes and goes ---


def _activations(model: AdapterModel, given: Known, autocast: Autocast, *, backward: bool) -> tuple[int, int]:
    """What one forward pass leaves for the backward pass, and the most that was there, gradients of weights apart."""

    def forget(parameter: Tensor) -> None:
        parameter.grad = None

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(forget)
    live = LiveBytes(model.parameters())
    with live:
        with autocast():
            prediction = trial.predict(model, given, given.config.optimization.train_batch_size)
        kept = live.now
        if backward:
            prediction.float().square().mean().backward()
    return kept, live.peak


@torch.no_grad()
def _encoding_peak(
    model: AdapterModel, given: Known, texts: Sequence[nn.Module], autocast: Autocast, batch: int
) -> int:
    peaks = [0]
    for encoder, encode in trial.encoders(model, given, texts, batch):
        live = LiveBytes(encoder.parameters())
        with live, autocast():
            encode()
        peaks.append(live.peak)
    return max(peaks)


@torch.no_grad()
def _drawing_peak(model: AdapterModel, given: Known, autocast: Autocast) -> int:
    config = given.config
    rows = config.sampling.images_per_row if config.sampling.rows else 0
    judged = min(config.optimization.train_batch_size, MAX_BATCH) if config.evaluation is not None else 0
    batch = max(rows, judged)
    if not batch:
        return 0
    guided = 2 if config.sampling.guidance_scale != 1 else 1
    live = LiveBytes(model.parameters())
    with live, autocast():
        trial.predict(model, given, guided * batch)
    if not isinstance(model.first_stage, Autoencoder):
        return live.peak
    decoding = LiveBytes(model.parameters())
    with decoding:
        model.first_stage.decode(torch.randn(batch, *model.latent_shape(config.data.params.resolution)))
    return max(live.peak, decoding.peak)


@contextmanager
def _autocast(device: str, precision: torch.dtype) -> Iterator[None]:
    """As a device has it, there or not: `torch.autocast` itself turns off for one that is not."""
    if precision is torch.float32:
        yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, precision)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])


@contextmanager
def _fused_attention(device: str) -> Iterator[None]:
    """GPUs never write the matrix of attention out; where there is none, PyTorch would count it."""
    if device == "cpu":
        yield
        return
    before = F.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]  # noqa: SLF001
        return attended

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before
