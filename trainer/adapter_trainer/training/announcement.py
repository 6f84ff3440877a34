"""What a run says of itself to whoever started it: before its first step, and when it is complete."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from adapter_api.layout import SAMPLES_FOLDER
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.reporting.page_writer import PAGE

_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def beginning(
    model: AdapterModel, device: torch.device, *, processes: int, precision: str, samples: int, steps: int, batch: int,
    output: Path,
) -> Iterator[str]:  # fmt: skip
    """Lines: what is trained, on what, and where results go.

    Args:
        model: as it is trained.
        device: this process's.
        processes: of the run.
        precision: optimization.mixed_precision.
        samples: read in one epoch.
        steps: of the whole run.
        batch: samples of one step, of all processes.
        output: folder of this process.
    """
    trained = {
        name: sum(each.numel() for each in module.parameters() if each.requires_grad)
        for name, module, settings in model.trainable_parts()
        if settings.train
    }
    everything = sum(each.numel() for each in model.parameters())
    many = f"{processes} processes, each on " if processes > 1 else ""
    yield f"device: {many}{device_name(device)}, mixed_precision {precision}"
    yield f"data: {samples} samples, {steps} steps of {batch}"
    parts = ", ".join(f"{name} {count_text(count)}" for name, count in trained.items())
    yield f"trained: {count_text(sum(trained.values()))} of {count_text(everything)} parameters ({parts})"
    yield f"output: {output}"


def end(output: Path, step: int) -> Iterator[str]:
    """Lines: where results are, and how to draw from them."""
    yield f"complete: {output / f'checkpoint-{step}'}"
    pictures = output / SAMPLES_FOLDER / f"step-{step}.png"
    for what, path in (("pictures", pictures), ("report", output / PAGE)):
        if path.is_file():
            yield f"{what}: {path}"
    yield f"to draw: atj sample {output}"


def device_name(device: torch.device) -> str:
    """As its vendor calls it; of a processor, how many cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{device.type}, {torch.get_num_threads()} of {cores} cores"


def count_text(count: int) -> str:
    """PURE: 4_400_000 -> 4.4 M."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
