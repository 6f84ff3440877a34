"""Measures and writes docs/benchmarks.md."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from adapter_api.document import read
from adapter_api.job import AdapterTrainingJob
from adapter_api.training import TrainingConfig
from benchmarks.start import seconds_to_first_step
from benchmarks.step import PAIRS, compare
from demo import digits

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "benchmarks.md"
OPERATOR_SECTION = "## The operator, without kubelets"


def main() -> None:
    """Measures everything, one thing after another."""
    job = read(ROOT / "configs" / "quickstart.yaml").data
    AdapterTrainingJob.model_validate(job)
    with tempfile.TemporaryDirectory() as folder:
        digits.write(Path(folder), digits.load()[0])
        config = _config(job["spec"]["training"], Path(folder))
        torch.set_num_threads(1)
        step = compare(config)
        ours, bare = (_peak_memory(config, which) for which in ("ours", "bare"))
        local = json.loads(json.dumps(job))
        del local["spec"]["data"]
        local["spec"]["training"]["data"]["params"]["data_root_path"] = folder
        local["spec"]["training"]["logging"] = {"log_steps": 1}
        start = {nodes: seconds_to_first_step(_with_nodes(local, nodes)) for nodes in (1, 2)}
    before = REPORT.read_text(encoding="utf-8") if REPORT.exists() else ""
    # Measured by a harness of its own.
    operator = before[before.index(OPERATOR_SECTION) :] if OPERATOR_SECTION in before else ""
    REPORT.write_text(
        f"""# Benchmarks

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.machine()}, Linux \
{platform.release()}, Python {platform.python_version()}, torch {version("torch")}, diffusers {version("diffusers")}.

## Step time

The model, batch size and data of `configs/quickstart.yaml` ({config.optimization.train_batch_size} samples a step), one
process, one thread. Our loop is everything that training does between two reports: reading samples, noise, gradient
accumulation, mixed-precision hooks, clipping, learning-rate schedule, average of the weights where configured, the stop
request. The bare loop is forward, backward, clip and AdamW on one batch that is already in memory. They take
{PAIRS} steps each, by turns, in one process; figures are medians, the ratio is that of the pairs' ratios.

| figure | ours | bare | ratio (quartiles) | goal |
|---|---|---|---|---|
| step, ms | {step.ours_ms:.1f} | {step.bare_ms:.1f} | {step.ratio:.3f} ({step.ratio_low:.3f} to {step.ratio_high:.3f}) | ≤ 1.03 |
| waiting for data, % of the step | {step.data_wait_percent:.2f} | 0 | | ≤ 1 |
| peak resident memory, MiB | {ours:.0f} | {bare:.0f} | {ours / bare:.3f} | |

## Time to the first step

From starting `atj run configs/quickstart.yaml` (data in a local folder, no download) to the first reported step: the
embedded store, claim and restore, torchrun, imports, checking the data, building the model, one step.

| nodes | seconds |
|---|---|
| 1 | {start[1]:.1f} |
| 2 | {start[2]:.1f} |
{operator and chr(10)}{operator}""",
        encoding="utf-8",
    )
    print(REPORT.read_text(encoding="utf-8"))


def _config(training: dict[str, Any], data: Path) -> TrainingConfig:
    training = json.loads(json.dumps(training))
    training["data"]["params"]["data_root_path"] = str(data)
    del training["optimization"]["ema"]
    return TrainingConfig.model_validate(training)


def _with_nodes(job: dict[str, Any], nodes: int) -> dict[str, Any]:
    return {**job, "spec": {**job["spec"], "nodes": nodes}}


def _peak_memory(config: TrainingConfig, which: str) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(config.model_dump_json())
        file.flush()
        command = [sys.executable, "-m", "benchmarks.step", which, file.name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return float(ended.stdout.split()[-1])


if __name__ == "__main__":
    main()
