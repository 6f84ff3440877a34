"""What drawn emoji are worth: nothing is missing of the emoji themselves, and what shows another thing is worth less."""

import math

import pytest
import torch
from torch import Tensor

from demo.openmoji_judge import EmojiJudge, distance
from demo.openmoji_network import WIDTH, Network

SIDE = 32


def square(number: int) -> Tensor:
    """On white, red for even numbers and blue for odd ones, at a place of its own."""
    picture = torch.ones(3, SIDE, SIDE)
    top, left = number * 5 % 16, number * 7 % 16
    picture[:, top : top + 16, left : left + 16] = 0
    picture[0 if number % 2 == 0 else 2, top : top + 16, left : left + 16] = 1
    return picture


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


def test_features_have_one_length_whatever_the_size_of_the_pictures(network: Network) -> None:
    found = network.features(torch.rand(2, 3, SIDE, SIDE))
    assert found.shape == (2, WIDTH)
    assert found.norm(dim=1).tolist() == pytest.approx([math.sqrt(WIDTH)] * 2)


def test_the_distance_is_the_root_mean_square_of_what_differs() -> None:
    emoji = torch.zeros(2, 3, 4, 4)
    half = torch.zeros(2, 3, 4, 4)
    half[0] = 1
    found = [distance(drawn, emoji) for drawn in (emoji, half, emoji + 0.25)]
    assert found == pytest.approx([0, 0.5**0.5, 0.25])


def test_the_emoji_themselves_are_worth_everything_and_others_less(network: Network) -> None:
    known = torch.stack([square(number) for number in range(30)])
    judge = EmojiJudge.taught(network, known, torch.arange(30) % 2)
    emoji, groups = torch.stack([square(number) for number in range(30, 40)]), torch.arange(30, 40) % 2
    others = emoji.roll(1, 0)  # of the other group
    worth = judge.worth({"themselves": emoji, "others": others, "grey": torch.full_like(emoji, 0.5)}, emoji, groups)
    assert worth["themselves"].distance == 0
    assert worth["themselves"].likeness > 0.9
    assert worth["themselves"].group == 1
    assert worth["others"].group == 0
    assert worth["others"].likeness < 0.5
    assert worth["grey"].distance == 0.5
    assert worth["grey"].likeness == pytest.approx(0, abs=0.2)
    assert worth["grey"].group == 0.5
