"""Adapter training against a plain script after the published recipe: images a second, memory, MFU; and two processes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from adapter_api.training import TrainingConfig
from benchmarks import real_shapes, shapes
from benchmarks.contestants import WARM_UP, contestants, flops_of, our_step
from benchmarks.quickstart import ROOT
from benchmarks.shapes import Scale
from benchmarks.step import prepared

TITLE = "Training speed"
ROUNDS = 12
"""Steps of each, by turns."""
SCALING_STEPS = 25
SCALING_ROUNDS = 3


def measure() -> str:
    """The section's text."""
    torch.set_num_threads(1)
    real = real_shapes.compare_on_cpu()  # first: it needs all the memory that there is
    tiny = compare_on_cpu()
    return f"{tiny}\n\n{real}\n\n{compare_scaling()}\n\n{real_shapes.compare_on_gpu()}"


# --- one process ---


def compare_on_cpu(scale: Scale | None = None, rounds: int = ROUNDS) -> str:
    """Images per second of CPU time, which other processes of a machine take least from."""
    scale = scale or shapes.tiny()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.write_data(folder, scale)
        started = time.process_time()
        runs = contestants(folder, scale, torch.device("cpu"), ["cached"])
        build = time.process_time() - started
        runs += contestants(folder, scale, torch.device("cpu"), ["compiled", "in the loop", "reference"])
        flops = {run.name: flops_of(run) for run in runs if run.name != "compiled"}
        seconds: dict[str, list[float]] = {run.name: [] for run in runs}
        for number in range(WARM_UP + rounds):
            for run in runs:
                before = time.process_time()
                run.step()
                if number >= WARM_UP:
                    seconds[run.name].append(time.process_time() - before)
    speed = {name: scale.batch_size / median(found) for name, found in seconds.items()}
    share = 100 * (1 - flops["cached"] / flops["reference"])
    rows = "\n".join(
        f"| {label} | {speed[name]:.2f} | {speed[name] / speed['reference']:.2f} | {goal} |"
        for name, label, goal in (
            ("reference", "plain script", ""),
            ("in the loop", "ours, encoders in every step", ""),
            ("cached", "ours, from the cache", "≥ 2"),
            ("compiled", "ours, from the cache, blocks compiled", "≥ 2"),
        )
    )
    best, bound = max(speed.values()) / speed["reference"], flops["reference"] / flops["cached"]
    missed = (
        f"\n\nThe goal is missed by {2 - best:.2f}: by counting, a cache can give {bound:.2f} on a CPU, where everything computes in "
        "float32; the rest has to come from the UNet itself, of which compiling takes off a part. Tried without gain: bfloat16 "
        "(slower at this size, for both), compiled residual blocks, whole transformers instead of their blocks, Inductor's C++ "
        "wrapper, autotuned products."
    )
    return f"""\
An IP-Adapter of 4 tokens on an SDXL-shaped model with a tenth of the channels and a quarter of 512² on each side, batch
{scale.batch_size}, float32, one thread; {shapes.PICTURES} JPEGs of {2 * scale.resolution} pixels. The plain script
(`benchmarks/reference_recipe.py`) follows the published recipe: pictures opened when they are asked for, VAE, ViT and both text
encoders in every step. Encoders are {share:.0f} % of its counted FLOPs (of SDXL's at 512² with ViT-bigG: 41 %), so leaving them out alone gives
{bound:.2f}.
{rounds} steps each, by turns, in one process; median CPU seconds. Preparing, which builds the cache of all pictures, took
{build:.1f} CPU seconds, once.

| | images per CPU second | ratio | goal |
|---|---|---|---|
{rows}{missed if best < 2 else ""}"""


# --- two processes ---


def compare_scaling(scale: Scale | None = None, steps: int = SCALING_STEPS, rounds: int = SCALING_ROUNDS) -> str:
    """Two processes that train together against two that do not know of each other."""
    scale = scale or shapes.tiny()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.write_data(folder, scale)
        contestants(folder, scale, torch.device("cpu"), ["cached"])  # builds the cache
        together, apart = [], []
        for number in range(rounds):
            apart.append(_seconds(folder, scale, steps, number, joined=False))
            together.append(_seconds(folder, scale, steps, number, joined=True))
    ratios = sorted(alone / joined for alone, joined in zip(apart, together, strict=True))
    return f"""\
Two processes over gloo against two single ones side by side, which is the bound that the cores set; {steps} steps after {WARM_UP}
that are not counted, {rounds} rounds by turns, wall-clock.

| | s for {steps} steps (median) | share of the bound: median (least, most) | goal |
|---|---|---|---|
| two alone | {median(apart):.2f} | 1 | |
| two together | {median(together):.2f} | {median(ratios):.2f} ({ratios[0]:.2f}, {ratios[-1]:.2f}) | ≥ 0.9 |"""


def _seconds(folder: Path, scale: Scale, steps: int, number: int, *, joined: bool) -> float:
    given = folder / "scaling.json"
    given.write_text(shapes.configuration(folder, scale, "on").model_dump_json(), encoding="utf-8")
    processes = []
    for rank in range(2):
        output = folder / f"scaling-{number}-{joined}-{rank}"
        ranks = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)} if joined else {}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_600 + number), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.training_speed", str(given), str(output), str(steps)]
        processes.append(
            subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **address, **ranks}, stdout=subprocess.PIPE, text=True
            )
        )
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a process of the scaling run failed")
    return median(float(each.split()[-1]) for each in said)


def timed_steps(config: TrainingConfig, output: Path, steps: int) -> float:
    """Wall-clock seconds of some steps; run in a process of its own."""
    torch.set_num_threads(1)
    output.mkdir()
    run = prepared(config, output)
    for _ in range(WARM_UP):
        our_step(run)
    run.processes.barrier()
    started = time.perf_counter()
    for _ in range(steps):
        our_step(run)
    return time.perf_counter() - started


def main(arguments: list[str]) -> None:
    """What this module asks of processes of its own."""
    settings = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    print(timed_steps(TrainingConfig.model_validate(settings), Path(arguments[1]), int(arguments[2])))


if __name__ == "__main__":
    main(sys.argv[1:])
