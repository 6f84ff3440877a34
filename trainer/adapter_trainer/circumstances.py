"""What else a step's last bits depend on: libraries, device, threads, precision of products, number of processes."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

_VERSIONED = ("adapter-training-operator", "torch", "diffusers", "transformers", "accelerate", "numpy", "safetensors")


@cache
def versions() -> dict[str, str]:
    """Of what decides what a run computes, by package."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def of_device(device: torch.device) -> dict[str, Any]:
    """What decides the order of sums on it, and how precise products are."""
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        return {
            "device": torch.cuda.get_device_name(device),
            "float32 matrix products": precision,
            "cuDNN": f"{cudnn.version()}, TF32 {cudnn.allow_tf32}, deterministic {cudnn.deterministic}",
        }
    return {
        "device": f"a processor with {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "float32 matrix products": precision,
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """PURE: what both name and differ in, for people."""
    return [
        f"{name} {before[name]} then, {now[name]} now" for name in now if name in before and before[name] != now[name]
    ]
