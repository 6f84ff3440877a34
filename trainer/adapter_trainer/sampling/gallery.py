"""Picture grids of a run: fixed conditions and noise for every checkpoint, each condition also left out, adapters weighted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from adapter_api.columns import columns_of
from adapter_api.training import TrainingConfig
from adapter_trainer.data.condition_files import file_of
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.order import Place
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import Interrupted
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.model.adapters import Adapter
from adapter_trainer.sampling.grids import titled_grid
from adapter_trainer.sampling.sample import Row, Sampler

MOST_NUMBERS = 4
"""Of a vector that are written out."""


@dataclass(frozen=True)
class GridRow:
    """One row of a grid."""

    title: str
    cells: tuple[Row, ...]
    """The conditions of each picture."""
    noise: int
    """Rows with the same number begin with the same noise."""
    is_one_noise: bool = False
    """Whether all pictures of the row begin with the same noise too."""
    adapter_scale: float | None = None
    """Weight of all adapters instead of their own."""

    @property
    def places(self) -> list[Place]:
        """What noise each picture begins with."""
        return [Place(self.noise, 0 if self.is_one_noise else number) for number in range(len(self.cells))]

    @property
    def shared(self) -> Row:
        """The conditions that all pictures have in common."""
        first, *others = self.cells
        return {name: value for name, value in first.items() if all(each.get(name) == value for each in others)}


def grid_rows(config: TrainingConfig) -> list[GridRow]:
    """PURE: the rows that config.sampling asks for, each followed by its variants."""
    sampling = config.sampling
    found = []
    for number, row in enumerate(sampling.rows):
        columns = sampling.columns or ({},) * sampling.images_per_row
        cells = tuple({**row, **column} for column in columns)
        own = {name: value for name, value in row.items() if not all(name in column for column in columns)}
        found += [
            GridRow(row_title(config, own, scale), cells, number, bool(sampling.columns), scale)
            for scale in sampling.adapter_scales or (None,)
        ]
        names = dict.fromkeys(name for cell in cells for name in cell)
        if sampling.without_conditions and len(names) > 1:
            for name in names:
                rest = tuple({other: value for other, value in cell.items() if other != name} for cell in cells)
                found.append(GridRow(f"without {name}", rest, number, bool(sampling.columns)))
    return found


def column_titles(config: TrainingConfig) -> list[str]:
    """PURE: of the columns that config.sampling names; none where it names none."""
    return [", ".join(value_text(config, name, value) for name, value in column.items()) or "no condition"
            for column in config.sampling.columns]  # fmt: skip


def row_title(config: TrainingConfig, row: Row, scale: float | None = None) -> str:
    """PURE: what stands beside a row: the adapters' weight, where it is not their own, and every condition with its value."""
    weight = [] if scale is None else [f"adapters x {scale:g}"]
    return ", ".join([*weight, *(f"{name}: {value_text(config, name, value)}" for name, value in row.items())]) or (
        "no condition"
    )


def value_text(config: TrainingConfig, name: str, value: object) -> str:
    """PURE: a condition's value as people call it: the class's name, the file's, the numbers themselves."""
    column = next((column for column in columns_of(config) if column.name == name), None)
    if isinstance(value, tuple):
        numbers = " ".join(f"{number:g}" for number in value[:MOST_NUMBERS])
        return numbers if len(value) <= MOST_NUMBERS else f"{numbers} … ({len(value)} numbers)"
    if column is not None and column.names is not None and (label := column.class_of(value)) is not None:
        return column.names[label] if label < len(column.names) else str(label)
    is_file = name == "image" or (column is not None and column.kind in ("embedding", "reference"))
    return _file_text(config, name, Path(str(value))) if is_file else str(value)


def _file_text(config: TrainingConfig, name: str, file: Path) -> str:
    """The file's name, with its folder's where the grid has another file of that name."""
    drawn = (Path(str(row[name])) for row in (*config.sampling.rows, *config.sampling.columns) if name in row)
    has_twin = any(other.name == file.name and other != file for other in drawn)
    return "/".join(file.parts[-2:]) if has_twin else file.name


def references_of(config: TrainingConfig, rows: Sequence[GridRow]) -> dict[str, list[Image.Image | None]]:
    """The pictures that rows refer to, by column: those that all pictures of a row have in common."""
    names = ["image", *(column.name for column in columns_of(config) if column.kind == "reference")]
    given = {name: [row.shared.get(name) for row in rows] for name in names}
    return {
        name: [
            None if value is None else open_picture(file_of(config, str(value)), config.data.params.background)
            for value in values
        ]
        for name, values in given.items()
        if any(value is not None for value in values)
    }


def drawn(
    sampler: Sampler, rows: Sequence[GridRow], *, steps: int | None, guidance_scale: float | None, seed: int | None
) -> Tensor:
    """Every picture of the rows, row by row, [N, C, H, W] in 0..1; what is not given comes from config.sampling."""
    found = []
    for row in rows:
        with weighted(sampler.model, row.adapter_scale):
            found.append(sampler.draw_at(row.cells, row.places, steps=steps, guidance_scale=guidance_scale, seed=seed))
    return torch.cat(found)


@dataclass
class Gallery:
    """Draws a run's grids into samples/step-<step>.png."""

    config: TrainingConfig
    model: AdapterModel
    processes: Processes
    device: torch.device
    folder: Path
    is_stopping: Callable[[], bool] = lambda: False
    """Whether to give up; asked between rows, by all processes at the same time."""

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether a grid of this step is asked for, and not there yet; collective: rank 0 knows what is there."""
        sampling = self.config.sampling
        asked = bool(sampling.rows) and (is_last or sampling.at == "checkpoints")
        return asked and not self.processes.gather(self._file(step).exists())[0]

    def draw(self, step: int) -> Path | None:
        """Draws the grid, each rank its share of the rows; collective. Rank 0 writes it and returns its file.

        Raises:
            Interrupted: see `is_stopping`.
        """
        rows = grid_rows(self.config)
        everyone = self.processes.gather(self._my_rows(rows))
        if not self.processes.is_main:
            return None
        drawn = {number: images for part in everyone for number, images in part.items()}
        images = torch.cat([drawn[number] for number in range(len(rows))])
        path = self._file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        titled_grid(
            images,
            len(rows[0].cells),
            [row.title for row in rows],
            heads=column_titles(self.config),
            references=references_of(self.config, rows),
        ).save(aside, format="PNG")
        aside.replace(path)
        return path

    def _my_rows(self, rows: list[GridRow]) -> dict[int, Tensor]:
        """Pictures by number of the row. Every rank draws as many: a sharded model computes on all ranks or not at all."""
        sampler, drawn = Sampler(self.model, self.config, self.device), {}
        was_training = self.model.training
        self.model.eval()
        try:
            for turn in range(-(-len(rows) // self.processes.world_size)):
                if self.is_stopping():
                    raise Interrupted
                number = (self.processes.rank + turn * self.processes.world_size) % len(rows)
                with weighted(self.model, rows[number].adapter_scale):
                    drawn[number] = sampler.draw_at(rows[number].cells, rows[number].places).cpu()
        finally:
            self.model.train(was_training)
        return drawn

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step}.png"


@contextmanager
def weighted(model: AdapterModel, scale: float | None) -> Iterator[None]:
    """All adapters with this weight for as long as the block; None leaves them as they are."""
    adapters = [adapter for adapter in model.adapters.values() if isinstance(adapter, Adapter)]
    before = [adapter.scale for adapter in adapters]
    for adapter in adapters if scale is not None else ():
        adapter.scale = float(scale or 0)
    try:
        yield
    finally:
        for adapter, own in zip(adapters, before, strict=True):
            adapter.scale = own
