"""Our step loop against a bare PyTorch loop over the same model and batch: time, data wait, peak memory."""

import contextlib
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from adapter_api.training import TrainingConfig
from adapter_trainer.data.samples import Batch, Batches
from adapter_trainer.training import loop, setup
from benchmarks.quickstart import ROOT, local_job

TITLE = "Step time"
PAIRS = 200
"""Steps of each loop. They alternate one by one, so that both see the same moments of a machine that is not quiet."""
WARM_UP = 20
MEMORY_STEPS = 10


def measure() -> str:
    """The section's text."""
    with local_job() as job:
        del job["spec"]["training"]["optimization"]["ema"]
        config = TrainingConfig.model_validate(job["spec"]["training"])
        torch.set_num_threads(1)
        step = compare(config)
        ours, bare = (_peak_memory_of(config, which) for which in ("ours", "bare"))
    return f"""\
The model, batch size and data of `configs/digits.yaml` ({config.optimization.train_batch_size} samples a step), one
process, one thread. Our loop is everything that training does between two reports: reading samples, noise, gradient
accumulation, mixed-precision hooks, clipping, learning-rate schedule, average of the weights where configured, the stop
request. The bare loop is forward, backward, clip and AdamW on one batch that is already in memory. They take
{PAIRS} steps each, by turns, in one process; figures are medians, the ratio is that of the pairs' ratios.

| figure | ours | bare | ratio (quartiles) | goal |
|---|---|---|---|---|
| step, ms | {step.ours_ms:.1f} | {step.bare_ms:.1f} | {_ratio(step.ratio)} | ≤ 1.03 |
| step on a batch that is in memory, ms | {step.unread_ms:.1f} | {step.bare_ms:.1f} | {_ratio(step.unread_ratio)} | |
| waiting for data, % of the step | {step.data_wait_percent:.2f} | 0 | | ≤ 1 |
| peak resident memory, MiB | {ours:.0f} | {bare:.0f} | {ours / bare:.3f} | |

The next batch is read during the backward pass, in a thread. Where samples are as small as these, reading is Python alone, and
the backward pass has to wait for the interpreter as often as it gives a tensor back: two rows differ by that, and reading first would
cost as much."""


def _ratio(quartiles_of_pairs: tuple[float, float, float]) -> str:
    low, middle, high = quartiles_of_pairs
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _peak_memory_of(config: TrainingConfig, which: str) -> float:
    """In MiB, of a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(config.model_dump_json())
        file.flush()
        command = [sys.executable, "-m", "benchmarks.step", which, file.name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return float(ended.stdout.split()[-1])


@dataclass(frozen=True)
class StepFigures:
    """Medians over steps."""

    ours_ms: float
    unread_ms: float
    """Of our loop where every batch is there already."""
    bare_ms: float
    ratio: tuple[float, float, float]
    """Quartiles of the pairs' ratios."""
    unread_ratio: tuple[float, float, float]
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
        loss = loop.losses_of(run.state.model, run.state.model, run.schedule, self.batch, run.nulls).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class _Repeated(Batches):
    """One batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(itertools.repeat(batch))

    def read_ahead(self) -> None:
        """There is nothing to read."""


def compare(config: TrainingConfig) -> StepFigures:
    """Runs the loops in turn, one step each."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(config, Path(folder))
        bare = BareLoop(run)
        unread = replace(run, batches=_Repeated(bare.batch))
        ours, without_reading, theirs, waits = [], [], [], []
        for number in range(WARM_UP + PAIRS):
            seconds = _timed(lambda: _step(run))
            wait = run.report.times.seconds()["data"]
            others = _timed(bare.step), _timed(lambda: _step(unread))
            if number >= WARM_UP:
                ours.append(seconds)
                waits.append(100 * wait / seconds)
                theirs.append(others[0])
                without_reading.append(others[1])
    return StepFigures(
        1000 * median(ours), 1000 * median(without_reading), 1000 * median(theirs),
        _quartiles(ours, theirs), _quartiles(without_reading, theirs), median(waits),
    )  # fmt: skip


def _step(run: loop.Training) -> None:
    run.report.begin_interval()
    run.stop.begin_step(failed=run.saver.is_failed)
    loop.take_step(run)
    run.stop.end_step()


def _timed(function: Callable[[], None]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def _quartiles(mine: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles((one / other for one, other in zip(mine, others, strict=True)), n=4)
    return low, middle, high


def peak_memory_mib(config: TrainingConfig, which: str) -> float:
    """Peak resident memory of a process that takes a few steps of one loop; run in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepared(config, Path(folder))
        if which == "ours":
            for _ in range(MEMORY_STEPS):
                loop.take_step(run)
        else:
            bare = BareLoop(run)
            for _ in range(MEMORY_STEPS):
                bare.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    settings: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    print(peak_memory_mib(TrainingConfig.model_validate(settings), sys.argv[1]))
