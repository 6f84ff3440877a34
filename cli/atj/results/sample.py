"""`atj sample`: draws pictures from a checkpoint."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from adapter_agent.staging import models
from adapter_agent.storage.store import Store
from adapter_api.checkpoint import folder_name, step_of
from adapter_api.document import InvalidDocument, read, validate
from adapter_api.layout import MODELS_FOLDER, TRAINING_FILE
from adapter_api.sources import stored_models
from adapter_api.training import TrainingConfig
from atj.errors import refusal
from atj.extras import require
from atj.results.address import CheckpointPlace, EndpointURL, Region, located
from atj.results.checkpoints import fetch
from atj.results.conditions import rows_of
from atj.storage.output_folder import OutputFolder
from atj.terminal import results, say


def sample_command(
    checkpoint: CheckpointPlace,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Class for label_to_token, by number or name; repeat it for more rows.", show_default=False),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Value for any other data column: a class, numbers separated by commas, or a file.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text prompt; only for models with text encoders.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Number of pictures in a row.")] = 8,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Denoising steps per picture; by default those of the checkpoint's configuration.",
            show_default=False,
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Strength of guidance; 1 draws without it. By default that of the checkpoint's configuration.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seed of the noise; the same seed gives the same pictures. By default that of the checkpoint's configuration.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale of all adapters instead of their own; 0 switches them off. Repeat it for more rows.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=4096,
            help="Width and height of each picture in the output, in pixels; by default its own size, but at least 64.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Output: a .png file for one grid, or a folder (ending in /) for one file per picture.")
    ] = Path("grid.png"),
    endpoint_url: EndpointURL = None,
    region: Region = None,
) -> None:
    """Draw pictures from a checkpoint into one grid, or into one file per picture.

    Without any condition, it draws one row for each class that the model knows.
    """
    is_grid = out.suffix.lower() == ".png"
    if not out.parent.is_dir() or (out.suffix and not is_grid) or (not is_grid and out.is_file()):
        raise refusal(f"--out {out}: a .png file, or a folder for single pictures, in a folder that exists is needed")
    require("local")
    with at_hand(checkpoint, endpoint_url, region, with_models=True) as (folder, staged):
        from adapter_trainer.sampling import gallery, grids, sample

        sampler = sample.load(folder, models=staged)
        config = sampler.config
        rows = [
            gallery.GridRow(gallery.row_title(config, row, weight), (row,) * count, number, adapter_scale=weight)
            for number, row in enumerate(rows_of(config, label or (), condition or (), prompt))
            for weight in scale or (None,)
        ]
        images = gallery.drawn(sampler, rows, steps=steps, guidance_scale=guidance_scale, seed=seed)
        if size is not None:
            images = grids.resized(images, size)
        if is_grid:
            titles = [row.title for row in rows]
            beside = gallery.references_of(config, rows)
            grids.titled_grid(images, count, titles, None if size is None else 1, references=beside).save(out)
        else:
            out.mkdir(exist_ok=True)
            for number, image in enumerate(images):
                name = f"row-{number // count + 1}-{number % count + 1}.png"
                grids.grid(image[None], 1, 1).save(out / name)
    what = "" if is_grid else f", as {count * len(rows)} files"
    say(results(), f"{out}: {len(rows)} row{'s' * (len(rows) > 1)} of {count}{what}")


@contextmanager
def at_hand(
    text: str, endpoint_url: str | None, region: str | None, *, with_models: bool
) -> Iterator[tuple[Path, Path | None]]:
    """A local folder of the checkpoint, as named or fetched for as long as the block; and one of the models it names.

    The latter is None without `with_models`, and where none of them is in object storage.
    """
    path = Path(text)
    if path.is_dir() and not (path / "run.json").exists():
        path = newest_in(path) or path
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


def newest_in(output: Path) -> Path | None:
    """The checkpoint of the highest step in an output folder of the trainer; None where there is none, or it is one itself."""
    if (output / TRAINING_FILE).exists():
        return None
    steps = {step: path for path in output.glob("checkpoint-*") if (step := step_of(path.name)) is not None}
    return steps[max(steps)] if steps else None


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
