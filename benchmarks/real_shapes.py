"""SDXL's real shapes with random weights: measured on a GPU, or a few steps of them on processors; and what they take by count."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

import torch

from adapter_trainer.forecast.device_speed import KNOWN, known_device
from adapter_trainer.forecast.forecast import forecast
from benchmarks import shapes
from benchmarks.contestants import Which, on_device
from benchmarks.quickstart import ROOT

REAL_BYTES = 23 * 2**30
"""That the plain script needs to hold the real SDXL."""
REAL_RESOLUTION = 256
REAL_STEPS = 4


def compare_on_cpu() -> str:
    """SDXL's real shapes on processors: a few steps each, for machines without a GPU."""
    if torch.cuda.is_available() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < REAL_BYTES:
        return (
            "SDXL's real shapes on processors: not measured; it takes 24 GiB of memory, and is of no use beside a GPU."
        )
    labels: dict[Which, str] = {
        "reference": "plain script", "cached": "ours, from the cache", "compiled": "ours, from the cache, blocks compiled",
    }  # fmt: skip
    found = {name: _on_device("sdxl-vit-h", REAL_RESOLUTION, 1, name, REAL_STEPS) for name in labels}
    plain = found["reference"]["speed"]
    rows = "\n".join(
        f"| {label} | {1 / found[name]['speed']:.2f} | {found[name]['speed'] / plain:.2f} | {found[name]['memory']:.1f} |"
        for name, label in labels.items()
    )
    return f"""\
SDXL's real shapes with random weights and ViT-H at {REAL_RESOLUTION}², batch 1, bfloat16, on all cores; each in a process of its own, median
wall-clock of {REAL_STEPS} steps. The plain script does not fit this machine at 512².

| | s a step | ratio | peak resident, GB |
|---|---|---|---|
{rows}"""


GPU_SCALES = ((512, 8), (1024, 1), (1024, 4))
GPU_STEPS = 12


def compare_on_gpu() -> str:
    """SDXL's real shapes with random weights, where there is a device for them."""
    if not torch.cuda.is_available():
        return (
            "With SDXL's real shapes on a GPU (goals: ≥ 3 times the plain script at 512² and 1024², MFU ≥ 45 % at 1024², ≤ 24 GB at "
            "1024² and batch 1): there was no GPU on this machine, so nothing was measured. What memory it takes can be counted "
            f"without one, as `atj plan` does, by phase of the run and with ViT-bigG:\n\n{counted_memory()}"
        )
    peak = known_device(torch.cuda.get_device_name())
    lines = []
    for resolution, batch_size in GPU_SCALES:
        found = {name: _on_device("sdxl", resolution, batch_size, name) for name in ("reference", "compiled")}
        ours, plain = found["compiled"], found["reference"]
        mfu = "unknown peak" if peak is None else f"{100 * ours['flops'] / peak.low_precision_flops:.0f} %"
        lines.append(
            f"| {resolution}², batch {batch_size} | {plain['speed']:.2f} | {ours['speed']:.2f} | "
            f"{ours['speed'] / plain['speed']:.2f} | {mfu} | {plain['memory']:.1f} | {ours['memory']:.1f} |"
        )
    rows = "\n".join(lines)
    return f"""\
SDXL's real shapes with random weights and ViT-bigG on {torch.cuda.get_device_name()}, bfloat16, blocks compiled in ours; each in a
process of its own, median of {GPU_STEPS} steps. MFU: FLOPs counted in one step of UNet and adapter over time and the maker's peak. Goals: ratio ≥ 3, MFU
≥ 45 % at 1024², ≤ 24 GB at 1024² and batch 1.

| | plain, images/s | ours, images/s | ratio | MFU | plain, GB | ours, GB |
|---|---|---|---|---|---|---|
{rows}"""


def counted_memory() -> str:
    """Predicted GB of each phase, for the sizes that a GPU would be measured with."""
    lines = ["| | training | building the cache | drawing 8 pictures |", "|---|---|---|---|"]
    for resolution, batch_size in GPU_SCALES:
        with tempfile.TemporaryDirectory() as folder:
            config = shapes.configuration(Path(folder), shapes.sdxl(resolution, batch_size), "on")
        rows = config.sampling.model_copy(update={"rows": ({"caption": "a picture"},)})
        held = forecast(config.model_copy(update={"sampling": rows}), KNOWN["rtx4090"])
        sizes = [f"{(size + held.libraries) / 1e9:.1f} GB" for size in held.held.phases.values()]
        checkpointing = ", gradient checkpointing" * config.model.params.unet_config.gradient_checkpointing
        lines.append(f"| {resolution}², batch {batch_size}{checkpointing} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def _on_device(scale: str, resolution: int, batch_size: int, which: Which, steps: int = GPU_STEPS) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.real_shapes",
        scale,
        str(resolution),
        str(batch_size),
        which,
        str(steps),
    ]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def main(arguments: list[str]) -> None:
    """What this module asks of processes of its own."""
    image = shapes.VIT_H if arguments[0] == "sdxl-vit-h" else shapes.VIT_BIG_G
    scale = shapes.sdxl(int(arguments[1]), int(arguments[2]), image)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names: tuple[Which, ...] = get_args(Which)
    name = next(each for each in names if each == arguments[3])
    print(json.dumps(on_device(scale, name, device, int(arguments[4]))))


if __name__ == "__main__":
    main(sys.argv[1:])
