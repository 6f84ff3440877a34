"""`atj init`: writes a job for the pictures that lie in a folder."""

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapter_api.document import parse, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.kubernetes import MAX_NAME
from atj.errors import refusal
from atj.extras import require
from atj.machine.data_folder import read_data_folder
from atj.machine.found_data import DataFolder
from atj.machine.new_job import CONDITIONS, Condition, NewJob, job_text, offered
from atj.terminal import results, say


class For(StrEnum):
    """What pictures are to follow from."""

    label = "label"
    reference = "reference"
    embedding = "embedding"
    caption = "caption"
    all = "all"


_HOW = {
    "label": "put the pictures of each class into a folder of its own, or give the table a column of classes",
    "embedding": "put a .npy or .safetensors file of the picture's name next to each picture, or give the table a column "
    "of such files or of numbers",
    "caption": "write a .txt file of the picture's name next to each picture, with different texts, or a table",
}


def init_command(
    *,
    data: Annotated[
        Path,
        typer.Option("--data", metavar="PATH", help="Folder of pictures, or a table: .txt, .csv, .jsonl or .json."),
    ] = Path(),
    wanted: Annotated[
        For, typer.Option("--for", help="Condition to train on; `all` takes every condition that the data have.")
    ] = For.all,
    sdxl: Annotated[
        bool,
        typer.Option(
            "--sdxl/--tiny",
            help="Model to train: Stable Diffusion XL (needs a GPU), or a tiny network that trains in minutes on any machine.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write the job to.")] = Path("job.yaml"),
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the job; by default the names of the data folder and of FILE.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented job that trains on the pictures in a folder.

    Columns come from a table, classes from sub-folders, and captions, embeddings and references from files next to the
    pictures.
    """
    if out.exists() and not force:
        raise refusal(f"--out {out}: is there already; name another file, or give --force to replace it")
    if not out.parent.is_dir():
        raise refusal(f"--out {out}: {out.parent} is not a folder; make it first")
    found = read_data_folder(data)
    conditions = _conditions(found, wanted, data)
    job_name = _job_name(name or _default_name(found.root.resolve().name, out.stem))
    written = []
    if found.is_new:
        table = found.root / found.table
        table.write_text(found.text(), encoding="utf-8")
        written.append(table)
    tokenizer, vocabulary = None, 0
    if not sdxl and "caption" in conditions:
        folder = out.with_name(f"{out.stem}-tokenizer")
        vocabulary = _write_tokenizer(folder, found.captions)
        tokenizer = os.path.relpath(folder)
        written.append(folder)
    new = NewJob(
        job_name, found, found.root.as_posix(), conditions, is_tiny=not sdxl, tokenizer=tokenizer,
        vocabulary=vocabulary, file=str(out),
    )  # fmt: skip
    text = job_text(new)
    validate(AdapterTrainingJob, parse(text, str(out)))
    out.write_text(text, encoding="utf-8")
    console = results()
    for path in written:
        say(console, f"{path}: written, for the job to read")
    for line in found.left_out:
        say(console, f"{data}: not used: {line}")
    for line in found.notes:
        say(console, f"{data}: {line}")
    say(console, f"{out}: {len(found.records)} pictures, conditions: {', '.join(conditions)}")
    following = f"atj plan {out} --device l4" if sdxl else f"atj run {out}"
    say(console, f"  atj validate {out}\n  {following}")


def _conditions(found: DataFolder, wanted: For, data: Path) -> tuple[Condition, ...]:
    there = offered(found)
    if wanted is For.all:
        return there
    chosen = next(each for each in CONDITIONS if each == wanted.value)
    if chosen not in there:
        raise refusal(f"--for {chosen}: {data} has none; {_HOW[chosen]}. There is: {', '.join(there)}")
    return (chosen,)


def _default_name(folder: str, file: str) -> str:
    """PURE: the folder's, told apart where several files train on it: each job has an output folder of its name."""
    return folder if file in {"job", folder} else f"{folder}-{file}"


def _job_name(text: str) -> str:
    """The nearest name that Kubernetes takes."""
    plain = re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:MAX_NAME].strip("-")
    return plain if plain[:1].isalpha() else f"job-{plain}"[:MAX_NAME].strip("-")


def _write_tokenizer(folder: Path, captions: list[str]) -> int:
    require("local")  # here, so that what is missing is told before anything is written
    from adapter_trainer.model.new_tokenizer import write_tokenizer  # brings transformers

    return write_tokenizer(folder, captions, longest=32)
