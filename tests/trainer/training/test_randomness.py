"""Random generators are saved and restored without pickle."""

import random
from pathlib import Path

import numpy as np
import torch

from adapter_trainer.training import randomness


def draw() -> tuple[float, ...]:
    """From every generator, in a way that leaves half a pair in the normal ones."""
    return (random.random(), random.gauss(), float(np.random.normal()), np.random.rand(), float(torch.randn(1)))  # noqa: NPY002


def test_every_generator_continues_where_it_was_saved(tmp_path: Path) -> None:
    draw()
    (tmp_path / "a.safetensors").write_bytes(randomness.state())
    expected = [draw() for _ in range(3)]
    draw()
    randomness.load(tmp_path / "a.safetensors")
    assert [draw() for _ in range(3)] == expected


def test_seeds_of_runs_steps_and_ranks_differ_and_repeat() -> None:
    def drawn(*place: int) -> tuple[float, ...]:
        randomness.seed(*place)
        return draw()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert drawn(0, 0, 0) == drawn(0, 0, 0)
