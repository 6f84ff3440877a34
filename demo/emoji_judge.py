"""What drawn emoji show of what they were drawn for: label and frame as judges of training's pictures read them, lean and colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapter_trainer.sampling.judge import Judge
from adapter_trainer.sampling.obedience import correlation
from demo import emoji
from demo.emoji import FRAME, Mask, Picture, Style

_LEANS = tuple(number / 20 for number in range(-24, 25))
"""Every 1.75 degrees, and a little further than is ever asked for."""
_COVERED, _BARE = 0.98, 0.02
"""Of a pixel: it shows the ink alone, the ground alone."""


@dataclass(frozen=True)
class Obeyed:
    """Figures of pictures; colour errors are distances in the cube of red, green and blue, whose edges are 1."""

    label: float
    """Share of which the judge reads the label that was asked for."""
    lean: float
    """Correlation of the lean that is read off the picture, knowing which emoji it is to be, with the one that was asked for."""
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
        self._frames = Judge(borders, torch.tensor([int(each.is_framed) for each in pictures]))
        self._shapes = emoji.shapes()
        self._leaning = torch.stack([_leaning(shape) for shape in self._shapes])

    def obeyed(self, asked: Sequence[Picture], images: Tensor) -> Obeyed:
        """Of images [N, 3, SIDE, SIDE] in 0..1 that were drawn for these."""
        drawn = _drawn(images)
        masks = [emoji.coverage(self._shapes[each.label], each.lean, is_framed=each.is_framed) for each in asked]
        shown = [_colours(image, mask) for image, mask in zip(images, masks, strict=True)]
        leans = torch.tensor([[each.lean] for each in asked])
        return Obeyed(
            label=self._labels.accuracy(drawn, torch.tensor([each.label for each in asked])),
            lean=correlation(self._leans(drawn, asked), leans),
            ground=_mean_distance([each.ground for each in shown], [each.style.ground for each in asked]),
            ink=_mean_distance([each.ink for each in shown], [each.style.ink for each in asked]),
            word=self._frames.accuracy(_borders(images), torch.tensor([int(each.is_framed) for each in asked])),
        )

    def _leans(self, drawn: Tensor, asked: Sequence[Picture]) -> Tensor:
        """The lean at which the asked emoji is most like each of [N, D]: [N, 1]."""
        emoji_asked = self._leaning[torch.tensor([each.label for each in asked])]
        likeness = (emoji_asked @ _normalized(drawn)[:, :, None])[..., 0]
        return torch.tensor(_LEANS)[likeness.argmax(1)][:, None]


def _leaning(shape: Mask) -> Tensor:
    """An emoji at each of _LEANS, as `_drawn` sees pictures: [leans, D]."""
    masks = [torch.from_numpy(emoji.coverage(shape, lean, is_framed=False)) for lean in _LEANS]
    return _normalized(torch.stack(masks)[:, FRAME:-FRAME, FRAME:-FRAME].flatten(1))


def _normalized(drawn: Tensor) -> Tensor:
    centred = drawn - drawn.mean(1, keepdim=True)
    unit: Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit


def _from_ground(images: Tensor) -> Tensor:
    """How far each pixel is from the ground, as a share of how far the ink is: [N, SIDE, SIDE]."""
    ring = torch.zeros(images.shape[-2:], dtype=torch.bool)
    ring[FRAME:-FRAME, FRAME:-FRAME] = True
    inner = FRAME + 2
    ring[inner:-inner, inner:-inner] = False  # few emoji reach so far out
    ground = images[:, :, ring].median(dim=-1).values[:, :, None, None]
    distance = (images - ground).norm(dim=1)
    share: Tensor = distance / distance.flatten(1).quantile(0.95, dim=1).clamp_min(1e-3)[:, None, None]
    return share


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
