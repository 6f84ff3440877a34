"""What a run says while it goes on: progress.json for the agent, metrics.jsonl and trackers for people."""

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from adapter_api.document import dump
from adapter_api.launch import JOB_VARIABLE
from adapter_api.layout import LOGS_FOLDER, PROGRESS_FILE, TRAINING_FILE
from adapter_api.progress import MAX_NOTICE, Progress
from adapter_api.training import TrainingConfig
from adapter_trainer.circumstances import versions
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.files import replace_text
from adapter_trainer.forecast.utilization import Utilization
from adapter_trainer.reporting.history import History, Line
from adapter_trainer.reporting.page_writer import PageWriter
from adapter_trainer.reporting.step_times import StepTimes, clock_of

CONFIGURATION = Path(LOGS_FOLDER) / TRAINING_FILE
PAUSES = ("encoding", "evaluating", "saving", "sampling")
"""Phases in which no step is taken."""


class Report:
    """Writes how far a run is. Leaders keep their folder's progress.json; rank 0 keeps the history."""

    def __init__(
        self,
        output: Path,
        accelerator: Accelerator,
        processes: Processes,
        total_steps: int,
        clock: Callable[[], float],
        show: Callable[[str], None],
    ) -> None:
        self.output = output
        self.accelerator = accelerator
        self.processes = processes
        self.total_steps = total_steps
        self.clock = clock
        self.show = show
        self.resumed_step: int | None = None
        self.saved_step: int | None = None
        self.save_seconds: float | None = None
        self.notice: str | None = None
        self.evaluation: dict[str, float] = {}
        """Figures of the newest evaluation."""
        self.last = Progress(total_steps=total_steps, updated_at=_now(), world_size=processes.world_size)
        self.history = History(output)
        self.page = PageWriter(None, show, clock)
        self.times = StepTimes(clock_of(accelerator.device))
        self.utilization: Utilization | None = None
        """Set where the device's peak is known."""
        self.since = clock()
        self.samples = 0
        self.steps = 0
        self.phase_since = clock()
        self.pauses: dict[str, float] = {}
        """Seconds since the last step, by phase."""

    def start(
        self,
        config: TrainingConfig,
        step: int,
        checkpoint: Path | None,
        *,
        run_id: str = "",
        notices: Sequence[str] = (),
    ) -> None:
        """Opens the trackers and the history.

        Args:
            config: Of this run.
            step: That it goes on after.
            checkpoint: Of this run's own, if it goes on from one.
            run_id: By which a tracker knows the run again.
            notices: What is not as it was when the checkpoint was made.
        """
        self.notice = "; ".join(notices)[:MAX_NOTICE] or None
        if self.processes.is_main:
            self.history.resume(step, checkpoint)
            self.history.add({"step": step, "start": self._circumstances(config, notices)})
            if config.logging.html_report:
                (self.output / CONFIGURATION).parent.mkdir(exist_ok=True)
                replace_text(self.output / CONFIGURATION, dump(config))
                self.page = PageWriter(self.output, self.show, self.clock)
        if config.logging.report_to:
            settings = _flat(config.model_dump(mode="json"))
            self.accelerator.init_trackers(
                config.logging.project_name, config=settings, init_kwargs=self._trackers(step, run_id)
            )
        self.resumed_step = step
        self.phase("training", step)

    def saved(self, step: int, seconds: float) -> None:
        """Notes that the checkpoint of a step is complete, after so many seconds."""
        self.saved_step, self.save_seconds = step, seconds

    def phase(self, phase: str, step: int) -> None:
        """Says what the run is doing now."""
        self._leave()
        if phase in ("training", "ended") and self.pauses:
            self._paused(step)
        self._progress(self.last.model_copy(update={"phase": phase, "step": step}))

    def encoding(self, encoded: int) -> None:
        """Says how much of the cache is there."""
        self._leave()
        self._progress(self.last.model_copy(update={"phase": "encoding", "encoded": encoded}))

    def begin_interval(self) -> None:
        """Starts to count anew: what came before (a save, the start) is not training speed."""
        self.since, self.samples, self.steps = self.clock(), 0, 0
        self.times.restart()

    def count(self, samples: int) -> None:
        """Counts one optimizer step of `samples` samples."""
        self.samples += samples
        self.steps += 1

    def step(self, step: int, epoch: int, loss: float, learning_rate: float) -> dict[str, float]:
        """Reports a step's loss and the speed since the last report; returns the figures."""
        elapsed = max(self.clock() - self.since, 1e-9)
        speed, seconds_per_step = self.samples / elapsed, elapsed / max(self.steps, 1)
        parts = self.times.seconds()
        seconds = {part: taken / max(self.steps, 1) for part, taken in parts.items()}
        progress = Progress(
            phase="training",
            step=step,
            total_steps=self.total_steps,
            epoch=epoch,
            loss=loss,
            images_per_second=speed,
            eta_seconds=round(seconds_per_step * (self.total_steps - step)),
            data_wait_percent=min(100.0, 100 * parts["data"] / elapsed),
            updated_at=_now(),
            world_size=self.processes.world_size,
            metrics=self.evaluation,
        )
        self._progress(progress)
        figures = {"loss": loss, "learning_rate": learning_rate}
        share = None if self.utilization is None else self.utilization.share(speed)
        utilization = {} if share is None else {"mfu": share}
        if self.processes.is_main:
            line: Line = {"step": step, "epoch": epoch, **figures, "images_per_second": round(speed, 3)}
            line["seconds"] = {part: round(taken, 6) for part, taken in seconds.items()}
            line |= {name: round(share, 4) for name, share in utilization.items()}
            self.history.add(line)
            self.show(
                f"step {step}/{self.total_steps}  loss {loss:.4f}  {speed:.1f} images/s  ETA {progress.eta_seconds} s"
            )
        tracked = {f"step_seconds/{part}": taken for part, taken in seconds.items()}
        self.accelerator.log(
            {**figures, "images_per_second": speed, "epoch": epoch, **utilization, **tracked}, step=step
        )
        self.begin_interval()
        return figures

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Reports what an evaluation found."""
        self.evaluation = {name: float(f"{value:.5g}") for name, value in figures.items()}
        self._progress(self.last.model_copy(update={"metrics": self.evaluation}))
        if self.processes.is_main:
            self.history.add({"step": step, "evaluation": self.evaluation})
            told = "  ".join(f"{name} {value:.4g}" for name, value in self.evaluation.items())
            self.show(f"evaluation at step {step}: {told}")
        self.accelerator.log({f"evaluation/{name}": value for name, value in figures.items()}, step=step)

    def _leave(self) -> None:
        """Counts the time since the last change of phase, where no step was taken in it."""
        now = self.clock()
        if self.last.phase in PAUSES:
            self.pauses[self.last.phase] = self.pauses.get(self.last.phase, 0.0) + now - self.phase_since
        self.phase_since = now

    def _paused(self, step: int) -> None:
        """Reports what training has waited for since the last step."""
        if self.processes.is_main:
            self.history.add({"step": step, "pauses": {name: round(taken, 3) for name, taken in self.pauses.items()}})
        self.accelerator.log({f"pause_seconds/{name}": taken for name, taken in self.pauses.items()}, step=step)
        self.pauses = {}
        self.page.renew()

    def pictures(self, step: int, grid: Path) -> None:
        """Gives a picture grid to the trackers."""
        for tracker in self.accelerator.trackers if self.processes.is_main else ():
            with Image.open(grid) as image:
                if tracker.name == "tensorboard":
                    tracker.log_images({"samples": np.asarray(image)[None]}, step=step, dataformats="NHWC")
                else:
                    tracker.log_images({"samples": [image]}, step=step)

    def _trackers(self, step: int, run_id: str) -> dict[str, dict[str, Any]]:
        """How each tracker goes on with a run: what came after this step is about to be repeated."""
        found: dict[str, dict[str, Any]] = {"wandb": {"dir": str(self.output / LOGS_FOLDER)}}
        if run_id:
            found["wandb"] |= {"id": run_id, "resume": "allow"}
        if step:
            found["tensorboard"] = {"purge_step": step + 1}
        return found

    def _circumstances(self, config: TrainingConfig, notices: Sequence[str]) -> dict[str, Any]:
        """What this part of the run, from one start to the next, is computed with."""
        device = self.accelerator.device
        return {
            "at": _now().isoformat(timespec="seconds"),
            "job": os.environ.get(JOB_VARIABLE),
            "processes": self.processes.world_size,
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{os.cpu_count()} cores, {platform.machine()}",
            "precision": config.optimization.mixed_precision,
            "total_steps": self.total_steps,
            "versions": versions(),
            **({"notices": list(notices)} if notices else {}),
        }

    def _progress(self, progress: Progress) -> None:
        kept = {
            "resumed_step": self.resumed_step, "saved_step": self.saved_step, "save_seconds": self.save_seconds,
            "notice": self.notice,
        }  # fmt: skip
        self.last = progress.model_copy(update={"updated_at": _now(), **kept})
        if self.processes.is_leader:
            replace_text(self.output / PROGRESS_FILE, self.last.model_dump_json(by_alias=True))


def _now() -> datetime:
    return datetime.now(UTC)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value if isinstance(value, int | float | str | bool) else json.dumps(value)
    return flat
