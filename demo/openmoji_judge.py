"""What drawn emoji are worth, each against the emoji that it is to be: distance, likeness, and whether its group shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from adapter_trainer.sampling.judge import Judge, similarity
from demo.openmoji_network import Network


@dataclass(frozen=True)
class Worth:
    """Figures of pictures."""

    distance: float
    """Root mean square of the difference from the emoji, in 0..1."""
    likeness: float
    """Mean cosine of network features with the emoji's, over that with other emoji's: 0 by chance, near 1 for the emoji."""
    group: float
    """Share of which the judge reads the emoji's group."""


class EmojiJudge:
    """Sees as EfficientNet-lite0 does, and has learned the groups from training's emoji."""

    def __init__(self, network: Network, groups: Judge) -> None:
        self._network = network
        self._groups = groups

    @classmethod
    def taught(cls, network: Network, emoji: Tensor, groups: Tensor) -> Self:
        """From emoji [N, 3, H, W] in 0..1, as small as those that will be judged, and their groups [N] of int64."""
        return cls(network, Judge(network.features(emoji), groups))

    def worth(self, drawn: Mapping[str, Tensor], emoji: Tensor, groups: Tensor) -> dict[str, Worth]:
        """Of pictures [N, 3, H, W] under each title, of the same emoji with these groups."""
        theirs = self._network.features(emoji)
        found = {}
        for title, pictures in drawn.items():
            ours = self._network.features(pictures)
            right, wrong = similarity(ours, theirs)
            found[title] = Worth(distance(pictures, emoji), right - wrong, self._groups.accuracy(ours, groups))
        return found


def distance(drawn: Tensor, emoji: Tensor) -> float:
    """PURE: root mean square of the difference between pictures [N, 3, H, W] and the emoji that they are of, in 0..1."""
    return float((drawn - emoji).square().mean().sqrt())
