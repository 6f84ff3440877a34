"""Picture grids of a run: fixed conditions and noise for every checkpoint, each condition also left out, adapters weighted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from adapter_api.training import SamplingConfig, TrainingConfig
from adapter_trainer.adapters import Adapter
from adapter_trainer.grids import titled_grid
from adapter_trainer.model import AdapterModel
from adapter_trainer.order import Place
from adapter_trainer.processes import Processes
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

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether a grid of this step is asked for, and not there yet."""
        sampling = self.config.sampling
        asked = bool(sampling.rows) and (is_last or sampling.at == "checkpoints")
        return asked and not self._file(step).exists()

    def draw(self, step: int) -> Path:
        """Draws and writes the grid, and returns its file, on rank 0 alone; on every rank a model that is sharded computes together."""
        sampling, sampler = self.config.sampling, Sampler(self.model, self.config, self.device)
        was_training = self.model.training
        self.model.eval()
        rows, images = grid_rows(sampling), []
        for row in rows:
            places = [Place(row.noise, column) for column in range(sampling.images_per_row)]
            with weighted(self.model, row.adapter_scale):
                images.append(sampler.draw_at([row.row] * len(places), places))
        self.model.train(was_training)
        path = self._file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        titled_grid(torch.cat(images), sampling.images_per_row, [row.title for row in rows]).save(aside, format="PNG")
        aside.replace(path)
        return path

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
