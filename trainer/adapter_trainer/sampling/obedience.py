"""Whether pictures show what they were drawn for: labels and vectors as a judge reads them, colours beside the references'.

The judge knows training's own pictures and nothing else. It sees as an image encoder does whose weights were learnt elsewhere, or
else small pictures: an encoder that the run trains sees what the run needs, and forgets the rest.
"""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor

from adapter_trainer.data.images import reference_image
from adapter_trainer.data.opening import open_picture
from adapter_trainer.data.pairs_table import Row
from adapter_trainer.model.encoders import CLIP_MEAN, CLIP_STD
from adapter_trainer.sampling.judge import MAX_EXAMPLES, Features, Judge, Reader, similarity

COLOURS_SIDE = 16
"""Height and width in pixels of what colours are compared of."""


class Obedience:
    """Judges pictures; what it needs to learn for that it learns when it is first asked, and keeps."""

    def __init__(
        self,
        features: Features,
        training: Sequence[Row],
        references: Sequence[str],
        images_of: Callable[[Sequence[Row]], Tensor],
    ) -> None:
        """What it judges with.

        Args:
            features: what it sees of pictures.
            training: the rows that it learns from.
            references: columns of reference images.
            images_of: gives rows' own images as they are trained on, [N, C, H, W] in 0..1.
        """
        self.features = features
        self._references = references
        self._images_of = images_of
        self._examples = training[:: -(-len(training) // MAX_EXAMPLES)]
        self._known: Tensor | None = None
        self._judges: dict[str, Judge] = {}
        self._readers: dict[str, Reader] = {}

    def figures(self, rows: Sequence[Row], seen: Tensor, colours: Tensor) -> dict[str, float]:
        """Figures by name.

        Args:
            rows: what pictures were drawn for, N of them.
            seen: `features` of the pictures, [N, D].
            colours: `colours_of` the pictures.

        Returns:
            `image_similarity`, and `image_similarity_by_chance` with other rows' images; of the first label `label_accuracy`, and
            `judge_accuracy` on the rows' own images; of each vector `vector_correlation.<column>`, and `judge_correlation.<column>`;
            of each reference `reference_colour_error.<column>`, and the same `_by_chance` with other rows' references.
        """
        own = self.features.of(self._images_of(rows))
        right, wrong = similarity(seen, own)
        found = {"image_similarity": right, "image_similarity_by_chance": wrong}
        kinds = rows[0].values
        if (label := next((name for name, value in kinds.items() if isinstance(value, int)), None)) is not None:
            judge, labels = self._judge(label), torch.tensor([row.values[label] for row in rows])
            found["label_accuracy"] = judge.accuracy(seen, labels)
            found["judge_accuracy"] = judge.accuracy(own, labels)
        for column in (name for name, value in kinds.items() if isinstance(value, tuple)):
            reader, asked = self._reader(column), _vectors(rows, column)
            found[f"vector_correlation.{column}"] = correlation(reader.read(seen), asked)
            found[f"judge_correlation.{column}"] = correlation(reader.read(own), asked)
        return {**found, **reference_errors(rows, self._references, colours)}

    def _judge(self, column: str) -> Judge:
        if column not in self._judges:
            labels = torch.tensor([row.values[column] for row in self._examples])
            self._judges[column] = Judge(self._seen_examples(), labels)
        return self._judges[column]

    def _reader(self, column: str) -> Reader:
        if column not in self._readers:
            self._readers[column] = Reader(self._seen_examples(), _vectors(self._examples, column))
        return self._readers[column]

    def _seen_examples(self) -> Tensor:
        if self._known is None:
            self._known = self.features.of(self._images_of(self._examples))
        return self._known


def _vectors(rows: Sequence[Row], column: str) -> Tensor:
    return torch.tensor([row.values[column] for row in rows], dtype=torch.float64)


def correlation(read: Tensor, asked: Tensor) -> float:
    """PURE: Pearson's of what is read and what was asked for [N, D], the mean over the numbers of a vector; 0 if none varies."""
    read, asked = (each.double() - each.double().mean(0) for each in (read, asked))
    norms = read.norm(dim=0) * asked.norm(dim=0)
    varying = norms > 1e-12
    if not varying.any():
        return 0.0
    return float(((read * asked).sum(0)[varying] / norms[varying]).mean())


def reference_errors(rows: Sequence[Row], columns: Sequence[str], colours: Tensor) -> dict[str, float]:
    """How far the colours of pictures are from their references', and from those of other rows' references."""
    found = {}
    for column in columns:
        references = colours_of(torch.stack([_reference(Path(str(row.values[column]))) for row in rows]))
        others = references.roll(max(1, len(rows) // 2), 0)
        found[f"reference_colour_error.{column}"] = colour_distance(colours, references)
        found[f"reference_colour_error_by_chance.{column}"] = colour_distance(colours, others)
    return found


def _reference(path: Path) -> Tensor:
    """The part of it that adapters see, [3, COLOURS_SIDE, COLOURS_SIDE] in 0..1."""
    pixels = torch.from_numpy(reference_image(open_picture(path), COLOURS_SIDE))
    return (pixels * torch.tensor(CLIP_STD)[:, None, None] + torch.tensor(CLIP_MEAN)[:, None, None]).clamp(0, 1)


def colours_of(images: Tensor) -> Tensor:
    """PURE: which colours pictures [N, C, H, W] in 0..1 have, wherever they have them: [N, directions, pixels].

    The pixels of each in order along several directions of the colours' space, which together tell any two distributions apart
    (sliced Wasserstein distance, Rabin et al. 2011).
    """
    side = min(COLOURS_SIDE, *images.shape[-2:])
    small = F.adaptive_avg_pool2d(images.float().expand(-1, 3, -1, -1), (side, side)).flatten(2)
    return (_directions() @ small).sort(dim=-1).values


def colour_distance(colours: Tensor, others: Tensor) -> float:
    """PURE: the mean over pictures of how far colours have to be moved to become the others': 0 for the same, 1 from black to white."""
    count = min(colours.shape[-1], others.shape[-1])
    one, other = (F.adaptive_avg_pool1d(each.flatten(0, 1), count) for each in (colours, others))
    # Between black and white the distance along a direction is the sum of its parts.
    return float((one - other).abs().mean() / _directions().sum(1).abs().mean())


def _directions() -> Tensor:
    """Of the axes, and of the diagonals of squares and cube: [13, 3], each of length 1."""
    steps = [each for each in product((0.0, 1.0, -1.0), repeat=3) if next((part for part in each if part), 0) > 0]
    return F.normalize(torch.tensor(steps), dim=1)
