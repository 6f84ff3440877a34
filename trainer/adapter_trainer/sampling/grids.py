"""Pictures side by side as one picture: a title beside each row and above each column, and what a row refers to at its left."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

GAP = 2
TITLE_SIZE, TITLE_MARGIN, LINE_HEIGHT = 12, 8, 15
TITLE_LETTERS = 30
"""In a line of a row's title; longer titles have several lines."""
LEAST_SIDE = 64
"""Pixels a side that a picture is shown with at least, unless it is said otherwise."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def grid(images: Tensor, columns: int, scale: int | None = None) -> Image.Image:
    """Pictures [N, C, H, W] in 0..1, C of 1 or 3, as one picture of `columns` columns with a thin white gap.

    Args:
        images: the pictures.
        columns: pictures a row.
        scale: enlarges each pixel to a square of that many; by default, so that a picture has at least 64 pixels a side.
    """
    pixels = _pixels(images, scale)
    count, height, width = pixels.shape[:3]
    rows, gap = -(-count // columns), GAP
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return Image.fromarray(canvas)


def resized(images: Tensor, size: int) -> Tensor:
    """PURE: pictures [N, C, H, W] as wide as `size`; pixels become squares where they can, so that nothing is invented."""
    width = images.shape[-1]
    if size % width == 0:
        return images.repeat_interleave(size // width, dim=-1).repeat_interleave(size // width, dim=-2)
    height = max(1, round(images.shape[-2] * size / width))
    return F.interpolate(images.float(), (height, size), mode="bicubic", antialias=True).clamp(0, 1)


def titled_grid(
    images: Tensor,
    columns: int,
    titles: Sequence[str],
    scale: int | None = None,
    *,
    heads: Sequence[str] = (),
    references: Mapping[str, Sequence[Image.Image | None]] | None = None,
) -> Image.Image:
    """The grid of `grid`, with what it shows written beside it; rows are as high as their titles need.

    Args:
        images: the pictures.
        columns: pictures a row.
        titles: one for each row, to its left; in several lines where it is long.
        scale: as of `grid`.
        heads: one for each column, above it; none, no line for them.
        references: by their own head, pictures that stand between title and row; None leaves the place empty.
    """
    pixels = _pixels(images, scale)
    height, width = pixels.shape[1:3]
    beside = references or {}
    font = ImageFont.load_default(TITLE_SIZE)
    lines = [textwrap.wrap(title, TITLE_LETTERS) or [""] for title in titles]
    heights = [max(height, len(each) * LINE_HEIGHT) for each in lines]
    tops = [sum(heights[:row]) + row * GAP for row in range(len(lines))]
    above = _heads([*beside, *heads], width, font) if heads or beside else []
    top = max((len(each) for each in above), default=0) * LINE_HEIGHT + (TITLE_MARGIN // 2 if above else 0)
    left = int(max(font.getlength(line) for each in lines for line in each)) + 2 * TITLE_MARGIN
    start = left + len(beside) * (width + GAP) + (TITLE_MARGIN if beside else 0)
    size = (start + columns * (width + GAP) - GAP, top + tops[-1] + heights[-1])
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    places = [left + number * (width + GAP) for number in range(len(beside))]
    places += [start + number * (width + GAP) for number in range(columns)]
    for place, text in zip(places, above, strict=False):
        _write(draw, text, place + width / 2, top - TITLE_MARGIN // 2 - len(text) * LINE_HEIGHT, font, "ma")
    for row, text in enumerate(lines):
        first = top + tops[row] + (heights[row] - len(text) * LINE_HEIGHT) / 2
        _write(draw, text, left - TITLE_MARGIN, first, font, "ra")
        middle = top + tops[row] + (heights[row] - height) // 2
        for place, pictures in zip(places, beside.values(), strict=False):
            if (picture := pictures[row]) is not None:
                canvas.paste(ImageOps.fit(picture.convert("RGB"), (width, height)), (place, middle))
        for column, picture in enumerate(pixels[row * columns : (row + 1) * columns]):
            canvas.paste(Image.fromarray(picture), (places[len(beside) + column], middle))
    return canvas


def _pixels(images: Tensor, scale: int | None) -> np.ndarray:
    """[N, H, W, 3] of bytes, each pixel enlarged."""
    scale = scale or max(1, -(-LEAST_SIDE // images.shape[-1]))
    bytes_ = (images.clamp(0, 1) * 255).round().byte().cpu().permute(0, 2, 3, 1)
    found: np.ndarray = (
        bytes_.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2).expand(-1, -1, -1, 3).numpy()
    )
    return found


def _heads(heads: Sequence[str], width: int, font: Font) -> list[list[str]]:
    """Each in lines that are as narrow as its column, where words are."""
    letters = max(4, int(width / font.getlength("n")))
    return [textwrap.wrap(head, letters) or [""] for head in heads]


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], x: float, y: float, font: Font, anchor: str) -> None:
    for number, line in enumerate(lines):
        draw.text((x, y + number * LINE_HEIGHT), line, fill="black", font=font, anchor=anchor)
