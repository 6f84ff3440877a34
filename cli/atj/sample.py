"""`atj sample`: draws pictures from a checkpoint."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from adapter_agent import models
from adapter_agent.store import Store
from adapter_api.checkpoint import folder_name
from adapter_api.document import InvalidDocument, read, validate
from adapter_api.launch import TRAINING_FILE
from adapter_api.sources import MODELS_FOLDER, stored_models
from adapter_api.training import TrainingConfig
from atj.address import CheckpointPlace, EndpointURL, Region, located
from atj.checkpoints import fetch
from atj.conditions import rows_of
from atj.errors import refusal
from atj.extras import require
from atj.output_folder import OutputFolder
from atj.terminal import results, say


def sample_command(
    checkpoint: CheckpointPlace,
    label: Annotated[
        list[int] | None, typer.Option(help="Class for label_to_token; once for each row.", show_default=False)
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Any other condition by data column: a class index, numbers with commas, or a file.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text, where the model has text encoders.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Pictures in a row.")] = 8,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps; by default the checkpoint's.", show_default=False)
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(min=0, help="1 draws without guidance; by default the checkpoint's.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Same seed, same pictures; by default the checkpoint's.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("grid.png"),
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Draw pictures from a checkpoint into one grid.

    Without any condition: a row for each class that the model knows.
    """
    if out.suffix.lower() != ".png" or not out.parent.is_dir():
        raise refusal(f"--out {out}: a .png file in a folder that exists is needed")
    require("local")
    with at_hand(checkpoint, endpoint_url, region, with_models=True) as (folder, staged):
        from adapter_trainer import (  # brings torch, which takes seconds that no other command should wait
            grids,
            sample,
        )

        sampler = sample.load(folder, models=staged)
        rows = rows_of(sampler.config, label or (), condition or (), prompt)
        images = sampler.draw(rows, count, steps=steps, guidance_scale=guidance_scale, seed=seed)
        grids.grid(images, count).save(out)
    say(results(), f"{out}: {len(rows)} row{'s' * (len(rows) > 1)} of {count}")


@contextmanager
def at_hand(
    text: str, endpoint_url: str | None, region: str | None, *, with_models: bool
) -> Iterator[tuple[Path, Path | None]]:
    """A local folder of the checkpoint, as named or fetched for as long as the block; and one of the models it names.

    The latter is None without `with_models`, and where none of them is in object storage.
    """
    path = Path(text)
    if path.is_dir() and not (path / "run.json").exists():
        found = None
        if with_models:
            found = _models(path, _cached_models(), lambda uri: Store.connect(uri, endpoint_url, region))
        yield path, found
        return
    kept = OutputFolder(path).work(0) / MODELS_FOLDER if path.is_dir() else _cached_models()
    with tempfile.TemporaryDirectory(prefix="atj-") as scratch:
        with located(text, endpoint_url, region) as (committed, step):
            entry = committed.entry(step)
            folder = Path(scratch) / folder_name(entry.step)
            fetch(committed, entry, folder)
            found = _models(folder, kept, committed.beside) if with_models else None
        yield folder, found


def _models(checkpoint: Path, folder: Path, connect: Callable[[str], Store]) -> Path | None:
    """`folder`, once it holds what the checkpoint's configuration names in object storage; None if that is nothing."""
    try:
        config = validate(TrainingConfig, read(checkpoint / TRAINING_FILE))
    except InvalidDocument:
        return None  # loading says what is wrong with it
    wanted = stored_models(config.model.params)
    if not wanted:
        return None
    models.stage(wanted, folder, connect)
    return folder


def _cached_models() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "adapter-training-operator" / MODELS_FOLDER
