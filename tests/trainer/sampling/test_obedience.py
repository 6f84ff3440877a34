"""Figures of obedience: 1 or 0 where pictures show what they were drawn for, and chance where they show something else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adapter_trainer.data.pairs_table import Row, Value
from adapter_trainer.sampling.judge import Features
from adapter_trainer.sampling.obedience import Obedience, colour_distance, colours_of, correlation

SIDE = 16


def picture(hue: Tensor, height: int) -> Tensor:
    """A bar of one colour on black."""
    image = torch.zeros(3, SIDE, SIDE)
    image[:, SIDE - height :] = hue[:, None, None]
    return image


@pytest.fixture
def rows_and_images(tmp_path: Path) -> tuple[list[Row], Tensor]:
    """Bars whose height is a label and a number, and whose colour is their reference's."""
    generator = torch.Generator().manual_seed(0)
    rows, images = [], []
    for number in range(60):
        height, hue = 2 + number % 4 * 4, torch.rand(3, generator=generator)
        reference = tmp_path / f"{number}.png"
        pixels = picture(hue, height).flip(-1).permute(1, 2, 0)  # the same colours elsewhere
        Image.fromarray(np.rint(pixels.rot90(1, (0, 1)).numpy() * 255).astype(np.uint8)).save(reference)
        values: dict[str, Value] = {"size": number % 4, "height": (height / SIDE, 1.0), "look": reference}
        rows.append(Row(number + 1, reference, "", values))
        images.append(picture(hue, height))
    return rows, torch.stack(images)


def test_pictures_that_show_what_was_asked_for_are_told_from_others(rows_and_images: tuple[list[Row], Tensor]) -> None:
    rows, images = rows_and_images
    known = {row.line: image for row, image in zip(rows, images, strict=True)}

    def images_of(some: Sequence[Row]) -> Tensor:
        return torch.stack([known[row.line] for row in some])

    features = Features(None, torch.device("cpu"))
    judge = Obedience(features, rows, ["look"], images_of)
    obeyed = judge.figures(rows, features.of(images), colours_of(images))
    assert obeyed["label_accuracy"] == obeyed["judge_accuracy"] == 1
    assert obeyed["vector_correlation.height"] == pytest.approx(1, abs=0.01)
    assert obeyed["judge_correlation.height"] == obeyed["vector_correlation.height"]
    assert obeyed["reference_colour_error.look"] < 0.01
    assert obeyed["reference_colour_error_by_chance.look"] > 0.1
    others = images.roll(1, 0)
    ignored = judge.figures(rows, features.of(others), colours_of(others))
    assert ignored["label_accuracy"] == 0
    assert ignored["vector_correlation.height"] < 0.3
    assert ignored["reference_colour_error.look"] > 0.1


def test_colours_are_compared_wherever_they_are_and_whatever_the_pictures_sizes() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert colour_distance(colours_of(image), colours_of(image.flip(-1, -2))) == pytest.approx(0, abs=1e-6)
    black, white, grey = torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), torch.full((1, 1, 8, 8), 0.5)
    assert colour_distance(colours_of(black), colours_of(white)) == pytest.approx(1, abs=1e-6)
    assert colour_distance(colours_of(black), colours_of(grey)) == pytest.approx(0.5, abs=1e-6)


def test_a_correlation_is_of_each_number_and_constant_ones_do_not_count() -> None:
    asked = torch.tensor([[1.0, 5.0, 1.0], [2.0, 5.0, 2.0], [3.0, 5.0, 3.0]])
    assert correlation(asked, asked) == pytest.approx(1)
    assert correlation(torch.cat([asked[:, :2], -asked[:, 2:]], dim=1), asked) == pytest.approx(0)
    assert correlation(torch.ones(3, 1), asked[:, :1]) == 0
