"""Optimizers by name, and what a checkpoint holds of them besides the tensors of their state."""

import contextlib
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from adapter_api.optimization import OptimizerConfig, OptimizerParams
from adapter_trainer.errors import InvalidConfig

Groups = list[dict[str, Any]]

PROGRESS = ("d", "d0", "d_max", "d_numerator", "d_denom", "d_hat", "k")
"""Numbers that Prodigy keeps for its groups rather than for parameters, and that change with every step."""


def _adamw(groups: Groups, rate: float, params: OptimizerParams) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=rate, betas=params.betas, eps=params.eps, weight_decay=params.weight_decay, fused=True
    )


def _adamw_8bit(groups: Groups, rate: float, params: OptimizerParams) -> torch.optim.Optimizer:
    try:
        import bitsandbytes  # slow to import, and where there is no GPU it need not be installed
    except ImportError:
        raise InvalidConfig(
            "optimization.optimizer.target: AdamW8bit comes from bitsandbytes, which is not installed here; install the "
            "extra `gpu`, or choose Adafactor, which saves as much memory"
        ) from None
    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, lr=rate, betas=params.betas, eps=params.eps, weight_decay=params.weight_decay
    )
    return made


def _prodigy(groups: Groups, rate: float, params: OptimizerParams) -> torch.optim.Optimizer:
    import prodigyopt

    with contextlib.redirect_stdout(io.StringIO()):  # it prints which decay it uses
        made: torch.optim.Optimizer = prodigyopt.Prodigy(
            groups,
            lr=rate,
            betas=params.betas,
            eps=params.eps,
            weight_decay=params.weight_decay,
            d_coef=params.d_coef,
            safeguard_warmup=params.safeguard_warmup,
            use_bias_correction=True,
        )
    return made


def _adafactor(groups: Groups, rate: float, params: OptimizerParams) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=rate, weight_decay=params.weight_decay, d=params.clip_threshold)


OPTIMIZERS: dict[str, Callable[[Groups, float, OptimizerParams], torch.optim.Optimizer]] = {
    "AdamW": _adamw,
    "AdamW8bit": _adamw_8bit,
    "Prodigy": _prodigy,
    "Adafactor": _adafactor,
}


def optimizer(config: OptimizerConfig, groups: Groups, rate: float) -> torch.optim.Optimizer:
    """The configured optimizer for groups of parameters, each perhaps with an `lr` of its own.

    Raises:
        InvalidConfig: its library is not installed.
    """
    return OPTIMIZERS[config.target](groups, rate, config.params)


def as_tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """One parameter's state as tensors of their own; Prodigy and bitsandbytes count steps in plain integers."""
    return {
        # bitsandbytes gives all parameters one and the same table of quantized values.
        key: (value.clone() if key.startswith("qmap") else value)
        if isinstance(value, Tensor)
        else torch.tensor(value, dtype=torch.int64)
        for key, value in state.items()
    }


def from_tensors(state: dict[str, Tensor]) -> dict[str, Any]:
    """What `as_tensors` was given. torch's own optimizers count steps in floats."""
    return {
        key: int(value) if value.dtype == torch.int64 and value.ndim == 0 else value for key, value in state.items()
    }


def kept_of(groups: Groups) -> Groups:
    """What a checkpoint tells of the groups besides their parameters, as JSON has it: without infinities."""
    return [
        {key: value for key, value in group.items() if key != "params" and value not in (float("inf"), float("-inf"))}
        for group in groups
    ]


def restore_progress(groups: Groups, saved: Groups) -> None:
    """Gives groups the numbers of PROGRESS that the saved ones have; settings stay as they are configured."""
    for group, before in zip(groups, saved, strict=False):
        group.update({name: before[name] for name in PROGRESS if name in before})


def maker_of(state: dict[str, Any]) -> str:
    """Which optimizer a parameter's state is of."""
    marks = {"p0": "Prodigy", "state1": "AdamW8bit", "exp_avg": "AdamW"}
    return next((name for key, name in marks.items() if key in state), "Adafactor")
