"""What a run says while it goes on: progress.json for the agent, metrics.jsonl and trackers for people."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from adapter_api.progress import PROGRESS_FILE, Progress
from adapter_api.training import TrainingConfig
from adapter_trainer.files import replace_text
from adapter_trainer.processes import Processes

METRICS_FILE = "metrics.jsonl"


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
        self.evaluation: dict[str, float] = {}
        """Figures of the newest evaluation."""
        self.last = Progress(total_steps=total_steps, updated_at=_now(), world_size=processes.world_size)
        self.since = clock()
        self.samples = 0
        self.steps = 0
        self.waited = 0.0

    def start(self, config: TrainingConfig, step: int) -> None:
        """Opens the trackers, and cuts the history back to `step`: what came after it is about to be repeated."""
        if self.processes.is_main:
            _cut(self.output / METRICS_FILE, step)
        if config.logging.report_to:
            settings = _flat(config.model_dump(mode="json"))
            self.accelerator.init_trackers(
                config.logging.project_name, config=settings, init_kwargs={"wandb": {"dir": str(self.output / "logs")}}
            )
        self.resumed_step = step
        self.phase("training", step)

    def saved(self, step: int, seconds: float) -> None:
        """Notes that the checkpoint of a step is complete, after so many seconds."""
        self.saved_step, self.save_seconds = step, seconds

    def phase(self, phase: str, step: int) -> None:
        """Says what the run is doing now."""
        self._progress(self.last.model_copy(update={"phase": phase, "step": step}))

    def encoding(self, encoded: int) -> None:
        """Says how much of the cache is there."""
        self._progress(self.last.model_copy(update={"phase": "encoding", "encoded": encoded}))

    def begin_interval(self) -> None:
        """Starts to count anew: what came before (a save, the start) is not training speed."""
        self.since, self.samples, self.steps, self.waited = self.clock(), 0, 0, 0.0

    def count(self, samples: int, waited: float) -> None:
        """Counts one optimizer step of `samples` samples that waited `waited` seconds for its data."""
        self.samples += samples
        self.steps += 1
        self.waited += waited

    def step(self, step: int, epoch: int, loss: float, learning_rate: float) -> dict[str, float]:
        """Reports a step's loss and the speed since the last report; returns the figures."""
        elapsed = max(self.clock() - self.since, 1e-9)
        speed, seconds_per_step = self.samples / elapsed, elapsed / max(self.steps, 1)
        progress = Progress(
            phase="training",
            step=step,
            total_steps=self.total_steps,
            epoch=epoch,
            loss=loss,
            images_per_second=speed,
            eta_seconds=round(seconds_per_step * (self.total_steps - step)),
            data_wait_percent=min(100.0, 100 * self.waited / elapsed),
            updated_at=_now(),
            world_size=self.processes.world_size,
            metrics=self.evaluation,
        )
        self._progress(progress)
        figures = {"loss": loss, "learning_rate": learning_rate}
        if self.processes.is_main:
            line = {"step": step, "epoch": epoch, **figures, "images_per_second": round(speed, 3)}
            with (self.output / METRICS_FILE).open("a", encoding="utf-8") as history:
                history.write(json.dumps(line) + "\n")
            self.show(
                f"step {step}/{self.total_steps}  loss {loss:.4f}  {speed:.1f} images/s  ETA {progress.eta_seconds} s"
            )
        self.accelerator.log({**figures, "images_per_second": speed, "epoch": epoch}, step=step)
        self.begin_interval()
        return figures

    def evaluated(self, step: int, figures: dict[str, float]) -> None:
        """Reports what an evaluation found."""
        self.evaluation = {name: float(f"{value:.5g}") for name, value in figures.items()}
        self._progress(self.last.model_copy(update={"metrics": self.evaluation}))
        if self.processes.is_main:
            with (self.output / METRICS_FILE).open("a", encoding="utf-8") as history:
                history.write(json.dumps({"step": step, "evaluation": self.evaluation}) + "\n")
            told = "  ".join(f"{name} {value:.4g}" for name, value in self.evaluation.items())
            self.show(f"evaluation at step {step}: {told}")
        self.accelerator.log({f"evaluation/{name}": value for name, value in figures.items()}, step=step)

    def _progress(self, progress: Progress) -> None:
        kept = {"resumed_step": self.resumed_step, "saved_step": self.saved_step, "save_seconds": self.save_seconds}
        self.last = progress.model_copy(update={"updated_at": _now(), **kept})
        if self.processes.is_leader:
            replace_text(self.output / PROGRESS_FILE, self.last.model_dump_json(by_alias=True))


def _now() -> datetime:
    return datetime.now(UTC)


def _cut(history: Path, step: int) -> None:
    if not history.is_file():
        return
    kept = []
    for line in history.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # the line that a killed process was writing
    replace_text(history, "".join(f"{line}\n" for line in kept))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value if isinstance(value, int | float | str | bool) else json.dumps(value)
    return flat
