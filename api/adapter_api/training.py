"""TrainingConfig: what configs/*.yaml hold and what a job's spec.training holds.

`target:` chooses among the names listed in each field's type and nothing else; the trainer's registry maps them to
classes. Every section has defaults, which together describe SDXL base 1.0.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Count, Flag, Name, NonNegativeReal, PathText, PositiveCount, Real, Text
from adapter_api.data import MAX_COLUMNS, DataConfig
from adapter_api.messages import refuse
from adapter_api.model import ModelConfig
from adapter_api.optimization import OptimizationConfig
from adapter_api.progress import MetricName


class KeepBest(ConfigModel):
    """The checkpoints whose metric is best; one without that metric is none of them, and of equals the earlier ones are."""

    metric: MetricName
    """A figure of the checkpoints' metrics.json: loss, or one that evaluation measures."""
    mode: Literal["min", "max"] = "min"
    """Whether the lowest or the highest is best."""
    count: PositiveCount = 1
    """How many of them."""


class CheckpointConfig(ConfigModel):
    """When state is saved and how much of it is kept."""

    save_steps: PositiveCount = 500
    """Optimizer steps between checkpoints; one more is always saved at the end."""
    keep_last: PositiveCount | None = None
    """Number of newest checkpoints to keep; all by default. The newest is never deleted before its successor stands, the
    one that the running attempt started from not before the attempt ends, and a pinned one not at all."""
    keep_every: PositiveCount | None = None
    """Keep also every checkpoint whose step is a multiple of this; needs keep_last, and must be a multiple of save_steps."""
    keep_best: KeepBest | None = None
    """Keep also those whose metric is best; needs keep_last."""
    deletion_delay_seconds: Annotated[Count, Field(le=604_800)] = 300
    """How long the files of a checkpoint stay in storage after it was taken out of the index, so that a download of it that
    has begun can end."""

    @model_validator(mode="after")
    def _policy(self) -> Self:
        for name in ("keep_every", "keep_best"):
            if self.keep_last is None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} adds to keep_last, without which all are kept; set keep_last, or remove {name}"
                )
        if self.keep_every is not None and self.keep_every % self.save_steps:
            fitting = -(-self.keep_every // self.save_steps) * self.save_steps
            raise ValueError(
                f"keep_every {self.keep_every} is not a multiple of save_steps {self.save_steps}, so that most such steps "
                f"are never saved; use {fitting}"
            )
        return self


class LoggingConfig(ConfigModel):
    """What is reported, and how often."""

    log_steps: PositiveCount = 10
    """Optimizer steps between reports of the loss."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb"], ...], Field(max_length=2)] = ()
    """Trackers."""
    project_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "adapter-training"
    """Project that trackers file runs under."""
    html_report: Flag = True
    """Keep logs/report.html: curves, pictures, configuration and timings on one page."""


MAX_ROWS = 64
"""Rows of the closing picture grid."""
ConditionValue = Count | Text | Annotated[tuple[Real, ...], Field(max_length=4096)]


class SamplingConfig(ConfigModel):
    """How pictures are drawn: at the end of a run, and by default whenever one is asked for."""

    scheduler: Literal["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"] = "DDIMScheduler"
    """Sampler."""
    steps: Annotated[PositiveCount, Field(le=10_000)] = 25
    """Steps of sampling."""
    guidance_scale: Annotated[NonNegativeReal, Field(le=100)] = 3.0
    """1 draws without guidance."""
    rows: Annotated[
        tuple[Annotated[dict[Name, ConditionValue], Field(max_length=MAX_COLUMNS + 2)], ...], Field(max_length=MAX_ROWS)
    ] = ()
    """One row of the closing picture grid each: values by data column, `caption` for text; none, no grid. Files are relative
    to data.params.data_root_path, or, where it has none of that name, to the working directory."""
    images_per_row: Annotated[PositiveCount, Field(le=64)] = 8
    """Pictures in a row of the grid, each from other noise."""
    columns: Annotated[tuple[dict[Name, ConditionValue], ...], Field(max_length=64)] = ()
    """In place of images_per_row, one column of the grid each: values that a picture there has besides its row's, and in place
    of them. The pictures of a row then begin with the same noise, so the difference is the column's doing."""
    at: Literal["checkpoints", "end"] = "checkpoints"
    """When the grid is drawn: with every checkpoint, or once at the end."""
    without_conditions: Flag = False
    """Draw every row of two or more conditions also without each of them: the same noise, so the difference is its doing."""
    adapter_scales: Annotated[tuple[Real, ...], Field(max_length=16)] = ()
    """Draw every row once with each of these weights of all adapters, 0 being without them; by default as trained."""
    seed: Count = 0
    """Everything random follows from it."""


class EvaluationConfig(ConfigModel):
    """What every checkpoint is measured by, on samples that training does not read.

    A loss says little about what conditions do. Measured are the loss with all conditions, and for each condition the
    share by which the loss grows without it; and, if pictures are drawn, whether they show the labels and numbers that they
    were drawn for, whether they have their references' colours, and how like the sample's own image they are.
    """

    pairs_file_path: PathText
    """Held-out samples, in the form of data.params.pairs_file_path."""
    samples: Annotated[PositiveCount, Field(le=65_536)] = 128
    """Held-out samples that the loss is measured on; the first ones of the file."""
    timesteps: Annotated[PositiveCount, Field(le=64)] = 4
    """Noise levels at which each of them is measured, spread evenly over all."""
    pictures: Annotated[Count, Field(le=4096)] = 0
    """For the conditions of so many of them a picture is drawn and judged; drawing takes most of the time."""


class TrainingConfig(ConfigModel):
    """Everything that a training run depends on, apart from where it runs."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig | None = None
    seed: Annotated[Count, Field(le=2**32 - 1)] = 0
    """Everything random follows from it."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        from adapter_api.consistency import inconsistencies  # it imports this module: its rules read these models

        refuse("TrainingConfig", inconsistencies(self))
        return self
