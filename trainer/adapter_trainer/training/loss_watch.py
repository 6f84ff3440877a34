"""Watches every loss without waiting for the device: which step was the first that was not finite, and on which samples."""

import torch
from torch import Tensor

from adapter_trainer.data.pairs_table import Row

LARGEST_LOSS = 1e30
"""Beyond it a loss is no better than infinity: no report holds it."""
_SHOWN = 5


class Watch:
    """The first loss that was not finite."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._samples: Tensor | None = None

    def observe(self, step: int, losses: Tensor, indices: Tensor) -> None:
        """Notes the losses [B] of a step, from 1, on the samples of these indices [B]; does not synchronise."""
        bad = ~(losses.detach().abs() <= LARGEST_LOSS)
        is_first = bad.any() & (self._step == 0)
        found = torch.where(bad, indices, -1)
        previous = torch.full_like(found, -1) if self._samples is None else self._samples
        self._samples = torch.where(is_first, found, previous)
        self._step = torch.where(is_first, step, self._step)

    @property
    def is_bad(self) -> Tensor:
        """1 if a loss was not finite, else 0; a scalar on the device."""
        return (self._step > 0).float()

    def found(self, rows: list[Row]) -> tuple[int, list[str]] | None:
        """The step, and the samples by picture and line; None if all losses were finite. Waits for the device."""
        step = int(self._step)
        if not step or self._samples is None:
            return None
        return step, [
            f"{rows[index].image} (line {rows[index].line})" for index in self._samples.tolist() if index >= 0
        ]


class LossMean:
    """The mean loss of the steps since it was last taken; summed on the device, which nothing waits for."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, loss: Tensor) -> None:
        """Adds a step's loss, a scalar."""
        self._sum = loss if self._sum is None else self._sum + loss
        self._steps += 1

    def take(self) -> Tensor:
        """The mean, a scalar on the device; the next one begins."""
        if self._sum is None:
            raise ValueError("no step has been taken since the last mean")
        mean = self._sum / self._steps
        self._sum, self._steps = None, 0
        return mean


def told(found: list[tuple[int, list[str]] | None]) -> str:
    """PURE: what all processes found, as a sentence."""
    steps = [each for each in found if each is not None]
    if not steps:
        return "the loss is not finite"
    first = min(step for step, _ in steps)
    samples = [name for step, names in steps if step == first for name in names]
    shown = ", ".join(samples[:_SHOWN]) + (f" and {len(samples) - _SHOWN} more" if len(samples) > _SHOWN else "")
    return f"the loss of step {first} is not finite on {shown}"
