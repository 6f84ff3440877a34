"""One picture that explains itself: references at the left, ten emoji and one emoji's leans beside each, and what fails without.

`python -m demo.emoji_picture` draws it from what `make demo` has left, for docs/demo.png.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from adapter_trainer.data.order import Place
from adapter_trainer.sampling.grids import LINE_HEIGHT, titled_grid
from adapter_trainer.sampling.sample import Row, Sampler, load
from atj.results.sample import at_hand
from demo import emoji
from demo.emoji import FRAMED, MOST_DEGREES, NAMES, PLAIN

PHOTOGRAPHS = ("flower.jpg", "china.jpg")
"""Of scikit-learn, by danielbuechele and vultilion under CC BY 2.0: photographs, of which training has seen none."""
LEANS = (-1.0, -0.5, 0.0, 0.5, 1.0)
LEANING = NAMES.index("umbrella")
GUIDANCE = 1.5
SCALE = 2
"""Pixels a side that each pixel is shown with."""
SEED = 3


@dataclass(frozen=True)
class Line:
    """A row of the picture."""

    title: str
    reference: Path
    word: str
    without: frozenset[str] = field(default_factory=frozenset)
    """Columns that are not given."""

    def cells(self) -> list[Row]:
        """What each picture is drawn from: the emoji upright, then one of them leaning."""
        given = [(label, 0.0) for label in range(len(NAMES))] + [(LEANING, lean) for lean in LEANS]
        rows: list[dict[str, int | str | tuple[float, ...]]] = [
            {"emoji": label, "lean": (lean,), "reference": str(self.reference), "caption": self.word}
            for label, lean in given
        ]
        return [{name: value for name, value in row.items() if name not in self.without} for row in rows]


def lines(data: Path, photographs: Sequence[Path]) -> list[Line]:
    """Rows with all conditions, on references that training has not seen; then one without each condition."""
    held_out = [data / picture.file for picture in emoji.pictures(emoji.STYLES, emoji.HELD_OUT_STYLES, emoji.SEED)]
    first, second = photographs
    whole = [
        Line(f'photograph, "{PLAIN}"', first, PLAIN),
        Line(f'new colours, "{FRAMED}"', held_out[1], FRAMED),
        Line(f'photograph, "{FRAMED}"', second, FRAMED),
        Line(f'new colours, "{PLAIN}"', held_out[13], PLAIN),
    ]
    return [
        *whole,
        Line("without reference", first, PLAIN, frozenset({"reference"})),
        Line("without label", first, PLAIN, frozenset({"emoji"})),
        Line("without lean", held_out[1], FRAMED, frozenset({"lean"})),
        Line("without word", second, FRAMED, frozenset({"caption"})),
    ]


def draw(sampler: Sampler, data: Path) -> Image.Image:
    """The picture."""
    with tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        photographs = []
        for name in PHOTOGRAPHS:
            photographs.append(Path(scratch) / name)
            Image.fromarray(load_sample_image(name)).save(photographs[-1])
        rows = lines(data, photographs)
        drawn = []
        for line in rows:
            cells = line.cells()
            images = sampler.draw_at(cells, [Place(0, 0)] * len(cells), guidance_scale=GUIDANCE, seed=SEED)
            drawn.append(images.clamp(0, 1).cpu())
        references: list[Image.Image | None] = []
        for line in rows:
            given = "reference" not in line.without
            references.append(_opened(line.reference) if given else None)
    images = torch.stack(drawn)
    count = len(NAMES)
    left = titled_grid(images[:, :count].flatten(0, 1), count, [line.title for line in rows], SCALE,
                       heads=NAMES, references={"reference": references})  # fmt: skip
    degrees = [f"{lean * MOST_DEGREES:+.0f}°" if lean else "0°" for lean in LEANS]
    right = titled_grid(images[:, count:].flatten(0, 1), len(LEANS), [""] * len(rows), SCALE, heads=degrees)
    canvas = Image.new("RGB", (left.width + right.width, left.height + LINE_HEIGHT // 2), "white")
    canvas.paste(left, (0, 0))
    canvas.paste(right, (left.width, left.height - right.height))
    return canvas


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def main() -> int:
    """Draws from an output folder of `make demo`, with few enough colours to be small."""
    parser = argparse.ArgumentParser(prog="python -m demo.emoji_picture")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder that `make demo` has left")
    parser.add_argument("--to", type=Path, default=Path("docs/demo.png"), help="picture to write")
    arguments = parser.parse_args()
    with at_hand(str(arguments.output), None, None, with_models=False) as (folder, _):
        picture = draw(load(folder), arguments.output / "data")
    picture.quantize(256, dither=Image.Dither.NONE).save(arguments.to, optimize=True)
    print(f"{arguments.to}: {picture.width} x {picture.height}, {arguments.to.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
