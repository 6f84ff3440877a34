"""The first stage of a run: its processes join each other."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from adapter_api.layout import LOGS_FOLDER
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import StopRequest
from adapter_trainer.errors import TrainingError


@dataclass(frozen=True)
class Joined:
    """The processes of a run, and what they have in common."""

    accelerator: Accelerator
    processes: Processes
    stop: StopRequest
    output: Path
    show: Callable[[str], None]
    """Takes what is worth knowing; only rank 0 prints it."""

    @property
    def device(self) -> torch.device:
        """This process's."""
        device: torch.device = self.accelerator.device
        return device


def join(config: TrainingConfig, output: Path, show: Callable[[str], None]) -> Joined:
    """Joins the processes that the launcher started, and clears what an earlier one left unfinished; collective.

    Raises:
        TrainingError: they do not know of each other.
    """
    optimization = config.optimization
    output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        # Accelerate joins torchrun's processes on CPUs only if it is told that there is nothing else to compute on.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=optimization.mixed_precision,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        log_with=list(config.logging.report_to) or None,
        project_dir=str(output / LOGS_FOLDER),
    )
    _check_joined(accelerator.num_processes)
    processes = Processes.of_this_run(output)
    checkpoint_folder.clear_remains(output, processes)
    return Joined(accelerator, processes, StopRequest(processes), output, show if processes.is_main else _silent)


def _check_joined(joined: int) -> None:
    """Processes that do not know of each other would each train a model of their own, and look well while at it."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if joined != started:
        raise TrainingError(
            f"the launcher started {started} processes, but Accelerate joined {joined}: this device has no collective "
            "communication that it knows; start one process, or set ACCELERATE_USE_CPU=true"
        )


def _silent(line: str) -> None:
    """Ranks other than 0 print nothing."""
