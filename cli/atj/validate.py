"""`atj validate`: is this file a job, or a training configuration, that can be run?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapter_api.document import Document, read, validate
from adapter_api.notes import notes_on
from adapter_api.training import TrainingConfig
from atj.terminal import errors, results, say

if TYPE_CHECKING:
    from adapter_api.job import AdapterTrainingJob


def validate_command(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An AdapterTrainingJob, or a training configuration.", show_default=False),
    ],
) -> None:
    """Check a job, or a bare training configuration, and name every fault with its path and line.

    Exit code 0 when it is valid, 2 when it is not.
    """
    document = read(file)
    if is_job(document):
        from adapter_api.job import AdapterTrainingJob  # a training configuration does without its models

        job = validate(AdapterTrainingJob, document)
        summary, training = _job(job), job.spec.training
    else:
        training = validate(TrainingConfig, document)
        summary = _training(training)
    say(results(), f"{file}: valid {summary}")
    for note in notes_on(training):
        say(errors(), f"Note: {note}", "yellow")


def is_job(document: Document) -> bool:
    """Whether a file means to be a job; a training configuration has none of these fields."""
    return not {"apiVersion", "kind", "metadata", "spec"}.isdisjoint(document.data)


def _job(job: "AdapterTrainingJob") -> str:
    spec = job.spec
    shape = f"{spec.nodes} x {spec.processes} process{'es' * (spec.world_size > 1)}"
    return f"{job.kind} {job.metadata.name}: {shape}, {_length(spec.training)}, output {spec.output.s3.uri}"


def _training(config: TrainingConfig) -> str:
    return f"training configuration: {_length(config)}, resolution {config.data.params.resolution}"


def _length(config: TrainingConfig) -> str:
    optimization = config.optimization
    if optimization.max_train_steps is not None:
        return f"{optimization.max_train_steps} steps"
    return f"{optimization.num_train_epochs} epoch{'s' * (optimization.num_train_epochs > 1)}"
