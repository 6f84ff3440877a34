"""Samples as tensors: what a place in the sample order becomes, everything random in it included."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adapter_api.training import DataParams
from adapter_trainer import order
from adapter_trainer.encoders import CLIP_MEAN, CLIP_STD, Tokenizers
from adapter_trainer.order import Place
from adapter_trainer.table import Row
from adapter_trainer.verify import open_image, read_embedding

Pixels = NDArray[np.uint8]
"""[H, W] or [H, W, C]."""
Floats = NDArray[np.float32]

SMALL_IMAGE_PIXELS = 64 * 64
"""Images up to this size are kept decoded: for them, opening the file costs more than everything else."""
KEPT_IMAGES = 65_536

_CLIP_MEAN = np.array(CLIP_MEAN, np.float32)[:, None, None]
_CLIP_STD = np.array(CLIP_STD, np.float32)[:, None, None]


@dataclass(frozen=True)
class SampleShape:
    """What the model asks of a sample."""

    latents: tuple[int, int, int]
    """Channels, height and width."""
    timesteps: int
    reference_size: int | None
    """Height and width of reference images; None without an image encoder."""
    dropouts: dict[str, float]
    """Share of dropped samples, by condition."""


@dataclass
class Batch:
    """Samples of one process and one forward pass."""

    images: Tensor
    """[B, C, H, W] in -1..1."""
    noise: Tensor
    """[B, *latents], standard normal: what the objective adds."""
    posterior_noise: Tensor
    """[B, *latents], standard normal: what samples the first stage's posterior."""
    timesteps: Tensor
    """[B] of int64."""
    time_ids: Tensor
    """[B, 6]."""
    columns: dict[str, Tensor]
    dropped: dict[str, Tensor]
    """By condition, [B] of bool."""
    input_ids: list[Tensor]
    """[B, L] for each text encoder."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; copies from pinned memory do not wait."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            move(self.images),
            move(self.noise),
            move(self.posterior_noise),
            move(self.timesteps),
            move(self.time_ids),
            {name: move(tensor) for name, tensor in self.columns.items()},
            {name: move(tensor) for name, tensor in self.dropped.items()},
            [move(tensor) for tensor in self.input_ids],
        )

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory; the data loader calls this by name."""
        return Batch(
            self.images.pin_memory(),
            self.noise.pin_memory(),
            self.posterior_noise.pin_memory(),
            self.timesteps.pin_memory(),
            self.time_ids.pin_memory(),
            {name: tensor.pin_memory() for name, tensor in self.columns.items()},
            {name: tensor.pin_memory() for name, tensor in self.dropped.items()},
            [tensor.pin_memory() for tensor in self.input_ids],
        )


@dataclass
class _Sample:
    """NumPy arrays until they are stacked: a tensor for every part of every sample costs more than the parts do."""

    pixels: Pixels
    noise: Floats
    posterior_noise: Floats
    timestep: int
    time_ids: tuple[int, ...]
    columns: dict[str, Floats]
    dropped: dict[str, bool]
    caption: str


class Samples(Dataset[_Sample]):
    """The samples, read by place: the same place gives the same tensors in any process and any run."""

    def __init__(
        self,
        rows: list[Row],
        params: DataParams,
        widths: dict[str, int | None],
        shape: SampleShape,
        seed: int,
    ) -> None:
        """`widths` are the columns' widths, by name; None for reference images."""
        self.rows = rows
        self.params = params
        self.widths = widths
        self.shape = shape
        self.seed = seed
        self.decoded: dict[Path, Pixels] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Place) -> _Sample:
        """The sample that stands at a place of the order."""
        row = self.rows[order.index_at(self.seed, place, len(self.rows))]
        random = order.generator_at(self.seed, place, "sample")
        noise = random.standard_normal(self.shape.latents, dtype=np.float32)
        posterior = random.standard_normal(self.shape.latents, dtype=np.float32)
        timestep = int(random.integers(self.shape.timesteps))
        draws = random.random(len(self.shape.dropouts))
        dropped = {
            name: bool(draw < share) for (name, share), draw in zip(self.shape.dropouts.items(), draws, strict=True)
        }
        source = self.pixels(row.image)
        pixels, time_ids = place_image(source, self.params, random)
        columns = {name: self._column(row, name) for name in row.values}
        if self.shape.reference_size is not None:
            columns["image"] = reference_image(Image.fromarray(source), self.shape.reference_size)
        return _Sample(pixels, noise, posterior, timestep, time_ids, columns, dropped, row.caption)

    def pixels(self, path: Path) -> Pixels:
        """An image as it is, in the configured mode; small ones are kept."""
        if (kept := self.decoded.get(path)) is not None:
            return kept
        pixels = np.asarray(open_image(path).convert(self.params.image_mode))
        if pixels.shape[0] * pixels.shape[1] <= SMALL_IMAGE_PIXELS and len(self.decoded) < KEPT_IMAGES:
            self.decoded[path] = pixels
        return pixels

    def _column(self, row: Row, name: str) -> Floats:
        value, width = row.values[name], self.widths[name]
        if isinstance(value, int):
            one_hot = np.zeros(width or value + 1, np.float32)
            one_hot[value] = 1
            return one_hot
        if isinstance(value, tuple):
            return np.array(value, np.float32)
        if width is None:
            return reference_image(open_image(value), self.shape.reference_size or 224)
        return read_embedding(value)


def place_image(
    source: Pixels, params: DataParams, random: np.random.Generator | None
) -> tuple[Pixels, tuple[int, ...]]:
    """Resizes the shorter side to the resolution and crops the longer one.

    Args:
        source: in any height and width.
        params: say the resolution, and whether crop and flip are random.
        random: draws crop and flip where the configuration asks for them; None crops at the centre.

    Returns:
        Pixels of height and width R, and SDXL's micro-conditioning: original height and width, crop top and left,
        target height and width (arXiv 2307.01952, section 2.2). A flip mirrors where the crop was taken from.
    """
    resolution, original = params.resolution, source.shape[:2]
    scale = resolution / min(original)
    height, width = max(round(original[0] * scale), resolution), max(round(original[1] * scale), resolution)
    if (height, width) != original:
        source = np.asarray(Image.fromarray(source).resize((width, height), Image.Resampling.LANCZOS))
    spare = (height - resolution, width - resolution)
    top, left = spare[0] // 2, spare[1] // 2
    if random is not None and params.random_crop:
        top, left = int(random.integers(spare[0] + 1)), int(random.integers(spare[1] + 1))
    flip = random is not None and params.random_flip and bool(random.integers(2))
    pixels = source[top : top + resolution, left : left + resolution]
    if flip:
        pixels = pixels[:, ::-1]
        left = spare[1] - left
    return pixels, (*original, top, left, resolution, resolution)


def scaled(pixels: Pixels) -> Floats:
    """Pixels [..., H, W, C] -> [..., C, H, W] in -1..1."""
    return np.moveaxis(pixels, -1, -3).astype(np.float32, order="C") / np.float32(127.5) - np.float32(1)


def reference_image(image: Image.Image, size: int) -> Floats:
    """CLIP's preprocessing: shorter side to `size`, centre crop, its mean and deviation; [3, size, size]."""
    image = image.convert("RGB")
    scale = size / min(image.size)
    width, height = max(round(image.width * scale), size), max(round(image.height * scale), size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - size) // 2, (width - size) // 2
    pixels = scaled(np.asarray(image)[top : top + size, left : left + size])
    normalized: Floats = (pixels / np.float32(2) + np.float32(0.5) - _CLIP_MEAN) / _CLIP_STD
    return normalized


class Collate:
    """Samples to a batch; holds the tokenizers, so that data workers tokenize."""

    def __init__(self, tokenizers: Tokenizers | None) -> None:
        self.tokenizers = tokenizers

    def __call__(self, samples: list[_Sample]) -> Batch:
        """Stacks samples."""
        first = samples[0]
        pixels = np.stack([sample.pixels for sample in samples])
        return Batch(
            images=torch.from_numpy(scaled(pixels[..., None] if pixels.ndim == 3 else pixels)),
            noise=_stacked([sample.noise for sample in samples]),
            posterior_noise=_stacked([sample.posterior_noise for sample in samples]),
            timesteps=torch.tensor([sample.timestep for sample in samples]),
            time_ids=torch.tensor([sample.time_ids for sample in samples], dtype=torch.float32),
            columns={name: _stacked([sample.columns[name] for sample in samples]) for name in first.columns},
            dropped={name: torch.tensor([sample.dropped[name] for sample in samples]) for name in first.dropped},
            input_ids=[] if self.tokenizers is None else self.tokenizers([sample.caption for sample in samples]),
        )


def _stacked(arrays: list[Floats]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


class _Places:
    """A batch sampler without an end, from the state after `seen` samples on."""

    def __init__(self, seen: int, samples: int, batch_size: int, rank: int, world_size: int) -> None:
        self.arguments = (seen, samples, batch_size, rank, world_size)

    def __iter__(self) -> Iterator[list[Place]]:
        return order.batches(*self.arguments)


class Batches:
    """One process's batches, without end; the next one can be read while the last one trains."""

    def __init__(self, source: Iterator[Batch]) -> None:
        self._source = source
        self._reader = ThreadPoolExecutor(1, "data")
        self._upcoming: Future[Batch] | None = None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        upcoming, self._upcoming = self._upcoming, None
        return next(self._source) if upcoming is None else upcoming.result()

    def read_ahead(self) -> None:
        """Starts to read the next batch in a thread.

        To be called before a long operation of torch, such as the backward pass: those leave the interpreter to other
        threads, and only then does reading cost the training thread nothing.
        """
        if self._upcoming is None:
            self._upcoming = self._reader.submit(next, self._source)


def batches(
    samples: Samples, collate: Collate, seen: int, batch_size: int, rank: int, world_size: int, device: torch.device
) -> Batches:
    """This process's batches after `seen` samples of all processes, without end."""
    workers = samples.params.num_workers
    loader: DataLoader[_Sample] = DataLoader(
        samples,
        batch_sampler=_Places(seen, len(samples), batch_size, rank, world_size),
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),  # the loader draws a seed that nothing uses; not from what dropout layers use
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    return Batches(iter(loader))
