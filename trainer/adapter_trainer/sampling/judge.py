"""A judge of pictures that knows the training data only: which label or numbers a picture shows, how alike two pictures are."""

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from torch import Tensor

from adapter_trainer.model.encoders import CLIP_MEAN, CLIP_STD, ImageEncoder

MAX_EXAMPLES = 2000
"""Training samples that it learns from: the kernel matrix grows with their square."""
SMALL_SIDE = 16
"""Height and width in pixels of what is compared where there is no image encoder."""
_RIDGE = 1e-2
_LEAST_DEVIATION = 0.3
"""Of the mean one: a feature that varies less counts as if it varied so much."""
_BATCH = 64


class Features:
    """Pictures as vectors: an image encoder's embeddings, or small pictures where there is none."""

    def __init__(self, encoder: ImageEncoder | None, device: torch.device) -> None:
        self._encoder = encoder
        self._device = device

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """Pictures [N, C, H, W] in 0..1, C of 1 or 3 -> [N, D] of float32 on the CPU."""
        parts = [self._of(part.to(self._device, torch.float32)).cpu() for part in images.split(_BATCH)]
        return torch.cat(parts)

    def _of(self, images: Tensor) -> Tensor:
        if self._encoder is None:
            height, width = (min(SMALL_SIDE, side) for side in images.shape[-2:])
            return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)
        side = self._encoder.image_size
        colours = images.expand(-1, 3, -1, -1)
        pixels = F.interpolate(colours, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
        dtype = next(self._encoder.parameters()).dtype
        embeddings: Tensor = self._encoder(((pixels - mean) / deviation).to(dtype), sequence=False)
        return embeddings.float()


class Reader:
    """Reads numbers off pictures: kernel ridge regression with a Gaussian kernel, solved in one step."""

    def __init__(self, features: Tensor, numbers: Tensor) -> None:
        """Learns from features [N, D] and numbers [N, K]."""
        self._mean, deviation = features.mean(0), features.std(0, correction=0)
        # Where examples hardly differ, a drawn picture is soon far from all of them, and nothing would be read off the rest.
        self._deviation = deviation.clamp_min(max(1e-6, _LEAST_DEVIATION * float(deviation.mean())))
        self._known = self._normalized(features)
        self._offset = numbers.double().mean(0)
        kernel = self._kernel(self._known).double()
        kernel.diagonal().add_(_RIDGE)
        self._weights = torch.linalg.solve(kernel, numbers.double() - self._offset)

    def read(self, features: Tensor) -> Tensor:
        """The numbers that each of [N, D] shows: [N, K] of float64."""
        numbers: Tensor = self._kernel(self._normalized(features)).double() @ self._weights + self._offset
        return numbers

    def _normalized(self, features: Tensor) -> Tensor:
        return (features - self._mean) / self._deviation

    def _kernel(self, features: Tensor) -> Tensor:
        # The width is that of scikit-learn's gamma="scale", on features of unit variance.
        kernel: Tensor = torch.exp(-(torch.cdist(features, self._known) ** 2) / features.shape[1])
        return kernel


class Judge:
    """Reads labels: of the numbers that are read off a picture, one for each label, the largest."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        """Learns from features [N, D] and labels [N] of int64."""
        self._reader = Reader(features, F.one_hot(labels))

    def read(self, features: Tensor) -> Tensor:
        """The label that each of [N, D] shows: [N] of int64."""
        return self._reader.read(features).argmax(1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of [N, D] that is read as its label [N]."""
        return float((self.read(features) == labels).double().mean())


def similarity(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """How alike pictures are: mean cosine of pairs of centred features [N, D], and the same of wrong pairs, for comparison.

    The second is what pictures of this kind have in common anyway.
    """
    centre = theirs.mean(0)
    ours, theirs = F.normalize(ours - centre, dim=1), F.normalize(theirs - centre, dim=1)
    cosines = ours @ theirs.T
    count = len(cosines)
    right = float(cosines.diagonal().mean())
    wrong = float((cosines.sum() - cosines.diagonal().sum()) / max(count * (count - 1), 1))
    return right, wrong
