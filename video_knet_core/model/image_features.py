"""Features of an image by a network trained for another task, for association `appearance`."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .backbone import EfficientNetLite0

LEVEL = 1
"""Stride 8 of the pyramid. Coarser features separate objects on synthetic streets as well, but
those of a small object are mostly of its surroundings: it looks like what stood there before."""


class ImageNetFeatures:
    """EfficientNet-Lite0 with its ImageNet weights, 40 features at stride 8.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.
    """

    def __init__(self) -> None:
        self._network = EfficientNetLite0()
        self._network.load_imagenet()
        self._network.eval()

    @torch.no_grad()
    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB [H, W, 3] -> [40, H / 8, W / 8], rounded up."""
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()[None]
        mean, std = (_column(values) for values in (self._network.mean, self._network.std))
        return self._network((pixels - mean) / std)[LEVEL][0].numpy()


@cache
def imagenet_features() -> ImageNetFeatures:
    """The network, loaded once for all cameras; ModuleNotFoundError as above."""
    return ImageNetFeatures()


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]
