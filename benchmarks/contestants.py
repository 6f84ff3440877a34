"""The training runs that are compared: ours in several ways, and the plain script; each can take a step."""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast import flop_count
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.first_stage import Autoencoder
from adapter_trainer.model.registry import WEIGHT_TYPES
from adapter_trainer.training import loop
from benchmarks import reference_recipe, shapes
from benchmarks.shapes import Scale
from benchmarks.step import prepared

WARM_UP = 2
"""Steps that are not counted."""

Which = Literal["reference", "in the loop", "cached", "compiled"]


@dataclass(frozen=True)
class Contestant:
    """A training run that can take a step."""

    name: Which
    step: Any
    images: int
    """Of one step."""


def contestants(folder: Path, scale: Scale, device: torch.device, which: list[Which]) -> list[Contestant]:
    """Runs over the same pictures, with the same shapes and weights."""
    found: list[Contestant] = []
    for name in which:
        if name == "reference":
            config = shapes.configuration(folder, scale, "off")
            found.append(Contestant(name, reference(config, folder, scale, device).step, scale.batch_size))
        else:
            wanted = shapes.compiled(scale) if name == "compiled" else scale
            config = shapes.configuration(folder, wanted, "off" if name == "in the loop" else "on")
            run = prepared(config, Path(tempfile.mkdtemp(dir=folder)))
            found.append(Contestant(name, lambda run=run: our_step(run), scale.batch_size))
    return found


def flops_of(run: Contestant) -> float:
    """Counted in one step, which it takes."""
    with FlopCounterMode(display=False) as counter:
        run.step()
    return float(counter.get_total_flops())


def our_step(run: loop.Training) -> None:
    """What the step loop does for one step."""
    run.stop.begin_step(failed=run.saver.is_failed)
    loop.take_step(run)
    run.stop.end_step()


def reference(config: TrainingConfig, folder: Path, scale: Scale, device: torch.device) -> reference_recipe.Recipe:
    """The plain script with the modules that a configuration builds."""
    model = AdapterModel.of(config)
    stage, text, image = model.first_stage, model.text_encoders, model.image_encoder
    if not isinstance(stage, Autoencoder) or text is None or image is None or model.tokenizers is None:
        raise TypeError("the recipe has a VAE, text encoders and an image encoder")
    names = [tuple(line.split("\t")) for line in (folder / "train.txt").read_text(encoding="utf-8").splitlines()]
    pictures = reference_recipe.Pictures(
        folder,
        [(name, caption) for name, caption in names],
        scale.resolution,
        model.tokenizers.tokenizers,
        image.image_size,
    )
    return reference_recipe.Recipe(
        unet=model.unet,
        vae=stage.vae,
        image_encoder=image.encoder,
        text_encoders=list(text.encoders),
        batches=reference_recipe.batches(pictures, scale.batch_size),
        device=device,
        dtype=WEIGHT_TYPES[scale.mixed_precision],
    )


def on_device(scale: Scale, which: Which, device: torch.device, steps: int) -> dict[str, float]:
    """Images a second, FLOPs a second of a step, and peak memory in GB (10⁹ bytes; resident, on a CPU) of one contestant."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes.write_data(folder, scale, pictures=8)
        work = flop_count.count(
            shapes.configuration(folder, scale, "off")
        )  # compiled code does not tell what it computes
        run = contestants(folder, scale, device, [which])[0]
        for _ in range(WARM_UP):
            run.step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            run.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident
    return {
        "speed": scale.batch_size / median(seconds),
        "flops": (work.forward_flops + work.backward_flops) / median(seconds),
        "memory": memory / 1e9,
    }
