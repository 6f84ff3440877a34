"""A judge of handwritten digits that has seen nothing of what training saw."""

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from demo.digits import Digits


class Judge:
    """A support vector classifier over pixels."""

    def __init__(self, held_out: Digits) -> None:
        self._classifier = SVC(C=10.0, gamma="scale").fit(_flat(held_out.images), held_out.labels)

    def accuracy(self, images: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
        """Share of the images [N, 8, 8] in 0..1 that the judge reads as their labels [N]."""
        return float(self._classifier.score(_flat(images), labels))


def _flat(images: NDArray[np.floating]) -> NDArray[np.floating]:
    return images.reshape(len(images), -1)
