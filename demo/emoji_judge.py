"""What drawn emoji show, of what they were drawn for: label, lean, frame and colours, read by judges of training's pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter_trainer.judge import Judge, Reader
from adapter_trainer.obedience import correlation
from demo import emoji
from demo.emoji import FRAME, Mask, Picture, Style

_COVERED, _BARE = 0.98, 0.02
"""Of a pixel: it shows the ink alone, the ground alone."""


@dataclass(frozen=True)
class Obeyed:
    """Figures of pictures; colour errors are distances in the cube of red, green and blue, whose edges are 1."""

    label: float
    """Share of which the judge reads the label that was asked for."""
    lean: float
    """Correlation of the lean that is read with the one that was asked for."""
    ground: float
    """How far the ground's colour is from the reference's."""
    ink: float
    word: float
    """Share that has a frame where the caption says so, and none where it does not."""


class EmojiJudge:
    """Knows training's pictures: what pictures show, whatever their colours are."""

    def __init__(self, pictures: Sequence[Picture], images: Tensor) -> None:
        """Learns from images [N, 3, SIDE, SIDE] in 0..1."""
        drawn, borders = _drawn(images), _borders(images)
        self._labels = Judge(drawn, torch.tensor([each.label for each in pictures]))
        self._leans = Reader(drawn, torch.tensor([[each.lean] for each in pictures]))
        self._frames = Judge(borders, torch.tensor([int(each.is_framed) for each in pictures]))
        self._shapes = emoji.shapes()

    def obeyed(self, asked: Sequence[Picture], images: Tensor) -> Obeyed:
        """Of images [N, 3, SIDE, SIDE] in 0..1 that were drawn for these."""
        drawn = _drawn(images)
        masks = [emoji.coverage(self._shapes[each.label], each.lean, is_framed=each.is_framed) for each in asked]
        shown = [_colours(image, mask) for image, mask in zip(images, masks, strict=True)]
        leans = torch.tensor([[each.lean] for each in asked])
        return Obeyed(
            label=self._labels.accuracy(drawn, torch.tensor([each.label for each in asked])),
            lean=correlation(self._leans.read(drawn), leans),
            ground=_mean_distance([each.ground for each in shown], [each.style.ground for each in asked]),
            ink=_mean_distance([each.ink for each in shown], [each.style.ink for each in asked]),
            word=self._frames.accuracy(_borders(images), torch.tensor([int(each.is_framed) for each in asked])),
        )


def _from_ground(images: Tensor) -> Tensor:
    """How far each pixel is from the ground, as a share of how far the ink is: [N, SIDE, SIDE]."""
    ring = torch.zeros(images.shape[-2:], dtype=torch.bool)
    ring[FRAME:-FRAME, FRAME:-FRAME] = True
    inner = FRAME + 2
    ring[inner:-inner, inner:-inner] = False  # few emoji reach so far out
    ground = images[:, :, ring].median(dim=-1).values[:, :, None, None]
    distance = (images - ground).norm(dim=1)
    return distance / distance.flatten(1).quantile(0.95, dim=1).clamp_min(1e-3)[:, None, None]


def _drawn(images: Tensor) -> Tensor:
    return _from_ground(images)[:, FRAME:-FRAME, FRAME:-FRAME].flatten(1)


def _borders(images: Tensor) -> Tensor:
    border = torch.ones(images.shape[-2:], dtype=torch.bool)
    border[FRAME:-FRAME, FRAME:-FRAME] = False
    return _from_ground(images)[:, border]


def _colours(image: Tensor, mask: Mask) -> Style:
    """What the picture has where the asked one has nothing but ink, and nothing but ground."""
    covered, bare = torch.from_numpy(mask > _COVERED), torch.from_numpy(mask < _BARE)
    ink, ground = (image[:, where].median(dim=-1).values.tolist() for where in (covered, bare))
    return Style(tuple(ink), tuple(ground))


def _mean_distance(shown: Sequence[emoji.Colour], asked: Sequence[emoji.Colour]) -> float:
    return float(np.linalg.norm(np.array(shown) - np.array(asked), axis=1).mean())
