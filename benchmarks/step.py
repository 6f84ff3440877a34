"""Our step loop against a bare PyTorch loop over the same model and batch: time, data wait, peak memory."""

import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adapter_api.training import TrainingConfig
from adapter_trainer import loop, setup

ROUNDS = 12
STEPS = 10
"""In each round each loop takes this many steps, one loop after the other, so that both see the same machine."""


@dataclass(frozen=True)
class StepFigures:
    """Medians over rounds."""

    ours_ms: float
    bare_ms: float
    ratio: float
    """Median of the rounds' ratios."""
    ratio_low: float
    ratio_high: float
    data_wait_percent: float


def prepared(config: TrainingConfig, folder: Path) -> loop.Training:
    """A run that is ready for its first step, without a word on the terminal."""
    with contextlib.redirect_stdout(io.StringIO()):
        return setup.prepare(config, setup.RunOptions(folder, show=_silent))


def _silent(line: str) -> None:
    """Prints nothing: the terminal is not what is measured."""


class BareLoop:
    """Forward, backward, clip and step on one fixed batch; nothing else."""

    def __init__(self, run: loop.Training) -> None:
        self.run = run
        self.batch = next(run.batches)
        self.parameters = [parameter for _, parameter in run.state.trained()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=1e-3, fused=bool(run.state.optimizer.param_groups[0].get("fused"))
        )

    def step(self) -> None:
        """One optimizer step."""
        run = self.run
        loss = loop.loss_of(run.state.model, run.state.model, run.schedule, self.batch, run.null_ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def compare(config: TrainingConfig) -> StepFigures:
    """Runs both loops in turn."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(config, Path(folder))
        bare = BareLoop(run)
        ours, theirs, waits = [], [], []
        for number in range(ROUNDS + 1):
            run.report.begin_interval()
            started = time.perf_counter()
            for _ in range(STEPS):
                run.stop.begin_step()
                loop.take_step(run)
                run.stop.end_step()
            middle = time.perf_counter()
            waited = run.report.waited
            for _ in range(STEPS):
                bare.step()
            ended = time.perf_counter()
            if number:  # the first round warms up
                ours.append((middle - started) / STEPS)
                theirs.append((ended - middle) / STEPS)
                waits.append(100 * waited / (middle - started))
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return StepFigures(1000 * median(ours), 1000 * median(theirs), median(ratios), ratios[0], ratios[-1], median(waits))


def peak_memory_mib(config: TrainingConfig, which: str) -> float:
    """Peak resident memory of a process that takes a few steps of one loop; run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(config, Path(folder))
        if which == "ours":
            for _ in range(STEPS):
                loop.take_step(run)
        else:
            bare = BareLoop(run)
            for _ in range(STEPS):
                bare.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    settings: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    print(peak_memory_mib(TrainingConfig.model_validate(settings), sys.argv[1]))
