"""A run's averages and learning rates are those that diffusers and Accelerate have in a loop of their own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from adapter_trainer.training import loop, setup
from tests.trainer.support import tiny

STEPS = 6


def prepared(data: Path, output: Path, **optimization: Any) -> loop.Training:
    changes = {"optimization": {"max_train_steps": STEPS, **optimization}}
    options = setup.RunOptions(output, show=lambda _: None)
    return setup.prepare(tiny.configuration(tiny.settings(data, changes)), options)


@pytest.mark.parametrize("warmup", [True, False], ids=["warmup", "at once"])
def test_averages_are_those_of_diffusers(data: Path, tmp_path: Path, *, warmup: bool) -> None:
    run = prepared(data, tmp_path, ema={"decay": 0.9, "warmup": warmup})
    assert run.state.ema is not None
    trained = [parameter for _, parameter in run.state.trained()]
    reference = EMAModel(trained, decay=0.9, min_decay=0.0 if warmup else 0.9)
    for _ in range(4):
        loop.take_step(run)
        reference.step(trained)
    for ours, theirs in zip(run.state.ema.shadow_params, reference.shadow_params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
    decays = [reference.get_decay(step) for step in range(1, 5)]
    assert decays == ([0.0, 2 / 11, 3 / 12, 4 / 13] if warmup else [0.0, 0.9, 0.9, 0.9])


@pytest.mark.parametrize(
    "name", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
)
def test_rates_with_accumulation_are_those_of_accelerates_own_loop(name: str, data: Path, tmp_path: Path) -> None:
    warmup = {} if name == "constant" else {"lr_warmup_steps": 2}
    cycles = {"lr_num_cycles": 2} if name == "cosine_with_restarts" else {}
    run = prepared(data, tmp_path, lr_scheduler=name, gradient_accumulation_steps=2, **warmup, **cycles)
    ours = []
    for _ in range(STEPS):
        ours.append(run.state.optimizer.param_groups[0]["lr"])
        loop.take_step(run)
    weight = torch.nn.Parameter(torch.zeros(1))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW([weight], lr=0.002)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=2, num_training_steps=STEPS, num_cycles=cycles.get("lr_num_cycles", 1)
    )
    optimizer, scheduler = accelerator.prepare(optimizer, scheduler)
    theirs = []
    for turn in range(2 * STEPS):
        with accelerator.accumulate(torch.nn.Module()):
            if turn % 2 == 0:
                theirs.append(optimizer.param_groups[0]["lr"])
            (weight.sum() * 1.0).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert ours == theirs
