"""Sets up a run in four stages: processes join, samples are read, a model is built, and a checkpoint is loaded."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapter_api.columns import columns_of
from adapter_api.layout import SAMPLES_FOLDER
from adapter_api.retention import Policy
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.data.cache.cache import Cache
from adapter_trainer.data.cache.encodings import Encodings
from adapter_trainer.data.cache.resting import Resting
from adapter_trainer.data.samples import Batches, Collate, Samples, SampleShape, batches
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.forecast.utilization import Utilization
from adapter_trainer.model import base_schedule
from adapter_trainer.model.objective import NoiseSchedule
from adapter_trainer.reporting.report import Report
from adapter_trainer.sampling.evaluation import Evaluation, plain_samples
from adapter_trainer.sampling.gallery import Gallery
from adapter_trainer.training import announcement, resuming
from adapter_trainer.training.dataset import Dataset, read_dataset
from adapter_trainer.training.join import Joined, join
from adapter_trainer.training.learner import Learner, build_learner
from adapter_trainer.training.loop import Nulls, Training
from adapter_trainer.training.loss_watch import LossMean, Watch


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are not in its configuration."""

    output: Path
    resume: str | None = None
    """`latest`, a checkpoint folder, or None to start from the beginning."""
    show: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    models: Path | None = None
    """Folder with the models that were staged from object storage."""


def prepare(config: TrainingConfig, options: RunOptions) -> Training:
    """Does everything up to the first step; collective over the processes that the launcher started.

    Raises:
        TrainingError: The user has to change something, or something failed; the message says what.
    """
    joined = join(config, options.output, options.show)
    dataset = read_dataset(base_schedule.resolved(config, options.models, joined.show), joined)
    learner = build_learner(dataset, joined, options.models)
    report = _begin(learner, dataset, joined, options)
    encodings = _keep_encodings(learner, dataset, joined, report)
    _watch(report, learner, joined, encodes=encodings is None)
    return _training(learner, dataset, joined, report, encodings)


def total_steps_of(config: TrainingConfig, samples: int, world_size: int) -> int:
    """Returns the number of optimizer steps of a new run: enough to read every sample num_train_epochs times."""
    batch = global_batch_of(config, world_size)
    return resuming.length_of(config, samples, batch).total_steps(0, 0, batch)


def global_batch_of(config: TrainingConfig, world_size: int) -> int:
    """Returns the number of samples of one optimizer step of all processes."""
    optimization = config.optimization
    return optimization.train_batch_size * optimization.gradient_accumulation_steps * world_size


def _begin(learner: Learner, dataset: Dataset, joined: Joined, options: RunOptions) -> Report:
    """Loads the checkpoint that the run continues from, if there is one, and reports what starts."""
    state, processes = learner.state, joined.processes
    batch = global_batch_of(dataset.config, processes.world_size)

    def announce(steps: int) -> None:
        for line in announcement.beginning(
            state.model,
            joined.device,
            processes=processes.world_size,
            precision=dataset.config.optimization.mixed_precision,
            samples=dataset.length,
            steps=steps,
            batch=batch,
            output=joined.output,
        ):
            joined.show(line)

    folder = _resume_folder(options, processes)
    return resuming.begin(state, folder, dataset.length, batch, processes, options.clock, joined.show, announce)


def _resume_folder(options: RunOptions, processes: Processes) -> Path | None:
    if options.resume is None:
        return None
    if options.resume != "latest":
        return Path(options.resume)
    step = checkpoint_folder.latest_step(options.output, processes)
    return None if step is None else options.output / f"checkpoint-{step}"


def _keep_encodings(learner: Learner, dataset: Dataset, joined: Joined, report: Report) -> Encodings | None:
    """Returns the encodings of all samples by frozen encoders; None if the encoders run in every step. Collective."""
    state, config = learner.state, dataset.config
    batch = global_batch_of(config, joined.processes.world_size)
    readings = state.seen + (report.total_steps - state.step) * batch
    cache = Cache(config, state.model, joined.accelerator, joined.processes, joined.output, joined.show)
    return cache.encodings(dataset.rows, dataset.contents, dataset.layout, readings, joined.stop, report.encoding)


def _watch(report: Report, learner: Learner, joined: Joined, *, encodes: bool) -> None:
    """Starts the report on steps: the encoders' share of their time, and the utilisation of the device."""
    state, processes = learner.state, joined.processes
    report.phase("training", state.step)
    for encoder in state.model.encoders():
        report.times.watch(encoder)
    if processes.is_main:
        report.utilization = Utilization.on(joined.device, state.config, processes.world_size, encodes=encodes)


def _training(
    learner: Learner, dataset: Dataset, joined: Joined, report: Report, encodings: Encodings | None
) -> Training:
    state, config, device = learner.state, dataset.config, joined.device
    model, processes, stop = state.model, joined.processes, joined.stop
    empty = [] if model.tokenizers is None else [ids.to(device) for ids in model.tokenizers([""])]
    schedule = NoiseSchedule(config.model.params.scheduler_config.params, device, config.optimization.min_snr_gamma)
    samples = _samples(learner, dataset, encodings)
    evaluation = None
    if config.evaluation is not None:
        evaluation = Evaluation(
            settings=config.evaluation,
            config=config,
            model=model,
            schedule=schedule,
            samples=plain_samples(dataset.held_out, config, samples),
            training_rows=dataset.rows,
            null_ids=empty,
            processes=processes,
            device=device,
            is_stopping=stop.is_asked,
        )
    return Training(
        joined=joined,
        dataset=dataset,
        learner=learner,
        schedule=schedule,
        batches=_batches(samples, learner, joined),
        nulls=Nulls(empty, {} if encodings is None else encodings.nulls),
        resting=Resting(model, encodings, config.seed),
        report=report,
        saver=Saver(joined.output, processes, device, Policy.of(config.checkpoint), joined.show),
        watch=Watch(device),
        losses=LossMean(),
        evaluation=evaluation,
        gallery=Gallery(config, model, processes, device, joined.output / SAMPLES_FOLDER, stop.is_asked),
    )


def _samples(learner: Learner, dataset: Dataset, encodings: Encodings | None) -> Samples:
    config, model = dataset.config, learner.state.model
    shape = SampleShape(
        latents=model.latent_shape(config.data.params.resolution),
        timesteps=config.model.params.scheduler_config.params.filled.num_train_timesteps,
        reference_size=None if model.image_encoder is None else model.image_encoder.image_size,
        dropouts=model.condition_dropouts(),
        joint_dropout=config.model.params.joint_dropout,
        offset_noise=config.optimization.offset_noise,
    )
    widths = {column.name: column.width for column in columns_of(config)}
    return Samples(dataset.rows, config.data.params, widths, shape, config.seed, dataset.layout, encodings)


def _batches(samples: Samples, learner: Learner, joined: Joined) -> Batches:
    state = learner.state
    batch_size, seen = state.config.optimization.train_batch_size, state.seen
    has_text = samples.encodings is not None and samples.encodings.has_text
    return batches(
        samples,
        Collate(None if has_text else state.model.tokenizers),
        # Batches of one bucket begin at multiples of their size; a run continued from elsewhere may stand between two.
        seen if samples.params.aspect_buckets is None else math.ceil(seen / batch_size) * batch_size,
        batch_size,
        joined.processes.rank,
        joined.processes.world_size,
        joined.device,
    )
