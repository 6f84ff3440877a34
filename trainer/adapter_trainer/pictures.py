"""Picture grids of a run: fixed conditions and noise for every checkpoint, each condition also left out, adapters weighted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adapter_api.training import SamplingConfig, TrainingConfig
from adapter_trainer.adapters import Adapter
from adapter_trainer.control import Interrupted
from adapter_trainer.grids import titled_grid
from adapter_trainer.model import AdapterModel
from adapter_trainer.order import Place
from adapter_trainer.processes import Processes
from adapter_trainer.rows_to_draw import rows_to_draw
from adapter_trainer.sample import Row, Sampler

LONGEST_CAPTION = 24


@dataclass(frozen=True)
class GridRow:
    """One row of a grid."""

    title: str
    row: Row
    noise: int
    """Rows with the same number begin with the same noise."""
    adapter_scale: float | None = None
    """Weight of all adapters instead of their own."""


def grid_rows(sampling: SamplingConfig) -> list[GridRow]:
    """PURE: the rows that config.sampling asks for, each followed by its variants."""
    found = []
    for number, row in enumerate(sampling.rows):
        title = ", ".join(f"{name}: {_short(value)}" for name, value in row.items()) or "no condition"
        for scale in sampling.adapter_scales or (None,):
            weight = "" if scale is None else f" ({scale:g} x adapters)"
            found.append(GridRow(title + weight, row, number, scale))
        if sampling.without_conditions and len(row) > 1:
            for name in row:
                rest = {other: value for other, value in row.items() if other != name}
                found.append(GridRow(f"without {name}", rest, number))
    return found


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} numbers"
    text = Path(value).name if isinstance(value, str) and "/" in value else str(value)
    return text if len(text) <= LONGEST_CAPTION else f"{text[: LONGEST_CAPTION - 1]}…"


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
        found = tuple(rows_to_draw(self.config))
        rows = grid_rows(self.config.sampling.model_copy(update={"rows": found}))
        everyone = self.processes.gather(self._my_rows(rows))
        if not self.processes.is_main:
            return None
        drawn = {number: images for part in everyone for number, images in part.items()}
        images = torch.cat([drawn[number] for number in range(len(rows))])
        path = self._file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        columns = self.config.sampling.images_per_row
        titled_grid(images, columns, [row.title for row in rows]).save(aside, format="PNG")
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
                places = [Place(rows[number].noise, column) for column in range(self.config.sampling.images_per_row)]
                with weighted(self.model, rows[number].adapter_scale):
                    drawn[number] = sampler.draw_at([rows[number].row] * len(places), places).cpu()
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
