"""Pictures of held-out emoji: which conditions each is drawn from, and where it stands."""

import torch

from demo import openmoji_pictures

COLUMNS = {"lines": "line art", "caption": "caption"}


def test_pictures_are_drawn_from_all_conditions_without_each_from_each_alone_and_from_none() -> None:
    assert openmoji_pictures.selections(COLUMNS) == {
        "all four": {"lines", "caption"},
        "without line art": {"caption"},
        "without caption": {"lines"},
        "only line art": {"lines"},
        "only caption": {"caption"},
        "nothing": set(),
    }


def test_each_emoji_has_a_row_and_each_title_a_column() -> None:
    red = torch.zeros(2, 3, 8, 8)
    red[1, 0] = 1  # the second emoji's
    white = torch.ones(2, 3, 8, 8)
    picture = openmoji_pictures.side_by_side({"the emoji": red, "all four": white})
    heads = picture.height - (2 * 16 + 2)
    assert picture.width == 2 * 16 + 2
    assert [picture.getpixel(place) for place in [(8, heads + 8), (8, heads + 26), (26, heads + 8), (26, heads + 26)]] == [
        (0, 0, 0), (255, 0, 0), (255, 255, 255), (255, 255, 255)
    ]  # fmt: skip
    assert any(picture.getpixel((x, y)) != (255, 255, 255) for x in range(picture.width) for y in range(heads))
