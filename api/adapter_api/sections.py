"""The sections of a training configuration, each valid by itself; rules across them are in `consistency`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from adapter_api.base import ConfigModel, Count, Flag, Name, NonNegativeReal, PathText, PositiveCount, Real, Text
from adapter_api.data import MAX_COLUMNS, DataConfig
from adapter_api.model import ModelConfig
from adapter_api.optimization import OptimizationConfig
from adapter_api.progress import MetricName


class KeepBest(ConfigModel):
    """Keeps the checkpoints with the best value of a metric.

    Checkpoints without the metric are not counted; of equal ones the earlier is better.
    """

    metric: MetricName
    """Metric in a checkpoint's metrics.json: loss, or one that evaluation measures."""
    mode: Literal["min", "max"] = "min"
    """Whether the lowest (min) or the highest (max) value is best."""
    count: PositiveCount = 1
    """Number of best checkpoints to keep."""


class CheckpointConfig(ConfigModel):
    """When checkpoints are saved and which of them are kept."""

    save_steps: PositiveCount = 500
    """Optimizer steps between checkpoints; a last one is always saved at the end."""
    keep_last: PositiveCount | None = None
    """Number of newest checkpoints to keep; by default all. The newest is not deleted before the next is committed, the
    one that the running attempt started from not before the attempt ends, and a pinned one never."""
    keep_every: PositiveCount | None = None
    """Also keep every checkpoint whose step is a multiple of this. Needs keep_last; must be a multiple of
    save_steps."""
    keep_best: KeepBest | None = None
    """Also keep the checkpoints with the best metric. Needs keep_last."""
    deletion_delay_seconds: Annotated[Count, Field(le=604_800)] = 300
    """Seconds between the removal of a checkpoint from the index and the deletion of its files, so that downloads in
    progress can finish."""

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
    """Trackers that receive metrics and pictures; by default none."""
    project_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "adapter-training"
    """Project under which trackers file the run."""
    html_report: Flag = True
    """Whether logs/report.html is written: curves, pictures, configuration and timings on one page."""


MAX_ROWS = 64
"""Rows of the closing picture grid."""
ConditionValue = Count | Text | Annotated[tuple[Real, ...], Field(max_length=4096)]


class SamplingConfig(ConfigModel):
    """How pictures are drawn: in the grid of a run, and by default for `atj sample`."""

    scheduler: Literal["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"] = "DDIMScheduler"
    """Sampler that draws the pictures."""
    steps: Annotated[PositiveCount, Field(le=10_000)] = 25
    """Denoising steps per picture."""
    guidance_scale: Annotated[NonNegativeReal, Field(le=100)] = 3.0
    """Strength of classifier-free guidance; 1 draws without guidance."""
    rows: Annotated[
        tuple[Annotated[dict[Name, ConditionValue], Field(max_length=MAX_COLUMNS + 2)], ...], Field(max_length=MAX_ROWS)
    ] = ()
    """Rows of the picture grid. Each row gives values by data column, `caption` for text; without rows no grid is
    drawn. Files are relative to data.params.data_root_path, or to the working directory if they do not exist there."""
    images_per_row: Annotated[PositiveCount, Field(le=64)] = 8
    """Pictures per row of the grid, each from different noise. Ignored if `columns` is set."""
    columns: Annotated[tuple[dict[Name, ConditionValue], ...], Field(max_length=64)] = ()
    """Columns of the picture grid. Each column gives values that add to its row's values and override them. All
    pictures of a row start from the same noise, so only the column's values differ."""
    at: Literal["checkpoints", "end"] = "checkpoints"
    """When the grid is drawn: with every checkpoint, or only at the end."""
    without_conditions: Flag = False
    """Whether rows with two or more conditions are drawn again without each condition, from the same noise, to show its
    effect."""
    adapter_scales: Annotated[tuple[Real, ...], Field(max_length=16)] = ()
    """Scales of all adapters; every row is drawn once with each scale. 0 switches adapters off. By default rows are
    drawn once with the trained scale."""
    seed: Count = 0
    """Seed of the noise that pictures start from."""


class EvaluationConfig(ConfigModel):
    """How every checkpoint is measured, on samples that training does not read.

    The loss alone says little about the effect of conditions. Evaluation measures the loss with all conditions and, for each
    condition, the relative increase of the loss without it. If pictures are drawn, it also measures whether they show the labels
    and numbers they were drawn for, whether they have the colours of their references, and how similar they are to the
    sample's own image.
    """

    pairs_file_path: PathText
    """Held-out samples, in the format of data.params.pairs_file_path."""
    samples: Annotated[PositiveCount, Field(le=65_536)] = 128
    """Number of held-out samples for the loss: the first ones of the file."""
    timesteps: Annotated[PositiveCount, Field(le=64)] = 4
    """Number of noise levels at which each sample is measured, spread evenly."""
    pictures: Annotated[Count, Field(le=4096)] = 0
    """Number of held-out samples for whose conditions a picture is drawn and judged. Drawing takes most of the time; 0
    disables it."""


class TrainingSections(ConfigModel):
    """All sections of a training configuration. Rules across fields take this; `TrainingConfig` is what has passed them."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimization: OptimizationConfig = OptimizationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig | None = None
    seed: Annotated[Count, Field(le=2**32 - 1)] = 0
    """Seed of all randomness in training: initial weights, order of the samples, noise, dropout."""
