"""`atj validate`: is this file a job, or a training configuration, that can be run, and are its data as it says?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adapter_api.columns import columns_of
from adapter_api.document import Document, InvalidDocument, Location, read, validate
from adapter_api.notes import notes_on
from adapter_api.training import TrainingConfig
from adapter_trainer.errors import InvalidData
from atj.machine import data_checks
from atj.output_format import Output, OutputFormat
from atj.terminal import say_error, say_result

if TYPE_CHECKING:
    from adapter_api.job import AdapterTrainingJob

TRAINING: Location = ("spec", "training")
KIND_OF_JOB = "AdapterTrainingJob"


def validate_command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of an AdapterTrainingJob or a training configuration.", show_default=False
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the data to check; by default data_root_path.", show_default=False
        ),
    ] = None,
    output: Output = OutputFormat.table,
) -> None:
    """Check a job or training configuration and its data; show every fault with its path and line.

    If the data are on this machine, the table, labels, rows to draw and the files of the first 1000 samples are checked.
    Exit code 0 if everything is valid, 2 otherwise.
    """
    try:
        summary = _checked(read(file, of_kind=KIND_OF_JOB), data)
    except (InvalidDocument, InvalidData) as error:
        if output is OutputFormat.json:
            typer.echo(json.dumps({"valid": False, "faults": _plain(error)}, indent=2))
            raise typer.Exit(2) from None
        raise
    if output is OutputFormat.json:
        typer.echo(json.dumps({"valid": True, "faults": [], **summary}, indent=2))
        return
    say_result(f"{file}: valid {summary['summary']}")
    if summary["data"] is not None:
        say_result(f"{summary['data']['folder']}: {_counted(summary['data'])}")
    for note in summary["notes"]:
        say_error(f"Note: {note}", "yellow")


def is_job(document: Document) -> bool:
    """Whether a file means to be a job; a training configuration has none of these fields."""
    return not {"apiVersion", "kind", "metadata", "spec"}.isdisjoint(document.data)


def _checked(document: Document, root: Path | None) -> dict[str, Any]:
    """What is to be said of a valid file.

    Raises:
        InvalidDocument: something is wrong with it.
        InvalidData: something is wrong with its data.
    """
    at: Location = ()
    job: Any = None
    notes = [f"{document.source} also holds {each}, which is left alone" for each in document.others]
    if is_job(document):
        from adapter_api.job import AdapterTrainingJob
        from adapter_api.job_notes import notes_on_job  # a training configuration does without its models

        job, at = validate(AdapterTrainingJob, document), TRAINING
        config, summary = job.spec.training, _job(job)
        notes += notes_on_job(job)
    else:
        config = validate(TrainingConfig, document)
        summary = f"training configuration: {_length(config)}, resolution {config.data.params.resolution}"
    notes += notes_on(config)
    folder = None if job is None or job.spec.data is None else job.spec.data.folder
    located = data_checks.with_root(config, root or (None if folder is None else Path(folder)))
    opened, opens_files = None, data_checks.can_open_files()
    if root is not None or data_checks.is_here(located):
        opened = data_checks.open_data(located, opens_files=opens_files)
        data_checks.held_out_faults(located)
    else:
        notes.append(_not_opened(document, located, job, at))
    faults = [
        *data_checks.layer_faults(config, document, at),
        *(() if opened is None else data_checks.row_faults(opened, document, at, opens_files=opens_files)),
    ]
    if faults:
        raise InvalidDocument(faults)
    found = None if opened is None else _found(located, opened)
    return {"file": document.source, "summary": summary, "data": found, "notes": notes}


def _not_opened(document: Document, config: TrainingConfig, job: "AdapterTrainingJob | None", at: Location) -> str:
    folder = config.data.params.data_root_path
    if job is not None and job.spec.data is not None and job.spec.data.is_here_only:
        message = f"{folder} is not a folder here; correct the path, which is absolute or from the working directory"
        raise InvalidDocument([document.fault(("spec", "data", "folder"), message)])
    if job is not None and job.spec.data is None and not job.spec.pod.volumes and not Path(folder).is_absolute():
        message = f"{folder} is not a folder here, and no other source of data is set; correct it, or set spec.data"
        raise InvalidDocument([document.fault((*at, "data", "params", "data_root_path"), message)])
    return f"The data were not opened: {folder} is not on this machine. --data FOLDER checks a copy of it."


def _found(config: TrainingConfig, opened: data_checks.Opened) -> dict[str, Any]:
    columns = [
        {"name": column.name, "kind": column.kind, "width": opened.widths.get(column.name)}
        for column in columns_of(config)
    ]
    counts = {
        "samples": len(opened.rows),
        "pictures": len({row.image for row in opened.rows}),
        "opened": opened.checked,
    }
    return {"folder": config.data.params.data_root_path, **counts, "columns": columns}


def _counted(found: dict[str, Any]) -> str:
    parts = [f"{found['samples']} sample{'s' * (found['samples'] != 1)}"]
    if found["pictures"] < found["samples"]:
        parts[0] += f" of {found['pictures']} picture{'s' * (found['pictures'] != 1)}"
    for column in found["columns"]:
        of = {"label": "classes", "vector": "numbers"}.get(column["kind"])
        width = f" of {column['width']} {of}" if of and column["width"] is not None else ""
        parts.append(f"{column['name']} ({column['kind']}{width})")
    if 0 < found["opened"] < found["samples"]:
        parts.append(f"files of the first {found['opened']} opened")
    return ", ".join(parts)


def _plain(error: Exception) -> list[dict[str, Any]]:
    if isinstance(error, InvalidDocument):
        return [
            {"file": fault.source, "line": fault.line, "path": fault.path, "message": fault.message}
            for fault in error.faults
        ]
    return [{"file": None, "line": None, "path": None, "message": line} for line in str(error).splitlines()]


def _job(job: "AdapterTrainingJob") -> str:
    spec = job.spec
    shape = f"{spec.nodes} x {spec.processes} process{'es' * (spec.world_size > 1)}"
    return f"{job.kind} {job.metadata.name}: {shape}, {_length(spec.training)}, output {spec.output.s3.uri}"


def _length(config: TrainingConfig) -> str:
    optimization = config.optimization
    if optimization.max_train_steps is not None:
        return f"{optimization.max_train_steps} steps"
    return f"{optimization.num_train_epochs} epoch{'s' * (optimization.num_train_epochs > 1)}"
