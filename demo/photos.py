"""Forty pictures to try `atj init` on: cuts of four photographs and drawings that installed packages bring along.

`python -m demo.photos photos` writes a folder for each of four classes, and beside each picture its caption (.txt) and its
mean colours at 2 x 2 places (.npy), so that one folder has all that a condition can be read from.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import sklearn.datasets
from PIL import Image

SEED = 0
CUTS = 10
"""Of each picture."""
SMALLEST, LARGEST = 0.55, 0.95
"""Side of a cut, as a share of the picture's shorter one."""


def sources() -> dict[str, Path]:
    """The pictures, by class."""
    photographs = Path(sklearn.datasets.__file__).parent / "images"
    samples = Path(mpl.get_data_path()) / "sample_data"
    return {
        "flower": photographs / "flower.jpg",
        "pagoda": photographs / "china.jpg",
        "portrait": samples / "grace_hopper.jpg",
        "sign": samples / "Minduka_Present_Blue_Pack.png",
    }


def write_photos(folder: Path) -> int:
    """Writes the pictures and what lies beside them; returns how many there are."""
    random = np.random.default_rng(SEED)
    count = 0
    for name, file in sources().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        with Image.open(file) as opened:
            whole = opened.convert("RGB")
        for number in range(CUTS):
            place = folder / name / f"{number}.jpg"
            side = int(min(whole.size) * random.uniform(SMALLEST, LARGEST))
            left, top = int(random.integers(whole.width - side + 1)), int(random.integers(whole.height - side + 1))
            cut = whole.crop((left, top, left + side, top + side))
            cut.save(place, quality=92)
            half = "left" if 2 * left < whole.width - side else "right"
            place.with_suffix(".txt").write_text(f"a {name}, {half} part\n", encoding="utf-8")
            colours = np.asarray(cut.resize((2, 2), Image.Resampling.BOX), np.float32).reshape(-1) / 127.5 - 1
            np.save(place.with_suffix(".npy"), colours)
            count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "photos")
    sys.stdout.write(f"{target}: {write_photos(target)} pictures\n")
