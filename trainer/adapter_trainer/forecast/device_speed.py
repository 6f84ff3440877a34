"""How fast a device computes: what its maker says, or what one transformer block of the model's width measures here."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch.utils.flop_counter import FlopCounterMode

GIB = 2**30
COPIED_NUMBERS = 2**24
"""Of 4 bytes: more than caches hold."""


@dataclass(frozen=True)
class Device:
    """A device by its maker's data sheet."""

    name: str
    low_precision_flops: float
    """A second, dense, in bfloat16 (in float16 where the device has no bfloat16)."""
    float32_flops: float
    """A second, dense; in TF32 where the device has it."""
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes that its memory reads or writes in a second."""

    def peak(self, precision: Literal["no", "fp16", "bf16"]) -> float:
        """FLOPs a second."""
        return self.float32_flops if precision == "no" else self.low_precision_flops


KNOWN = {
    "h200": Device("NVIDIA H200", 989e12, 494e12, 141 * GIB, 4.8e12),
    "h100": Device("NVIDIA H100", 989e12, 494e12, 80 * GIB, 3.35e12),
    "a100": Device("NVIDIA A100", 312e12, 156e12, 80 * GIB, 2.0e12),
    "l40s": Device("NVIDIA L40S", 362e12, 183e12, 48 * GIB, 864e9),
    "a10": Device("NVIDIA A10", 125e12, 62.5e12, 24 * GIB, 600e9),
    "l4": Device("NVIDIA L4", 121e12, 60e12, 24 * GIB, 300e9),
    "rtx4090": Device("NVIDIA GeForce RTX 4090", 165e12, 82.6e12, 24 * GIB, 1008e9),
    "rtx3090": Device("NVIDIA GeForce RTX 3090", 71e12, 35.6e12, 24 * GIB, 936e9),
    "v100": Device("NVIDIA V100", 125e12, 15.7e12, 32 * GIB, 900e9),
    "t4": Device("NVIDIA T4", 65e12, 8.1e12, 16 * GIB, 320e9),
}
"""Dense figures of NVIDIA's data sheets."""


def known_device(name: str) -> Device | None:
    """The device that a driver reports under this name, such as `NVIDIA H100 80GB HBM3`."""
    compact = name.lower().replace(" ", "")
    return next((device for key, device in KNOWN.items() if key in compact), None)


def measured_flops(
    device: torch.device, dtype: torch.dtype, width: int, tokens: int, clock: Callable[[], float], repeats: int = 3
) -> float:
    """FLOPs a second of one transformer block [1, tokens, width], forward and backward: the median of `repeats`."""
    head = 64 if width % 64 == 0 else width
    block = BasicTransformerBlock(width, width // head, head, cross_attention_dim=width).to(device, dtype)
    states = torch.randn(1, tokens, width, device=device, dtype=dtype, requires_grad=True)
    context = torch.randn(1, 77, width, device=device, dtype=dtype)

    def step() -> None:
        block(states, encoder_hidden_states=context).float().square().mean().backward()
        if device.type != "cpu":
            torch.accelerator.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()
    seconds = []
    for _ in range(repeats):
        started = clock()
        step()
        seconds.append(clock() - started)
    return float(counter.get_total_flops()) / median(seconds)


def measured_bandwidth(device: torch.device, clock: Callable[[], float], repeats: int = 3) -> float:
    """Bytes a second that memory reads or writes while numbers are added in place: the median of `repeats`."""
    numbers = torch.zeros(COPIED_NUMBERS, device=device)

    def add() -> None:
        numbers.add_(1)
        if device.type != "cpu":
            torch.accelerator.synchronize()

    add()
    seconds = []
    for _ in range(repeats):
        started = clock()
        add()
        seconds.append(clock() - started)
    return 2 * numbers.nbytes / median(seconds)
