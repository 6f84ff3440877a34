"""Learning rates: diffusers' schedules, asked for a place rather than stepped, so that a resized run goes on in the middle."""

from collections.abc import Callable

import torch
from diffusers.optimization import get_polynomial_decay_schedule_with_warmup, get_scheduler

from adapter_api.optimization import OptimizationConfig

Scale = Callable[[float], float]


def scale_of(config: OptimizationConfig, span: int) -> Scale:
    """What a rate is multiplied by at each step of a schedule of `span` steps.

    Read off diffusers 0.42.1, `optimization.py`, which gives a polynomial no end of one's own by its name.
    """
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    if config.lr_scheduler == "polynomial":
        span += span == config.lr_warmup_steps  # a decay of no steps divides by them
        scheduler = get_polynomial_decay_schedule_with_warmup(
            stand_in, config.lr_warmup_steps, span, lr_end=config.lr_end, power=config.lr_power
        )
    else:
        scheduler = get_scheduler(
            config.lr_scheduler,
            stand_in,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=span,
            num_cycles=config.lr_num_cycles,
        )
    scale: Scale = scheduler.lr_lambdas[0]
    # Beyond its end a schedule stays where it ended; that of diffusers' cosine would rise again.
    return lambda position: scale(min(position, max(span, config.lr_warmup_steps)))


class LearningRates:
    """The rates of an optimizer's groups."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        """Its groups have their full rates."""
        self._optimizer = optimizer
        self._full = [float(group["lr"]) for group in optimizer.param_groups]
        self._scale: Scale = lambda _: 1.0

    def follow(self, scale: Scale, position: float) -> None:
        """Takes up a schedule at a position."""
        self._scale = scale
        self.move(position)

    def move(self, position: float) -> None:
        """Sets the rates to those of a position."""
        # The groups are others after an optimizer's state has been loaded.
        for group, full in zip(self._optimizer.param_groups, self._full, strict=True):
            group["lr"] = full * self._scale(position)

    @property
    def first(self) -> float:
        """That of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])
