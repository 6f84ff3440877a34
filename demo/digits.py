"""scikit-learn's handwritten digits as a training set of PNG files and pairs files, and as the arrays that judge it.

A fixed third of the digits is held out: it is never written to the training set, so a judge that is fitted on it knows
nothing that training has seen.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

PAIRS = "train.txt"
PERMUTED_PAIRS = "train-permuted.txt"
EMBEDDED_PAIRS = "train-embedded.txt"
EMBEDDING_WIDTH = 16
CLASSES = 10
_HELD_OUT = 1 / 3
_SEED = 20240229
_WHITE = 16.0
"""Largest value in scikit-learn's arrays."""


@dataclass(frozen=True)
class Digits:
    """Handwritten digits."""

    images: NDArray[np.float64]
    """[N, 8, 8] in 0..1, white on black."""
    labels: NDArray[np.int64]
    """[N] in 0..9."""


def load() -> tuple[Digits, Digits]:
    """The digits that training sees, and those that are held out; every class has the same share in both."""
    bunch = load_digits()
    split = train_test_split(
        bunch.images / _WHITE, bunch.target, test_size=_HELD_OUT, random_state=_SEED, stratify=bunch.target
    )
    images, held_out_images, labels, held_out_labels = split
    return Digits(images, labels), Digits(held_out_images, held_out_labels)


def write(folder: Path, digits: Digits) -> None:
    """Writes images/NNNN.png, train.txt, and train-permuted.txt, in which labels and captions go with other images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(digits.images):
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / _name(index))
    labels = [int(label) for label in digits.labels]
    _write_pairs(folder / PAIRS, labels)
    random.Random(_SEED).shuffle(labels)
    _write_pairs(folder / PERMUTED_PAIRS, labels)


def write_embeddings(folder: Path, digits: Digits) -> None:
    """Writes embeddings/NNNN.npy, each image's first principal components, and train-embedded.txt, which names them."""
    (folder / "embeddings").mkdir(parents=True, exist_ok=True)
    flat = digits.images.reshape(len(digits.images), -1)
    components = PCA(EMBEDDING_WIDTH, random_state=0).fit_transform(flat).astype(np.float32)
    lines = []
    for index, (embedding, label) in enumerate(zip(components, digits.labels, strict=True)):
        np.save(folder / f"embeddings/{index:04d}.npy", embedding)
        lines.append(f"{_name(index)}\ta handwritten {label}\t{label}\tembeddings/{index:04d}.npy\n")
    (folder / EMBEDDED_PAIRS).write_text("".join(lines), encoding="utf-8")


def _write_pairs(file: Path, labels: list[int]) -> None:
    lines = [f"{_name(index)}\ta handwritten {label}\t{label}\n" for index, label in enumerate(labels)]
    file.write_text("".join(lines), encoding="utf-8")


def _name(index: int) -> str:
    return f"images/{index:04d}.png"


if __name__ == "__main__":
    seen = load()[0]
    write(Path(sys.argv[1]), seen)
    write_embeddings(Path(sys.argv[1]), seen)
