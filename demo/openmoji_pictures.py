"""Held-out emoji as the trained model draws them, beside what they are: from all conditions, some, and none."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adapter_trainer.data.order import Place
from adapter_trainer.sampling.grids import GAP, grid
from adapter_trainer.sampling.sample import Row, Sampler

ALL, NONE = "all four", "nothing"
BATCH = 32
SCALE = 2
"""Side of a pixel in the picture."""
HEAD_SIZE = 12


def selections(columns: Mapping[str, str]) -> dict[str, set[str]]:
    """PURE: the pictures of one emoji, each with the data columns that it is drawn from.

    Args:
        columns: a title for each data column.
    """
    without = {f"without {title}": set(columns) - {name} for name, title in columns.items()}
    alone = {f"only {title}": {name} for name, title in columns.items()}
    return {ALL: set(columns), **without, **alone, NONE: set()}


def draw(sampler: Sampler, emoji: Sequence[Row], columns: Mapping[str, str]) -> dict[str, Tensor]:
    """A picture of each emoji for each of `selections`, all of one emoji from the same noise: [N, 3, H, W] in 0..1.

    Args:
        sampler: draws.
        emoji: the conditions of each, by data column.
        columns: a title for each data column.
    """
    drawn = {}
    places = [Place(number, 0) for number in range(len(emoji))]
    for title, given in selections(columns).items():
        rows = [{name: value for name, value in each.items() if name in given} for each in emoji]
        parts = [
            sampler.draw_at(rows[start : start + BATCH], places[start : start + BATCH])
            for start in range(0, len(rows), BATCH)
        ]
        drawn[title] = torch.cat(parts).clamp(0, 1)
    return drawn


def pictures(files: Sequence[Path]) -> Tensor:
    """Files of one size as [N, 3, H, W] in 0..1."""
    pixels = []
    for file in files:
        with Image.open(file) as image:
            pixels.append(torch.from_numpy(np.array(image.convert("RGB"))))
    return torch.stack(pixels).permute(0, 3, 1, 2).float() / 255


def side_by_side(columns: Mapping[str, Tensor]) -> Image.Image:
    """PURE: a column of pictures under each title, all of the same emoji from left to right."""
    stacked = torch.stack(list(columns.values()), dim=1).flatten(0, 1)
    body = grid(stacked, len(columns), SCALE)
    font = ImageFont.load_default(HEAD_SIZE)
    heads = [title.replace(" ", "\n", 1) for title in columns]
    height = 3 * HEAD_SIZE
    canvas = Image.new("RGB", (body.width, height + body.height), "white")
    canvas.paste(body, (0, height))
    pen, width = ImageDraw.Draw(canvas), stacked.shape[-1] * SCALE + GAP
    for number, head in enumerate(heads):
        pen.multiline_text((number * width + width / 2, height / 2), head, "black", font, anchor="mm", align="center")
    return canvas
