"""`atj plan`: what a job will need and how long it will take, before anything starts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from adapter_api.document import Document, read, validate
from adapter_api.job import KIND, AdapterTrainingJob
from adapter_api.notes import notes_on
from adapter_api.training import TrainingConfig
from atj.completion import device_names
from atj.errors import CommandError, refusal
from atj.machine import data_checks
from atj.machine.places import threads_of
from atj.machine.validate import is_job
from atj.output_format import Output, OutputFormat
from atj.terminal import duration, results, say, size

if TYPE_CHECKING:
    from adapter_trainer.forecast.device_speed import Device
    from adapter_trainer.forecast.forecast import Forecast

THIS = "this"


def plan_command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of an AdapterTrainingJob or a training configuration.", show_default=False
        ),
    ],
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Device to train on: `this` machine, measured now, or a GPU by name, such as h100 or l4.",
            autocompletion=device_names,
        ),
    ] = THIS,
    efficiency: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1.0,
            metavar="SHARE",
            help="Share of the peak speed that training reaches on a GPU given by name.",
        ),
    ] = 0.4,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="COUNT",
            help="Number of samples, if the job counts epochs and the data are not on this machine.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the data on this machine; by default data_root_path.", show_default=False
        ),
    ] = None,
    output: Output = OutputFormat.table,
) -> None:
    """Predict memory, speed and time of a job from its FLOPs; loads and trains nothing.

    Widths of columns and the number of samples are read from the data, if they are on this machine. Exit code 1 if the
    job does not fit into the device's memory.
    """
    document = read(file, of_kind=KIND)
    config, world_size, threads = _parsed(document)
    from adapter_trainer.forecast import forecast as forecasting  # brings torch
    from adapter_trainer.forecast.device_speed import KNOWN

    if device != THIS and device not in KNOWN:
        raise refusal(f"--device {device}: not known; choose {THIS} or one of {', '.join(KNOWN)}")
    chosen: Device | None = None if device == THIS else KNOWN[device]
    config, counted = _with_data(data_checks.with_root(config, data), samples, is_named=data is not None)
    steps = _steps(config, counted, world_size)
    found = forecasting.forecast(config, chosen, efficiency, world_size=world_size, threads=threads)
    if output is OutputFormat.json:
        typer.echo(json.dumps(_plain(found, config, world_size, steps, counted), indent=2))
    else:
        console = results()
        console.print(_memory_table(found))
        console.print()
        console.print(_speed_table(found, config, world_size, steps))
        for note in notes_on(config):
            say(console, f"Note: {note}", "yellow")
        for line in found.work.assumed:
            say(console, f"Assumed: {line}", "dim")
    if found.available is not None and found.memory > found.available:
        raise CommandError(
            f"{size(found.memory)} do not fit into the {size(found.available)} of {found.device}: "
            + remedy(config, world_size)
        )


def _parsed(document: Document) -> tuple[TrainingConfig, int, int | None]:
    """The configuration, its data where the job says that they are here, the number of processes, and each one's threads."""
    if not is_job(document):
        return validate(TrainingConfig, document), 1, None
    job = validate(AdapterTrainingJob, document)
    folder = None if job.spec.data is None else job.spec.data.folder
    root = None if folder is None else Path(folder)
    return data_checks.with_root(job.spec.training, root), job.spec.world_size, threads_of(job)


def _with_data(config: TrainingConfig, samples: int | None, *, is_named: bool) -> tuple[TrainingConfig, int | None]:
    """The configuration with the widths that the data have, and their number; as it is where they are not here.

    Raises:
        InvalidData: they are here, and something is wrong with them.
    """
    if not is_named and not data_checks.is_here(config):
        return config, samples
    from adapter_trainer.data.verify import resolve_widths  # those of embeddings are in their files

    rows = data_checks.open_data(config, opens_files=False).rows
    params = config.data.params
    resolved = resolve_widths(config, rows, Path(params.data_root_path) / params.pairs_file_path)
    return resolved, samples or len(rows)


def _steps(config: TrainingConfig, samples: int | None, world_size: int) -> int | None:
    """Optimizer steps of the whole run, if they can be known."""
    from adapter_trainer.training.setup import total_steps_of

    if samples is None and config.optimization.max_train_steps is None:
        return None
    return total_steps_of(config, samples or 1, world_size)


def _plain(
    found: "Forecast", config: TrainingConfig, world_size: int, steps: int | None, samples: int | None
) -> dict[str, Any]:
    """The plan for programs: bytes, seconds, FLOPs."""
    work, passes = found.work, config.optimization.gradient_accumulation_steps
    cached = passes * found.seconds_per_pass + found.seconds_of_update
    encoding = cached + passes * found.seconds_of_encoders
    images = work.batch * passes * world_size
    return {
        "device": found.device,
        "basis": found.basis,
        "processes": world_size,
        "bytes": found.memory,
        "availableBytes": found.available,
        "fits": found.available is None or found.memory <= found.available,
        "phases": {name: {**parts, "libraries": found.libraries} for name, parts in found.held.parts.items()},
        "hostBytes": found.held.host,
        "trainedParameters": work.trained_parameters,
        "frozenParameters": work.frozen_parameters,
        "forwardFlopsPerImage": work.forward_flops / work.batch,
        "backwardFlopsPerImage": work.backward_flops / work.batch,
        "encoderFlopsPerImage": (work.encode_flops + work.learning_flops) / work.batch,
        "imagesPerStep": images,
        "secondsPerStep": cached,
        "secondsOfUpdate": found.seconds_of_update,
        "imagesPerSecond": images / cached,
        "imagesPerSecondWithEncoders": images / encoding,
        "samples": samples,
        "steps": steps,
        "seconds": None if steps is None else steps * cached,
        "notes": notes_on(config),
        "assumed": list(work.assumed),
    }


def _memory_table(found: "Forecast") -> Table:
    held = found.held
    columns = {name: {**parts, "libraries": found.libraries} for name, parts in held.parts.items()}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MEMORY OF ONE PROCESS WHILE", no_wrap=True)
    for phase in columns:
        table.add_column(phase, justify="right", no_wrap=True)
    for name in dict.fromkeys(name for parts in held.parts.values() for name in parts):
        table.add_row(name, *(size(parts[name]) if name in parts else "" for parts in columns.values()))
    table.add_row("libraries", *(size(found.libraries) for _ in columns))
    together = [size(sum(parts.values())) for parts in columns.values()]
    table.add_row("[bold]together[/]", *(f"[bold]{each}[/]" for each in together))
    return table


def _speed_table(found: "Forecast", config: TrainingConfig, world_size: int, steps: int | None) -> Table:
    work, passes = found.work, config.optimization.gradient_accumulation_steps
    cached = passes * found.seconds_per_pass + found.seconds_of_update
    encoding = cached + passes * found.seconds_of_encoders
    images = work.batch * passes * world_size
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(
        "parameters", f"{work.trained_parameters / 1e6:.1f} M trained, {work.frozen_parameters / 1e6:.1f} M frozen"
    )
    table.add_row(
        "work for one image",
        f"{_flops(work.forward_flops / work.batch)} forward, {_flops(work.backward_flops / work.batch)} backward, "
        f"{_flops((work.encode_flops + work.learning_flops) / work.batch)} encoders",
    )
    if found.held.host:
        table.add_row(
            "host memory",
            f"{size(found.held.host)} for a checkpoint on its way to the disk, in addition to libraries and data",
        )
    table.add_row("device", found.device)
    table.add_row("speed", found.basis)
    table.add_row("images a second", f"{_short(images / cached)} by {world_size} process{'es' * (world_size > 1)}")
    if work.encode_flops:
        table.add_row("with encoders in the loop", _short(images / encoding))
    if steps is None:
        table.add_row("time", f"{duration(1000 * cached)} for 1000 steps; give --samples for the whole run")
    else:
        table.add_row("time", f"{duration(steps * cached)} for {steps} steps of {images} images")
    return table


def _flops(value: float) -> str:
    unit, power = next((each for each in (("T", 12), ("G", 9)) if value >= 10 ** each[1]), ("M", 6))
    return f"{value / 10**power:.3g} {unit}FLOP"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def remedy(config: TrainingConfig, world_size: int) -> str:
    """PURE: what would make a job need less memory, by field."""
    optimization, unet = config.optimization, config.model.params.unet_config
    choices = []
    if optimization.mixed_precision == "no":
        choices.append("set optimization.mixed_precision to bf16")
    if not unet.gradient_checkpointing:
        choices.append("set model.params.unet_config.gradient_checkpointing")
    if optimization.train_batch_size > 1:
        choices.append("lower optimization.train_batch_size and raise gradient_accumulation_steps")
    if unet.train and optimization.parallelism == "DDP" and world_size > 1:
        choices.append("set optimization.parallelism to FSDP")
    choices.append("lower data.params.resolution")
    return "; or ".join(choices)
