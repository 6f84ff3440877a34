"""Pictures side by side as one picture, with a title beside each row."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2
TITLE_SIZE, TITLE_MARGIN = 12, 8
LONGEST_TITLE = 40
"""Characters; longer ones are cut."""


def grid(images: Tensor, columns: int, scale: int | None = None) -> Image.Image:
    """Pictures [N, C, H, W] in 0..1, C of 1 or 3, as one picture of `columns` columns with a thin white gap.

    Args:
        images: the pictures.
        columns: pictures a row.
        scale: enlarges each pixel to a square of that many; by default, so that a picture has at least 64 pixels a side.
    """
    scale = scale or max(1, -(-64 // images.shape[-1]))
    bytes_ = (images.clamp(0, 1) * 255).round().byte().cpu().permute(0, 2, 3, 1)
    pixels = bytes_.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2).expand(-1, -1, -1, 3).numpy()
    count, height, width = pixels.shape[:3]
    rows, gap = -(-count // columns), GAP
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return Image.fromarray(canvas)


def titled_grid(images: Tensor, columns: int, titles: Sequence[str], scale: int | None = None) -> Image.Image:
    """The grid of `grid`, with the title of each row to its left."""
    pictures = grid(images, columns, scale)
    font = ImageFont.load_default(TITLE_SIZE)
    shown = [title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1]}…" for title in titles]
    width = int(max(font.getlength(title) for title in shown)) + 2 * TITLE_MARGIN
    canvas = Image.new("RGB", (width + pictures.width, pictures.height), "white")
    canvas.paste(pictures, (width, 0))
    draw = ImageDraw.Draw(canvas)
    height = (pictures.height + GAP) / len(shown)
    for row, title in enumerate(shown):
        place = (width - TITLE_MARGIN - font.getlength(title), row * height + (height - GAP - TITLE_SIZE) / 2)
        draw.text(place, title, fill="black", font=font)
    return canvas
