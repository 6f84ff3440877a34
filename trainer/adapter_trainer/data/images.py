"""Pictures as arrays: where they are cut, how they are scaled, and what encoders of reference images read."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapter_api.data import DataParams
from adapter_trainer.model.encoders import CLIP_MEAN, CLIP_STD

Pixels = NDArray[np.uint8]
"""[H, W] or [H, W, C]."""
Floats = NDArray[np.float32]
Size = tuple[int, int]
"""Height and width in pixels."""

MOST_SCALED = 4
"""Times the pixels that are kept: so many may be scaled at once."""

_CLIP_MEAN = np.array(CLIP_MEAN, np.float32)[:, None, None]
_CLIP_STD = np.array(CLIP_STD, np.float32)[:, None, None]


class Placement(NamedTuple):
    """Which part of a picture a sample shows."""

    original: Size
    scaled: Size
    """Of the whole picture, before it is cropped."""
    top: int
    left: int
    size: Size
    """Of the crop."""
    flip: bool

    @property
    def time_ids(self) -> tuple[int, ...]:
        """SDXL's micro-conditioning: original height and width, crop top and left, target height and width.

        A flip mirrors where the crop was taken from (arXiv 2307.01952, section 2.2).
        """
        left = self.scaled[1] - self.size[1] - self.left if self.flip else self.left
        return (*self.original, self.top, left, *self.size)


def place(original: Size, size: Size, params: DataParams, random: np.random.Generator | None) -> Placement:
    """PURE but for the draws: scales a picture so that it just covers `size`, and says where to crop the rest.

    Args:
        original: height and width of the picture.
        size: height and width of the sample.
        params: say whether crop and flip are random.
        random: draws crop and flip where the configuration asks for them; None crops at the centre.
    """
    centred = _centred(original, size)
    if random is None or not (params.random_crop or params.random_flip):
        return centred
    top, left = centred.top, centred.left
    if params.random_crop:
        spare = (centred.scaled[0] - size[0], centred.scaled[1] - size[1])
        top, left = int(random.integers(spare[0] + 1)), int(random.integers(spare[1] + 1))
    return centred._replace(top=top, left=left, flip=params.random_flip and bool(random.integers(2)))


@lru_cache(maxsize=4096)
def _centred(original: Size, size: Size) -> Placement:
    scale = max(size[0] / original[0], size[1] / original[1])
    scaled = max(round(original[0] * scale), size[0]), max(round(original[1] * scale), size[1])
    return Placement(original, scaled, (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2, size, flip=False)


def cut(source: Pixels, placement: Placement) -> Pixels:
    """The placement's part of a picture, of the placement's size."""
    corner = (placement.top, placement.left)
    if placement.scaled == source.shape[:2]:
        pixels = _crop(source, corner, placement.size)
    else:
        pixels = part(Image.fromarray(source), placement.scaled, Image.Resampling.LANCZOS, corner, placement.size)
    return pixels[:, ::-1] if placement.flip else pixels


def part(image: Image.Image, whole: Size, resample: Image.Resampling, corner: Size, size: Size) -> Pixels:
    """What a crop of the whole picture, scaled, would show, bit for bit, without keeping more than a few times as much.

    Args:
        image: L or RGB.
        whole: height and width that all of the picture would be scaled to.
        resample: the filter.
        corner: top and left of the crop.
        size: its height and width.
    """
    (height, width), (top, left), (rows, columns) = whole, corner, size
    # Pillow scales rows first, then columns, each by itself: so the crop may come between.
    if width != image.width:
        image = image.resize((width, image.height), resample)
    if (left, columns) != (0, width):
        image = image.crop((left, 0, left + columns, image.height))
    if height == image.height:
        return _crop(np.asarray(image), (top, 0), size)
    step = max(1, MOST_SCALED * rows * columns // height)
    strips = []
    for at in range(0, columns, step):
        strip = image.crop((at, 0, min(at + step, columns), image.height))
        strips.append(np.asarray(strip.resize((strip.width, height), resample).crop((0, top, strip.width, top + rows))))
    return strips[0] if len(strips) == 1 else np.concatenate(strips, axis=1)


def _crop(pixels: Pixels, corner: Size, size: Size) -> Pixels:
    return pixels[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]


def place_image(
    source: Pixels, params: DataParams, random: np.random.Generator | None
) -> tuple[Pixels, tuple[int, ...]]:
    """A square of the resolution, and its micro-conditioning."""
    size = (params.resolution, params.resolution)
    placement = place((source.shape[0], source.shape[1]), size, params, random)
    return cut(source, placement), placement.time_ids


def scaled(pixels: Pixels) -> Floats:
    """Pixels [..., H, W, C] -> [..., C, H, W] in -1..1."""
    return np.moveaxis(pixels, -1, -3).astype(np.float32, order="C") / np.float32(127.5) - np.float32(1)


def stacked(pictures: list[Pixels]) -> Floats:
    """Pictures of one size, with or without channels -> [B, C, H, W] in -1..1."""
    pixels = np.stack(pictures)
    return scaled(pixels[..., None] if pixels.ndim == 3 else pixels)


def reference_image(image: Image.Image, size: int) -> Floats:
    """CLIP's preprocessing: shorter side to `size`, centre crop, its mean and deviation; [3, size, size]."""
    shorter, longer = min(image.size), max(image.size)
    other = int(size * longer / shorter)  # cut off, not rounded, as CLIP's own processor does
    height, width = (size, other) if image.width >= image.height else (other, size)
    corner = ((height - size) // 2, (width - size) // 2)
    pixels = scaled(part(image.convert("RGB"), (height, width), Image.Resampling.BICUBIC, corner, (size, size)))
    normalized: Floats = (pixels / np.float32(2) + np.float32(0.5) - _CLIP_MEAN) / _CLIP_STD
    return normalized
