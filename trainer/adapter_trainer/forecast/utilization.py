"""Model FLOPs utilization: the share of a device's peak that a run trains with (arXiv 2204.02311, appendix B).

`python -m adapter_trainer.forecast.utilization` counts the FLOPs of a configuration on standard input. It takes seconds, so a run
has it done by a process of its own, beside its first steps.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import torch

from adapter_api.training import TrainingConfig
from adapter_trainer.forecast.device_speed import Device, known_device


@dataclass(frozen=True)
class Flops:
    """Of one image."""

    passes: float
    """Forward and backward pass; what gradient checkpointing computes again does not count."""
    encode: float
    """First stage, text and image encoders."""


def flops_of(config: TrainingConfig) -> Flops:
    """Counts them.

    Raises:
        InvalidConfig: parts that do not fit together.
    """
    from adapter_trainer.forecast import flop_count  # slow to import, and of no use to the training process

    unet = config.model.params.unet_config.model_copy(update={"gradient_checkpointing": False})
    params = config.model.params.model_copy(update={"unet_config": unet})
    model = config.model.model_copy(update={"params": params})
    work = flop_count.count(config.model_copy(update={"model": model}))
    return Flops((work.flops - work.encode_flops) / work.batch, work.encode_flops / work.batch)


class Utilization:
    """Of the devices of a run, all of one kind."""

    def __init__(self, config: TrainingConfig, device: Device, world_size: int, *, encodes: bool) -> None:
        """Starts to count; `encodes` says whether steps run the encoders."""
        self._peak = device.peak(config.optimization.mixed_precision) * world_size
        self._encodes = encodes
        self._flops: Flops | None = None
        # It computes shapes only: a context of its own on the device would take memory from training.
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._counting: subprocess.Popen[str] | None = subprocess.Popen(
            [sys.executable, "-m", "adapter_trainer.forecast.utilization"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        if self._counting.stdin is not None:
            self._counting.stdin.write(config.model_dump_json())
            self._counting.stdin.close()

    def share(self, images_per_second: float) -> float | None:
        """MFU in 0..1 of all devices together; None until the FLOPs are counted, or where they cannot be."""
        if self._counting is not None and self._counting.poll() is not None:
            if self._counting.returncode == 0 and self._counting.stdout is not None:
                self._flops = Flops(**json.loads(self._counting.stdout.read().splitlines()[-1]))
            self._counting = None
        if self._flops is None:
            return None
        flops = self._flops.passes + (self._flops.encode if self._encodes else 0)
        return images_per_second * flops / self._peak

    @classmethod
    def on(
        cls, device: torch.device, config: TrainingConfig, world_size: int, *, encodes: bool
    ) -> "Utilization | None":
        """For a run on `device`; None where its peak is not known."""
        known = known_device(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        return None if known is None else cls(config, known, world_size, encodes=encodes)


if __name__ == "__main__":
    print(json.dumps(vars(flops_of(TrainingConfig.model_validate_json(sys.stdin.read())))))
