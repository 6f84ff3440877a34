"""What a configuration will cost, counted before anything is loaded: parameters and FLOPs of one training process.

The model is built and run once with fake tensors, which have shapes and types and no content: the real SDXL takes seconds
and no memory. Counted FLOPs are those of matrix products, convolutions and attention, as the field counts them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import trial
from adapter_trainer.forecast.assumptions import Known, known
from adapter_trainer.forecast.fake_tensors import fake_tensors
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.encoders import new_encoder
from adapter_trainer.model.registry import WEIGHT_TYPES

FORWARD_AND_BACKWARD = 3
"""Times the FLOPs of a forward pass: backward, each product is one for its input and one for its weights."""


@dataclass(frozen=True)
class Work:
    """What one process computes for one forward and backward pass of one batch."""

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
    assumed: tuple[str, ...]
    """What could not be known and was taken for granted."""

    @property
    def flops(self) -> float:
        """Of everything."""
        return self.forward_flops + self.backward_flops + self.learning_flops + self.encode_flops


def count(config: TrainingConfig) -> Work:
    """Counts one forward and backward pass of config.optimization.train_batch_size samples.

    Raises:
        InvalidConfig: parts that do not fit together.
    """
    given = known(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    with fake_tensors(), _default_type(precision):
        model = AdapterModel.of(given.config)
        texts = [new_encoder(each).requires_grad_(each.train) for each in given.text_encoders]
        batch = config.optimization.train_batch_size
        with FlopCounterMode(display=False) as counter:
            prediction = trial.predict(model, given, batch)
            forward = counter.get_total_flops()
            prediction.float().square().mean().backward()
        backward = counter.get_total_flops() - forward
        encode, learning = _encoder_flops(model, given, texts)
        trained = sum(p.numel() for part in (model, *texts) for p in part.parameters() if p.requires_grad)
        parts = [model.unet, model.token_conditioners, model.adapters, *texts]
        parts += [model.image_encoder] if model.image_encoder is not None else []
        frozen = sum(p.numel() for part in parts for p in part.parameters() if not p.requires_grad)
    return Work(
        batch=batch,
        forward_flops=float(forward),
        backward_flops=float(backward),
        learning_flops=learning,
        encode_flops=encode,
        trained_parameters=trained,
        frozen_parameters=frozen,
        assumed=given.assumed,
    )


def timed_step(config: TrainingConfig, device: torch.device, clock: Callable[[], float], repeats: int = 3) -> float:
    """Seconds of one forward and backward pass on this device, measured: the median after one that is not counted.

    For models that are small enough to be built for it; the optimizer's step and the encoders are not in it.
    """
    given = known(config)
    precision = WEIGHT_TYPES[config.optimization.mixed_precision]
    with _default_type(precision), device:
        model = AdapterModel.of(given.config)
        seconds = []
        for _ in range(repeats + 1):
            started = clock()
            prediction = trial.predict(model, given, given.config.optimization.train_batch_size)
            prediction.float().square().mean().backward()
            if device.type != "cpu":
                torch.accelerator.synchronize()
            seconds.append(clock() - started)
    return median(seconds[1:])


@torch.no_grad()
def _encoder_flops(model: AdapterModel, given: Known, texts: Sequence[nn.Module]) -> tuple[float, float]:
    """Of one batch through first stage, text encoders and image encoder: frozen ones, forward; trained ones, both ways."""
    frozen = trained = 0.0
    for encoder, encode in trial.encoders(model, given, texts, given.config.optimization.train_batch_size):
        with FlopCounterMode(display=False) as counter:
            encode()
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            trained += FORWARD_AND_BACKWARD * counter.get_total_flops()
        else:
            frozen += counter.get_total_flops()
    return frozen, trained


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
