"""Turns a place in the sample order into a sample of tensors, including everything that is random about it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from adapter_api.data import DataParams
from adapter_trainer.data import order
from adapter_trainer.data.cache.encodings import Encodings
from adapter_trainer.data.images import Floats, Pixels, Size, cut, place, reference_image, stacked
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.order import Order, Place
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.data.verify import read_embedding
from adapter_trainer.errors import InvalidData
from adapter_trainer.model.encoders import Tokenizers
from adapter_trainer.model.objective import with_offset

SMALL_IMAGE_PIXELS = 64 * 64
"""Pixels up to which images are kept decoded: for these, opening the file costs more than everything else."""
KEPT_IMAGES = 65_536


@dataclass(frozen=True)
class SampleShape:
    """The shape and settings of samples that the model needs."""

    latents: tuple[int, int, int]
    """Channels, height and width of a square sample's latents."""
    timesteps: int
    reference_size: int | None
    """Height and width of reference images, in pixels; None without an image encoder."""
    dropouts: dict[str, float]
    """Share of samples that lose each condition, by condition."""
    joint_dropout: float | None = None
    """Share of samples that lose all conditions, if one draw decides for all of them; otherwise None."""
    offset_noise: float = 0.0
    """Standard deviation of the offset that is added to all noise of a channel."""


def dropped_of(shape: SampleShape, draws: NDArray[np.float64]) -> dict[str, bool]:
    """Returns which conditions a sample loses.

    Args:
        shape: The samples' shape, with the shares.
        draws: A number from [0, 1) for each condition. If conditions are dropped by one draw, only the first counts.
    """
    if shape.joint_dropout is None:
        return {name: bool(draw < share) for (name, share), draw in zip(shape.dropouts.items(), draws, strict=True)}
    dropped, end = dict.fromkeys(shape.dropouts, False), 0.0
    for name, share in shape.dropouts.items():
        begin, end = end, end + share
        dropped[name] = bool(begin <= draws[0] < end)
    if dropped and end <= draws[0] < end + shape.joint_dropout:
        return dict.fromkeys(dropped, True)
    return dropped


@dataclass
class Batch:
    """The samples of one process and one forward pass."""

    images: Tensor | None
    """[B, C, H, W] in -1..1; None if `encoded` has the latents."""
    noise: Tensor
    """[B, *latents], standard normal: the noise that the objective adds."""
    posterior_noise: Tensor
    """[B, *latents], standard normal: the noise that draws from the first stage's posterior."""
    timesteps: Tensor
    """[B], int64."""
    time_ids: Tensor
    """[B, 6]."""
    columns: dict[str, Tensor]
    dropped: dict[str, Tensor]
    """By condition: whether each sample loses it, [B] bool."""
    input_ids: list[Tensor]
    """Caption tokens [B, L] for each text encoder."""
    indices: Tensor
    """[B], int64: indices of the samples' rows in the table."""
    encoded: dict[str, Tensor] = field(default_factory=dict)
    """Encodings that the cache provides, by the names of `Encodings.of_row`, [B, ...]."""
    shares: Tensor | None = None
    """[B]: weight of each sample, if some are read several times per epoch to fill batches; None if all weigh the same."""

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device; copies from pinned memory do not wait."""
        if device.type == "cpu":
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Returns the batch in page-locked memory. The data loader calls this method by name."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(
            None if self.images is None else function(self.images),
            function(self.noise),
            function(self.posterior_noise),
            function(self.timesteps),
            function(self.time_ids),
            {name: function(tensor) for name, tensor in self.columns.items()},
            {name: function(tensor) for name, tensor in self.dropped.items()},
            [function(tensor) for tensor in self.input_ids],
            function(self.indices),
            {name: function(tensor) for name, tensor in self.encoded.items()},
            None if self.shares is None else function(self.shares),
        )


@dataclass
class _Sample:
    """One sample as NumPy arrays, until samples are stacked: tensors for every part of it would cost more than the parts."""

    index: int
    pixels: Pixels | None
    noise: Floats
    """[2, *latents]: the noise that the objective adds, and the noise that draws from the first stage's posterior."""
    timestep: int
    time_ids: tuple[int, ...]
    columns: dict[str, Floats]
    dropped: dict[str, bool]
    caption: str
    encoded: dict[str, Tensor]
    share: float


class Samples(Dataset[_Sample]):
    """The samples, by place: a place gives the same tensors in any process and any run."""

    def __init__(
        self,
        rows: list[Row],
        params: DataParams,
        widths: dict[str, int | None],
        shape: SampleShape,
        seed: int,
        layout: "Layout | None" = None,
        encodings: Encodings | None = None,
    ) -> None:
        """`widths` are the columns' widths, by name; None for reference images. By default every sample is a square."""
        self.rows = rows
        self.params = params
        self.widths = widths
        self.shape = shape
        self.seed = seed
        self.layout = layout or Layout.of_squares(len(rows), params.resolution, seed)
        self.encodings = encodings
        self.encoded_columns = set() if encodings is None else {column for column, _ in encodings.features.values()}
        self.decoded: dict[Path, Pixels] = {}

    def __len__(self) -> int:
        """Number of places in one epoch."""
        return self.layout.order.length

    def __getitem__(self, at: Place) -> _Sample:
        """Returns the sample at a place of the order.

        Raises:
            InvalidData: A file of the sample cannot be read; names the file.
        """
        index = self.layout.order.index_at(at)
        row = self.rows[index]
        try:
            return self._sample(index, at)
        except InvalidData as error:
            raise InvalidData(f"line {row.line}: {error}") from None
        except MemoryError:
            raise InvalidData(f"line {row.line}: there is not enough memory for {row.image.name}; shrink it") from None
        except (OSError, ValueError) as error:
            raise InvalidData(f"line {row.line}: {row.image.name} cannot be read: {error}; replace it") from error

    def _sample(self, index: int, at: Place) -> _Sample:
        row, size = self.rows[index], self.layout.sizes[index]
        random = order.generator_at(self.seed, at, "sample")
        channels, side, _ = self.shape.latents
        factor = self.params.resolution // side
        latents = (channels, size[0] // factor, size[1] // factor)
        noise = random.standard_normal((2, *latents), dtype=np.float32)
        if self.shape.offset_noise:
            levels = order.generator_at(self.seed, at, "offset").standard_normal(channels, dtype=np.float32)
            noise[0] = with_offset(noise[0], levels, self.shape.offset_noise)
        timestep = int(random.integers(self.shape.timesteps))
        dropped = dropped_of(self.shape, random.random(len(self.shape.dropouts)))
        caption = self._caption(row, at)
        pixels, time_ids, encoded = self._picture(row, size, caption, random)
        columns = {name: self._column(row, name) for name in row.values if name not in self.encoded_columns}
        if self.shape.reference_size is not None and "image" not in self.encoded_columns:
            columns["image"] = reference_image(Image.fromarray(self.pixels(row.image)), self.shape.reference_size)
        share = self.layout.order.share_at(at)
        return _Sample(index, pixels, noise, timestep, time_ids, columns, dropped, caption, encoded, share)

    def _caption(self, row: Row, at: Place) -> str:
        """Returns the sample's caption, or one of several, drawn from a stream of its own: all else is as with one caption."""
        if not row.other_captions:
            return row.caption
        return row.captions[int(order.generator_at(self.seed, at, "caption").integers(len(row.captions)))]

    def _picture(
        self, row: Row, size: Size, caption: str, random: np.random.Generator
    ) -> tuple[Pixels | None, tuple[int, ...], dict[str, Tensor]]:
        """Returns pixels (None if the latents are cached), the micro-conditions, and the cached encodings."""
        if self.encodings is None:
            source = self.pixels(row.image)
            placement = place((source.shape[0], source.shape[1]), size, self.params, random)
            return cut(source, placement), placement.time_ids, {}
        placement = place(self.encodings.contents[row.image].size, size, self.params, random)
        encoded = self.encodings.of_row(row, size, caption, flip=placement.flip)
        pixels = None if self.encodings.has_latents else cut(self.pixels(row.image), placement)
        return pixels, placement.time_ids, encoded

    def pixels(self, path: Path) -> Pixels:
        """Returns an image in the configured mode, unscaled; small images are kept."""
        if (kept := self.decoded.get(path)) is not None:
            return kept
        pixels = np.asarray(open_picture(path, self.params.background).convert(self.params.image_mode))
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
            return reference_image(open_picture(value, self.params.background), self.shape.reference_size or 224)
        vector = read_embedding(value)
        if len(vector) != width:  # with data.params.verify: none, nobody has looked before
            raise InvalidData(f"{name}: {value.name} has {len(vector)} numbers, not {width}")
        return vector


@dataclass(frozen=True)
class Layout:
    """The order of samples, and the height and width of each."""

    order: Order
    sizes: list[Size]
    """Height and width in pixels, by index of the sample."""

    @classmethod
    def of_squares(cls, samples: int, resolution: int, seed: int) -> "Layout":
        """Returns the layout in which every sample is a square."""
        return cls(order.Shuffled(seed, samples), [(resolution, resolution)] * samples)


class Collate:
    """Makes a batch of samples. It holds the tokenizers, so data workers tokenize."""

    def __init__(self, tokenizers: Tokenizers | None) -> None:
        self.tokenizers = tokenizers

    def __call__(self, samples: list[_Sample]) -> Batch:
        """Stacks samples."""
        first = samples[0]
        pictures = [sample.pixels for sample in samples if sample.pixels is not None]
        noise, posterior_noise = torch.from_numpy(np.stack([sample.noise for sample in samples], axis=1))
        return Batch(
            images=torch.from_numpy(stacked(pictures)) if pictures else None,
            noise=noise,
            posterior_noise=posterior_noise,
            timesteps=torch.tensor([sample.timestep for sample in samples]),
            time_ids=torch.tensor([sample.time_ids for sample in samples], dtype=torch.float32),
            columns={name: _stacked([sample.columns[name] for sample in samples]) for name in first.columns},
            dropped={name: torch.tensor([sample.dropped[name] for sample in samples]) for name in first.dropped},
            input_ids=[] if self.tokenizers is None else self.tokenizers([sample.caption for sample in samples]),
            indices=torch.tensor([sample.index for sample in samples]),
            encoded={name: torch.stack([sample.encoded[name] for sample in samples]) for name in first.encoded},
            shares=_shares([sample.share for sample in samples]),
        )


def _shares(shares: list[float]) -> Tensor | None:
    return None if all(share == 1 for share in shares) else torch.tensor(shares, dtype=torch.float32)


def _stacked(arrays: list[Floats]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


class _Places:
    """A batch sampler without an end, from the state after `seen` samples on."""

    def __init__(self, seen: int, samples: int, batch_size: int, rank: int, world_size: int) -> None:
        self.arguments = (seen, samples, batch_size, rank, world_size)

    def __iter__(self) -> Iterator[list[Place]]:
        return order.batches(*self.arguments)


class Batches:
    """One process's batches, without end; the next one can be read while the present one is trained on."""

    def __init__(self, source: Iterator[Batch]) -> None:
        self._source = source
        self._reader = ThreadPoolExecutor(1, "data")
        self._upcoming: Future[Batch] | None = None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        upcoming, self._upcoming = self._upcoming, None
        try:
            return next(self._source) if upcoming is None else upcoming.result()
        except InvalidData as error:
            # What a data worker raises arrives with its traceback before it.
            raise InvalidData(str(error).rpartition(f"{InvalidData.__module__}.InvalidData: ")[2].strip()) from None

    def read_ahead(self) -> None:
        """Starts to read the next batch in a thread.

        Call it before a long operation of torch, such as the backward pass: such operations release the interpreter's
        lock, and only then does reading cost the training thread nothing.
        """
        if self._upcoming is None:
            self._upcoming = self._reader.submit(next, self._source)


def batches(
    samples: Samples, collate: Collate, seen: int, batch_size: int, rank: int, world_size: int, device: torch.device
) -> Batches:
    """Returns this process's batches after `seen` samples of all processes, without end."""
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
