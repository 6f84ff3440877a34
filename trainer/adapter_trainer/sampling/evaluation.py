"""What a checkpoint is worth, on samples that training does not read: loss without each condition, pictures judged."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from adapter_api.columns import columns_of
from adapter_api.data import Column
from adapter_api.sections import EvaluationConfig
from adapter_api.training import TrainingConfig
from adapter_trainer.data.images import place_image
from adapter_trainer.data.order import Place
from adapter_trainer.data.pairs_table import Faults, Row, Table, named_for_evaluation, read_samples
from adapter_trainer.data.samples import Batch, Collate, Samples
from adapter_trainer.data.verify import check_rows
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.distributed.stop_request import Interrupted
from adapter_trainer.model.adapter_model import AdapterModel, Conditions
from adapter_trainer.model.encoders import ImageEncoder
from adapter_trainer.model.first_stage import latents_of
from adapter_trainer.model.objective import NoiseSchedule
from adapter_trainer.sampling.judge import Features
from adapter_trainer.sampling.obedience import Obedience, colours_of
from adapter_trainer.sampling.sample import Row as PictureRow
from adapter_trainer.sampling.sample import Sampler

MAX_BATCH = 16
SEED = 0
"""Not the run's: what runs with different seeds reach can be compared."""
Losses = dict[str, float]


@dataclass
class Evaluation:
    """Measures a model, always on the same samples with the same noise: figures of two checkpoints can be compared."""

    settings: EvaluationConfig
    config: TrainingConfig
    """With its columns' widths known."""
    model: AdapterModel
    schedule: NoiseSchedule
    samples: Samples
    """The held-out ones, not augmented."""
    training_rows: list[Row]
    """What the judge learns from."""
    null_ids: list[Tensor]
    processes: Processes
    device: torch.device
    is_stopping: Callable[[], bool] = lambda: False
    """Whether to give up; asked between batches, by all processes at the same time."""
    _obedience: Obedience | None = None

    def measure(self) -> dict[str, float]:
        """Figures by name; collective: every process measures its share of the samples.

        `validation_loss`; `gain.<condition>`, the share by which the loss grows where that condition is its null; with
        pictures the figures of `Obedience`.

        Raises:
            Interrupted: see `is_stopping`.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            return {**self._losses(), **self._pictures()}
        finally:
            self.model.train(was_training)

    # --- loss ---

    def _losses(self) -> dict[str, float]:
        mine: list[Losses] = []
        for noise_level in range(self.settings.timesteps):
            for places, counted in self._shares(len(self.samples), noise_level):
                found = self._losses_of(places, noise_level)
                mine += [each for each, is_mine in zip(found, counted, strict=True) if is_mine]
        everyone = [losses for part in self.processes.gather(mine) for losses in part]
        means = {name: sum(losses[name] for losses in everyone) / len(everyone) for name in everyone[0]}
        loss = means.pop("")
        gains = {f"gain.{name}": without / loss - 1 for name, without in means.items()} if loss > 0 else {}
        return {"validation_loss": loss, **gains}

    def _shares(self, count: int, epoch: int) -> Iterator[tuple[list[Place], list[bool]]]:
        """This process's samples in batches, each with whether it counts.

        Every process gets as many, the last ones perhaps twice: sharded models compute together or not at all.
        """
        each = -(-count // self.processes.world_size)
        numbers = [self.processes.rank + turn * self.processes.world_size for turn in range(each)]
        size = min(self.config.optimization.train_batch_size, MAX_BATCH)
        for start in range(0, each, size):
            if self.is_stopping():
                raise Interrupted
            some = numbers[start : start + size]
            yield [Place(epoch, number % count) for number in some], [number < count for number in some]

    @torch.no_grad()
    def _losses_of(self, places: list[Place], noise_level: int) -> list[Losses]:
        """For each sample its loss with all conditions (``), and without each one by name."""
        batch: Batch = Collate(self.model.tokenizers)([self.samples[place] for place in places]).to(self.device)
        timestep = (2 * noise_level + 1) * self.schedule.timesteps // (2 * self.settings.timesteps)
        timesteps = torch.full_like(batch.timesteps, timestep)
        latents = latents_of(self.model.first_stage, batch.images, None, batch.posterior_noise)
        noisy = self.schedule.add_noise(latents, batch.noise, timesteps)
        target = self.schedule.target(latents, batch.noise, timesteps).float()
        names = list(batch.dropped)
        found: list[Losses] = [{} for _ in places]
        whole = Conditions(batch.columns, {}, batch.time_ids, batch.input_ids, self.null_ids, keeps_encoded=True)
        for without in ("", *names):
            dropped = {name: torch.full_like(batch.dropped[name], name == without) for name in names}
            prediction = self.model(noisy, timesteps, replace(whole, dropped=dropped)).float()
            for losses, value in zip(found, ((prediction - target) ** 2).mean((1, 2, 3)).tolist(), strict=True):
                losses[without] = value
        return found

    # --- pictures ---

    def _pictures(self) -> dict[str, float]:
        rows = self.samples.rows[: self.settings.pictures]
        if not rows:
            return {}
        obedience = self._judging()
        sampler = Sampler(self.model, self.config, self.device)
        drawn: dict[int, tuple[Tensor, Tensor]] = {}
        for places, counted in self._shares(len(rows), 0):
            chosen = [rows[place.position] for place in places]
            images = sampler.draw_at([picture_row(row) for row in chosen], places, seed=SEED)
            seen, colours = obedience.features.of(images), colours_of(images.cpu())
            for number, place in enumerate(places):
                if counted[number]:
                    drawn[place.position] = seen[number], colours[number]
        everyone = {number: found for part in self.processes.gather(drawn) for number, found in part.items()}
        in_order = [everyone[number] for number in range(len(rows))]
        return obedience.figures(
            rows, torch.stack([seen for seen, _ in in_order]), torch.stack([of for _, of in in_order])
        )

    def _judging(self) -> Obedience:
        if self._obedience is None:
            references = [column.name for column in columns_of(self.config) if column.kind == "reference"]
            features = Features(self._seeing(), self.device)
            self._obedience = Obedience(features, self.training_rows, references, self._images)
        return self._obedience

    def _seeing(self) -> ImageEncoder | None:
        """The image encoder, if its weights were learnt elsewhere."""
        settings = self.model.params.image_encoder_config
        is_published = settings is not None and settings.pretrained is not None and not settings.train
        return self.model.image_encoder if is_published else None

    def _images(self, rows: Sequence[Row]) -> Tensor:
        """The rows' own images as they are trained on, [N, C, H, W] in 0..1."""
        params = self.config.data.params
        pixels = [torch.from_numpy(place_image(self.samples.pixels(row.image), params, None)[0].copy()) for row in rows]
        stacked = torch.stack(pixels).float() / 255
        return stacked[:, None] if stacked.ndim == 3 else stacked.permute(0, 3, 1, 2)


def picture_row(row: Row) -> PictureRow:
    """A sample's conditions as the sampler takes them."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in row.values.items()}
    return {"caption": row.caption, "image": str(row.image), **values}


def read_held_out(settings: EvaluationConfig, config: TrainingConfig) -> Table:
    """The held-out rows that are measured, checked as training's are.

    Raises:
        InvalidData: names file, line and what is wrong, a label that training does not know among it.
    """
    params = config.data.params.model_copy(update={"pairs_file_path": settings.pairs_file_path})
    columns = columns_of(config)
    path = Path(params.data_root_path) / settings.pairs_file_path
    with named_for_evaluation():
        table = read_samples(params, columns)
        table.rows = table.rows[: settings.samples]
        _check_widths(table.rows, columns, path)
        check_rows(table.rows, columns, params.verify, path)
    return table


def _check_widths(rows: list[Row], columns: tuple[Column, ...], path: Path) -> None:
    widths = {column.name: column.width for column in columns}
    faults = Faults(path)
    for row in rows:
        for name, value in row.values.items():
            width = widths[name]
            if isinstance(value, int) and width is not None and value >= width:
                faults.add(row.line, f"{name}: label {value} is outside 0..{width - 1}, which the model knows")
            elif isinstance(value, tuple) and len(value) != width:
                faults.add(row.line, f"{name}: has {len(value)} numbers, not {width}")
    faults.raise_if_any()


def plain_samples(rows: list[Row], config: TrainingConfig, training: Samples) -> Samples:
    """Held-out rows as training's samples are read, but never cropped or flipped at random, and without offset noise."""
    plain = config.data.params.model_copy(update={"random_crop": False, "random_flip": False})
    return Samples(rows, plain, training.widths, replace(training.shape, offset_noise=0.0), SEED)
