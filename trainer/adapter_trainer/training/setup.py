"""Puts a run together: data checked, model built or restored, everything wrapped for the processes at hand."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import nn

from adapter_api.columns import columns_of
from adapter_api.retention import Policy
from adapter_api.training import TrainingConfig
from adapter_trainer.checkpoint import checkpoint_folder
from adapter_trainer.checkpoint.saver import Saver
from adapter_trainer.data.cache.cache import Cache, layout_of, note_on_repeats, wants_contents
from adapter_trainer.data.cache.encodings import Encodings
from adapter_trainer.data.cache.resting import Resting
from adapter_trainer.data.contents import Content, contents_of
from adapter_trainer.data.data_account import account
from adapter_trainer.data.pairs_table import Row, Table, read_samples
from adapter_trainer.data.samples import Batches, Collate, Layout, Samples, SampleShape, batches
from adapter_trainer.data.verify import check_rows, resolve_widths
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import StopRequest
from adapter_trainer.errors import InvalidConfig, InvalidData, TrainingError
from adapter_trainer.forecast.utilization import Utilization
from adapter_trainer.model import base_digests, base_schedule, replicas, sharding
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.objective import NoiseSchedule
from adapter_trainer.reporting.history import METRICS_FILE
from adapter_trainer.sampling.evaluation import Evaluation, plain_samples, read_held_out
from adapter_trainer.sampling.gallery import Gallery
from adapter_trainer.sampling.rows_to_draw import check_rows_to_draw
from adapter_trainer.training import announcement, building, optimizers, randomness, resuming, trained_data
from adapter_trainer.training.learning_rates import LearningRates
from adapter_trainer.training.loop import Nulls, Training
from adapter_trainer.training.loss_watch import LossMean, Watch
from adapter_trainer.training.state import TrainingState


@dataclass(frozen=True)
class RunOptions:
    """What a run is told besides its configuration."""

    output: Path
    resume: str | None = None
    """`latest`, a checkpoint folder, or None to start anew."""
    show: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    models: Path | None = None
    """Folder that models have been staged to from object storage."""


def prepare(config: TrainingConfig, options: RunOptions) -> Training:
    """Everything up to the first step; collective over the processes that the launcher started.

    Raises:
        TrainingError: what the user has to change, or what failed.
    """
    optimization = config.optimization
    options.output.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        # Accelerate joins torchrun's processes on CPUs only if it is told that there is nothing else to compute on.
        cpu=not torch.accelerator.is_available(),
        mixed_precision=optimization.mixed_precision,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        log_with=list(config.logging.report_to) or None,
        project_dir=str(options.output / "logs"),
    )
    _check_joined(accelerator.num_processes)
    processes = Processes.of_this_run(options.output)
    checkpoint_folder.clear_remains(options.output, processes)
    stop = StopRequest(processes)
    show = options.show if processes.is_main else _silent
    config = base_schedule.resolved(config, options.models, show)
    rows, config = _rows(config, processes, show)
    held_out = _held_out(config, processes, show)
    _check_sampling(config, processes)
    contents = _contents(config, rows, processes)
    layout = layout_of(config, rows, contents)
    for line in note_on_repeats(layout):
        show(line)
    model = building.model_of(config, options.models, rows, accelerator.device, processes, show)
    base = _agreed_base(model, processes)
    if is_sharded := optimization.parallelism == "FSDP" and processes.world_size > 1:
        sharding.shard(model, accelerator.device.type, processes.world_size)
    optimizer = _optimizer(config, model)
    ema = _average(config, optimizer)
    # What is only evaluated, Accelerate wraps for mixed precision alone, and leaves the processes to us.
    module: nn.Module = accelerator.prepare_model(model, evaluation_mode=True)
    # One process shares no gradients, and would keep them a second time.
    if processes.world_size > 1 and not is_sharded:
        module = replicas.with_shared_gradients(module, accelerator.device, some_unused=_has_unused(config))
    prepared_optimizer = accelerator.prepare_optimizer(optimizer)
    data = trained_data.record_of(config, rows, contents, layout, processes)
    state = TrainingState(
        config, model, prepared_optimizer, LearningRates(optimizer), ema, accelerator, data,
        options.output / METRICS_FILE, base=base,
    )  # fmt: skip
    randomness.seed(config.seed, 0, processes.rank)
    folder = _resume_folder(options, processes)
    batch = global_batch_of(config, processes.world_size)

    def announce(steps: int) -> None:
        for line in announcement.beginning(
            model, accelerator.device, processes=processes.world_size, precision=optimization.mixed_precision,
            samples=layout.order.length, steps=steps, batch=batch, output=options.output,
        ):  # fmt: skip
            show(line)

    report = resuming.begin(state, folder, layout.order.length, batch, processes, options.clock, show, announce)
    total_steps = report.total_steps
    encodings = Cache(config, model, accelerator, processes, options.output, show).encodings(
        rows, contents, layout, state.seen + (total_steps - state.step) * batch, stop, report.encoding
    )
    report.phase("training", state.step)
    for encoder in model.encoders():
        report.times.watch(encoder)
    if processes.is_main:
        report.utilization = Utilization.on(accelerator.device, config, processes.world_size, encodes=encodings is None)
    nulls = [] if model.tokenizers is None else [ids.to(accelerator.device) for ids in model.tokenizers([""])]
    schedule = NoiseSchedule(
        config.model.params.scheduler_config.params, accelerator.device, optimization.min_snr_gamma
    )
    samples = _samples(config, rows, model, layout, encodings)
    evaluation = None
    if config.evaluation is not None:
        plain = plain_samples(held_out, config, samples)
        evaluation = Evaluation(
            config.evaluation, config, model, schedule, plain, rows, nulls, processes, accelerator.device, stop.is_asked
        )
    return Training(
        state=state,
        module=module,
        schedule=schedule,
        batches=_batches(config, samples, model, state.seen, processes, accelerator.device),
        nulls=Nulls(nulls, {} if encodings is None else encodings.nulls),
        resting=Resting(model, encodings, config.seed),
        report=report,
        saver=Saver(options.output, processes, accelerator.device, Policy.of(config.checkpoint), show),
        stop=stop,
        processes=processes,
        output=options.output,
        total_steps=total_steps,
        samples=layout.order.length,
        rows=rows,
        watch=Watch(accelerator.device),
        losses=LossMean(),
        evaluation=evaluation,
        gallery=Gallery(config, model, processes, accelerator.device, options.output / "samples", stop.is_asked),
    )


def _check_joined(joined: int) -> None:
    """Processes that do not know of each other would each train a model of their own, and look well while at it."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if joined != started:
        raise TrainingError(
            f"the launcher started {started} processes, but Accelerate joined {joined}: this device has no collective "
            "communication that it knows; start one process, or set ACCELERATE_USE_CPU=true"
        )


def total_steps_of(config: TrainingConfig, samples: int, world_size: int) -> int:
    """Optimizer steps of a run that begins: as many as it takes to read every sample num_train_epochs times."""
    batch = global_batch_of(config, world_size)
    return resuming.length_of(config, samples, batch).total_steps(0, 0, batch)


def global_batch_of(config: TrainingConfig, world_size: int) -> int:
    """Samples of one optimizer step of all processes."""
    optimization = config.optimization
    return optimization.train_batch_size * optimization.gradient_accumulation_steps * world_size


def _contents(config: TrainingConfig, rows: list[Row], processes: Processes) -> dict[Path, Content]:
    if not wants_contents(config):
        return {}
    references = [column.name for column in columns_of(config) if column.kind == "reference"]
    return contents_of(rows, references, processes)


def _rows(
    config: TrainingConfig, processes: Processes, show: Callable[[str], None]
) -> tuple[list[Row], TrainingConfig]:
    """The samples, after every rank has checked its share of the files, and the configuration with widths known."""
    params = config.data.params
    columns = columns_of(config)
    path = Path(params.data_root_path) / params.pairs_file_path
    error: Exception | None = None
    table, animated = Table(), set[Path]()
    try:
        table = read_samples(params, columns)
        config = resolve_widths(config, table.rows, path)
        mine = table.rows[processes.rank :: processes.world_size]
        animated = check_rows(mine, columns_of(config), params.verify, path)
    except InvalidData as found:
        error = found
    if (error := processes.first_error(error)) is not None:
        raise error
    for line in account(params, table, set().union(*processes.gather(animated))):
        show(line)
    return table.rows, config


def _held_out(config: TrainingConfig, processes: Processes, show: Callable[[str], None]) -> list[Row]:
    """The samples of the evaluation; every rank checks all of them, since they are few."""
    if config.evaluation is None:
        return []
    error: Exception | None = None
    table = Table()
    try:
        table = read_held_out(config.evaluation, config)
    except InvalidData as found:
        error = found
    if (error := processes.first_error(error)) is not None:
        raise error
    params = config.data.params.model_copy(update={"pairs_file_path": config.evaluation.pairs_file_path})
    for line in account(params, table, set()):
        show(line)
    return table.rows


def _check_sampling(config: TrainingConfig, processes: Processes) -> None:
    error: Exception | None = None
    try:
        check_rows_to_draw(config)
    except InvalidData as found:
        error = found
    if (error := processes.first_error(error)) is not None:
        raise error


def _agreed_base(model: AdapterModel, processes: Processes) -> dict[str, str]:
    """Digests of the loaded weights that stay as they are, once all ranks have the same; collective."""
    digests = base_digests.digests((*model.parameters(), *model.buffers()))
    replicas.make_alike(model, digests, processes)
    return base_digests.base_digests(model, digests)


def _optimizer(config: TrainingConfig, model: AdapterModel) -> torch.optim.Optimizer:
    groups = []
    names = {parameter: name for name, parameter in model.named_parameters()}
    for _, module, part in model.trainable_parts():
        # A frozen UNet may have trained low-rank weights in it, which are a part by themselves.
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad and part.train]
        if trained:
            rate = part.learning_rate or config.optimization.learning_rate
            groups.append({"params": trained, "names": [names[parameter] for parameter in trained], "lr": rate})
    if not groups:
        raise InvalidConfig("model.params: nothing is trained; set train: true for a part")
    return optimizers.optimizer(config.optimization.optimizer, groups, config.optimization.learning_rate)


def _average(config: TrainingConfig, optimizer: torch.optim.Optimizer) -> EMAModel | None:
    """The moving average of what this rank has of the trained parameters, if one is configured."""
    settings = config.optimization.ema
    if settings is None:
        return None
    trained = [sharding.rows_of(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    floor = 0.0 if settings.warmup else settings.decay
    return EMAModel(trained, decay=settings.decay, min_decay=floor, foreach=True)


def _has_unused(config: TrainingConfig) -> bool:
    """Whether some trained weights get no gradient: encoders are read at their penultimate states."""
    params = config.model.params
    image = params.image_encoder_config
    return any(encoder.train for encoder in params.text_config.encoders) or (image is not None and image.train)


def _samples(
    config: TrainingConfig, rows: list[Row], model: AdapterModel, layout: Layout, encodings: Encodings | None
) -> Samples:
    shape = SampleShape(
        latents=model.latent_shape(config.data.params.resolution),
        timesteps=config.model.params.scheduler_config.params.filled.num_train_timesteps,
        reference_size=None if model.image_encoder is None else model.image_encoder.image_size,
        dropouts=model.condition_dropouts(),
        joint_dropout=config.model.params.joint_dropout,
        offset_noise=config.optimization.offset_noise,
    )
    widths = {column.name: column.width for column in columns_of(config)}
    return Samples(rows, config.data.params, widths, shape, config.seed, layout, encodings)


def _batches(
    config: TrainingConfig, samples: Samples, model: AdapterModel, seen: int, processes: Processes, device: torch.device
) -> Batches:
    batch_size = config.optimization.train_batch_size
    has_text = samples.encodings is not None and samples.encodings.has_text
    return batches(
        samples,
        Collate(None if has_text else model.tokenizers),
        # Batches of one bucket begin at multiples of their size; a run continued from elsewhere may stand between two.
        seen if samples.params.aspect_buckets is None else math.ceil(seen / batch_size) * batch_size,
        batch_size,
        processes.rank,
        processes.world_size,
        device,
    )


def _resume_folder(options: RunOptions, processes: Processes) -> Path | None:
    if options.resume is None:
        return None
    if options.resume != "latest":
        return Path(options.resume)
    step = checkpoint_folder.latest_step(options.output, processes)
    return None if step is None else options.output / f"checkpoint-{step}"


def _silent(line: str) -> None:
    """Ranks other than 0 print nothing."""
