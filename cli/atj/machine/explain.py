"""`atj explain` and `atj schema`: the fields of a job, in a terminal and for editors."""

import re
import textwrap
from enum import StrEnum
from typing import Annotated

import typer

from adapter_api.fields import ITEM, NAME, REQUIRED, FieldText, fields_of
from adapter_api.job import AdapterTrainingJob
from adapter_api.reference import schema_text
from adapter_api.training import TrainingConfig
from atj.errors import refusal
from atj.terminal import results, say

TRAINING = "spec.training"
_INDENT = "    "
_WIDEST = 100


class SchemaOf(StrEnum):
    """Which files a schema is for."""

    job = "job"
    training = "training"


def explain_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="[PATH]", help="Path of a field or section, such as spec.training.sampling.", show_default=False
        ),
    ] = "",
) -> None:
    """Explain a field of a job, or list the fields of a section: type, default, unit, meaning.

    The path of a field in a bare training configuration works too, such as sampling.rows.
    """
    fields = fields_of(AdapterTrainingJob)
    wanted = path.strip(".")
    if not wanted:
        _print(_inside(fields, ""))
        return
    field = _find(fields, wanted)
    if field is None:
        raise refusal(_unknown(fields, wanted))
    _print(_about(fields, field))


def schema_command(
    of: Annotated[
        SchemaOf, typer.Option("--of", help="Kind of file: an AdapterTrainingJob or a training configuration.")
    ] = SchemaOf.job,
) -> None:
    """Print the JSON schema of a job, with which editors check and complete files.

    Save the schema to a file, and start the job with `# yaml-language-server: $schema=FILE`.
    """
    typer.echo(schema_text(AdapterTrainingJob if of is SchemaOf.job else TrainingConfig), nl=False)


def _find(fields: tuple[FieldText, ...], wanted: str) -> FieldText | None:
    known = {_shape(field.path): field for field in fields}
    for start in ("", f"{TRAINING}.", "spec."):
        if (found := known.get(_shape(start + wanted))) is not None:
            return found
        if (named := _named(fields, _shape(start + wanted))) is not None:
            return named
    return None


def _shape(path: str) -> str:
    """The path without the places in lists, which all mean the same."""
    return re.sub(r"\[\d*\]", "", path)


def _named(fields: tuple[FieldText, ...], wanted: str) -> FieldText | None:
    """A field below a name of the user's own."""
    parts = wanted.split(".")
    for field in fields:
        theirs = _shape(field.path).split(".")
        is_as_long = NAME in theirs and len(theirs) == len(parts)
        if is_as_long and all(their in (part, NAME) for their, part in zip(theirs, parts, strict=True)):
            return field
    return None


def _unknown(fields: tuple[FieldText, ...], wanted: str) -> str:
    last = _shape(wanted).rpartition(".")[2]
    same = [field.path for field in fields if field.name == last and not field.path.startswith("status.")]
    if same:
        return f"{wanted}: is not a field; {last} is at {' and '.join(same[:3])}"
    from difflib import get_close_matches

    near = get_close_matches(last, {field.name for field in fields}, n=3)
    meant = f"did you mean {' or '.join(near)}?" if near else "`atj explain` lists what there is at the top"
    return f"{wanted}: is not a field; {meant}"


def _about(fields: tuple[FieldText, ...], field: FieldText) -> list[str]:
    lines = [field.path, *_wrapped(_facts(field)), *_wrapped(field.meaning)]
    if field.is_section:
        lines += ["", *_inside(fields, field.path)]
    return lines


def _inside(fields: tuple[FieldText, ...], path: str) -> list[str]:
    starts = {path, f"{path}{ITEM}", f"{path}.{NAME}"}
    lines = []
    for field in fields:
        if field.parent in starts:
            between = field.path.removeprefix(path).removesuffix(field.name).strip(".")
            lines += [f"{between}.{field.name}".lstrip(".") if between else field.name, *_wrapped(_facts(field))]
            lines += _wrapped(field.meaning)
    return lines


def _facts(field: FieldText) -> str:
    default = f"default {field.default}" if field.default not in {"", REQUIRED} else field.default
    return "; ".join(part for part in (field.type, f"in {field.unit}" if field.unit else "", default) if part)


def _wrapped(text: str) -> list[str]:
    width = min(results().width, _WIDEST)
    return textwrap.wrap(text, width, initial_indent=_INDENT, subsequent_indent=_INDENT) if text else []


def _print(lines: list[str]) -> None:
    for line in lines:
        say(results(), line, None if line.startswith(_INDENT) else "bold")
