"""`atj export`: copies what diffusers and ComfyUI load out of a checkpoint, or writes its whole model as a base."""

import shutil
import stat
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapter_api.layout import CARD_FILE, EXPORT_FILE, TRAINING_FILE
from atj.errors import refusal
from atj.extras import require
from atj.results.address import CheckpointPlace, EndpointURL, Region
from atj.results.sample import at_hand
from atj.terminal import results, say

FileName = Annotated[str, Field(pattern=r"^[^\x00]+$")]


class _Adapter(BaseModel):
    name: str
    file: FileName | None
    diffusers: str | None = None


class _Record(BaseModel):
    """What a checkpoint says of its files for others; anybody may have written it."""

    model_config = ConfigDict(strict=True)

    adapters: list[_Adapter]
    lora: FileName | None
    lora_kohya: FileName | None = None
    token_conditioners: list[Annotated[str, Field(pattern=r"^\w+$")]] = []
    weights: str | None = None


def export_command(
    checkpoint: CheckpointPlace,
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Folder to write to; it must be empty or not exist.")
    ],
    what: Annotated[
        Literal["adapters", "base"],
        typer.Option(
            help="What to write. adapters: files for diffusers and ComfyUI. base: the whole model in diffusers' layout, for "
            "`pretrained` in a configuration."
        ),
    ] = "adapters",
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Export a checkpoint for other programs: adapters, low-rank weights, token conditioners, model card.

    With --what base: write the whole model as a base for further training: every network, also frozen ones, and the trained
    conditions; low-rank weights are merged into the UNet.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise refusal(f"--to {to}: is there already; name an empty folder, or one that does not exist")
    if what == "base":
        with at_hand(checkpoint, endpoint_url, region, with_models=True) as (folder, models):
            written = write_base(folder, models, to)
        say(results(), f"{to}: {', '.join(written)}; {CARD_FILE} says what to write into a configuration")
        return
    with at_hand(checkpoint, endpoint_url, region, with_models=False) as (folder, _):
        files = _files(folder, checkpoint)
        to.mkdir(parents=True, exist_ok=True)
        for file in (*files, EXPORT_FILE, CARD_FILE):
            (to / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / file, to / file, follow_symlinks=False)
    say(results(), f"{to}: {', '.join(files)}; {CARD_FILE} says how to load them")


def _is_plain(file: Path) -> bool:
    """Whether it is a file itself. A link may lead to anything that whoever exports can read, and would be published with it."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False


def write_base(folder: Path, models: Path | None, to: Path) -> list[str]:
    """Writes the model of a checkpoint folder; what has been written, by name.

    Args:
        folder: of the checkpoint.
        models: what the models that it names in object storage have been fetched to.
        to: becomes the base, whole or not at all.
    """
    require("local")
    from adapter_trainer.publishing import base_folder
    from adapter_trainer.sampling import sample  # brings torch, as `atj sample` does

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


def _record(folder: Path, checkpoint: str) -> _Record:
    try:
        if not (folder / EXPORT_FILE).exists() or _is_plain(folder / EXPORT_FILE):
            return _Record.model_validate_json((folder / EXPORT_FILE).read_bytes())
        fault = "not a regular file"
    except OSError as error:
        fault = str(error)
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(str(step) for step in first['loc'])}: {first['msg']}".removeprefix(": ")
    raise refusal(f"{checkpoint}: has no {EXPORT_FILE} that can be read ({fault}); name a checkpoint")


def _files(folder: Path, checkpoint: str) -> list[str]:
    if linked := [name for name in (EXPORT_FILE, CARD_FILE) if (folder / name).is_symlink()]:
        raise refusal(f"{checkpoint}: {linked[0]} is a link, which is not followed; use another checkpoint")
    record = _record(folder, checkpoint)
    if not _is_plain(folder / CARD_FILE):
        raise refusal(f"{checkpoint}: {CARD_FILE} is missing or is not a regular file; use another checkpoint")
    named = [*(adapter.file for adapter in record.adapters), record.lora, record.lora_kohya]
    reasons = [f"{adapter.name}: {adapter.diffusers}" for adapter in record.adapters]
    # Names from a file that anybody may have written must not lead out of the folder.
    files = [Path(name).name for name in named if name]
    if absent := [name for name in files if not _is_plain(folder / name)]:
        raise refusal(f"{checkpoint}: {absent[0]} is missing or is not a regular file; use another checkpoint")
    if record.token_conditioners:
        averaged = record.weights == "averaged"
        found = _conditioners(folder, record.token_conditioners, averaged=averaged)
        files += [file for file in found if _is_plain(folder / file)]
    if not files:
        why = "; ".join(reasons) or "it has neither adapters nor low-rank weights nor token conditioners"
        raise refusal(f"{checkpoint}: holds no file for pipelines: {why}. `atj sample` draws from it")
    return files


def _conditioners(folder: Path, names: list[str], *, averaged: bool) -> list[str]:
    """What `adapter_trainer.conditioners.load` reads: their weights, their averages, and the configuration."""
    found = [file for name in names for file in sorted((folder / "model").glob(f"{name}.*"))]
    averages = sorted(folder.glob("token_conditioners.*"))
    if averaged and not averages:
        averages = sorted(folder.glob("ema.*"))  # older checkpoints have them among the others
    return [path.relative_to(folder).as_posix() for path in (*found, *averages)] + [TRAINING_FILE]
