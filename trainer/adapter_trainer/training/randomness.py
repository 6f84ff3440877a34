"""The state of a process's random generators as tensors and JSON, so that no pickle is needed to resume it.

Training draws nothing from these (see `order`); modules with dropout layers do.
"""

import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save


def file_name(rank: int) -> str:
    """Name of a rank's file in a checkpoint."""
    return f"random-rank-{rank:05d}.safetensors"


def seed(run_seed: int, step: int, rank: int) -> None:
    """Seeds all generators for a rank that has no state to restore; ranks and steps get streams of their own."""
    number = zlib.crc32(f"{run_seed}:{step}:{rank}".encode())
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - what libraries may use
    torch.manual_seed(number)


def state() -> bytes:
    """The state of Python's, NumPy's and torch's generators, as the content of a safetensors file."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - what libraries may use
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    scalars = {"python": [version, gauss], "numpy": [int(position), int(has_gauss), float(cached)]}
    return save(tensors, metadata={"scalars": json.dumps(scalars)})


def load(path: Path) -> None:
    """Restores the generators from a file with such content."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        scalars: dict[str, list[Any]] = json.loads(file.metadata()["scalars"])
    version, gauss = scalars["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    position, has_gauss, cached = scalars["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
