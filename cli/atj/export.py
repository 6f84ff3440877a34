"""`atj export`: copies what diffusers and ComfyUI load out of a checkpoint, or writes its whole model as a base."""

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from atj.address import CheckpointPlace, EndpointURL, Region
from atj.errors import CommandError, refusal
from atj.sample import at_hand
from atj.terminal import results, say

RECORD, CARD = "export.json", "README.md"


def export_command(
    checkpoint: CheckpointPlace,
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must be empty or not exist.")],
    what: Annotated[
        Literal["adapters", "base"],
        typer.Option(
            help="adapters: the files for diffusers and ComfyUI. base: the whole model, in diffusers' layout, for "
            "`pretrained` in a configuration."
        ),
    ] = "adapters",
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Copy the files for diffusers and ComfyUI out of a checkpoint: adapters, low-rank weights, model card.

    With --what base: write the whole model, as others begin with it: every network, frozen ones too, and what conditions have
    learnt; low-rank weights are merged into the UNet.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise refusal(f"--to {to}: is there already; name an empty folder, or one that does not exist")
    if what == "base":
        with at_hand(checkpoint, endpoint_url, region, with_models=True) as (folder, models):
            written = write_base(folder, models, to)
        say(results(), f"{to}: {', '.join(written)}; {CARD} says what to write into a configuration")
        return
    with at_hand(checkpoint, endpoint_url, region, with_models=False) as (folder, _):
        files = _files(folder, checkpoint)
        to.mkdir(parents=True, exist_ok=True)
        for file in (*files, RECORD, CARD):
            shutil.copyfile(folder / file, to / file)
    say(results(), f"{to}: {', '.join(files)}; {CARD} says how to load them")


def write_base(folder: Path, models: Path | None, to: Path) -> list[str]:
    """Writes the model of a checkpoint folder; what has been written, by name.

    Args:
        folder: of the checkpoint.
        models: what the models that it names in object storage have been fetched to.
        to: becomes the base, whole or not at all.
    """
    try:
        from adapter_trainer import base_folder, sample  # brings torch, as `atj sample` does
    except ModuleNotFoundError as error:
        raise CommandError(
            f"writing a base needs the package {error.name}; install the trainer's requirements"
        ) from None
    sampler = sample.load(folder, "cpu", models)
    to.parent.mkdir(parents=True, exist_ok=True)
    aside = to.with_name(f".{to.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        written = base_folder.write(sampler, aside, str(to))
        if to.is_dir():
            to.rmdir()
        aside.rename(to)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return written


def _files(folder: Path, checkpoint: str) -> list[str]:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        named = [*(adapter["file"] for adapter in record["adapters"]), record["lora"]]
        reasons = [f"{adapter['name']}: {adapter['diffusers']}" for adapter in record["adapters"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refusal(f"{checkpoint}: has no {RECORD} that can be read ({error}); name a checkpoint") from None
    # Names from a file that anybody may have written must not lead out of the folder.
    files = [Path(name).name for name in named if name]
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise refusal(f"{checkpoint}: {absent[0]} is missing; use another checkpoint")
    if not files:
        why = "; ".join(reasons) or "it has neither adapters nor low-rank weights"
        raise refusal(f"{checkpoint}: holds no file for pipelines: {why}. `atj sample` draws from it")
    return files
