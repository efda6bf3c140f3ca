"""An image as it comes to one as the engine takes it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def check_image(image: NDArray[np.uint8]) -> None:
    """ValueError unless `image` is uint8 [H, W, 3] with pixels."""
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8, found {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be [H, W, 3], found shape {image.shape}")
    if not image.size:
        raise ValueError(f"image has no pixels, its shape is {image.shape}")


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """To the engine's size by linear interpolation in steps that at most halve an axis.

    In one step, thin things between the pixels that it looks at would be lost; half the size is the
    mean of two pixels. That is several times faster than OpenCV's INTER_AREA.
    """
    while image.shape[:2] != (height, width):
        step = _toward(image.shape[1], width), _toward(image.shape[0], height)
        image = np.asarray(cv2.resize(image, step, interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.ascontiguousarray(image)


def _toward(length: int, wanted: int) -> int:
    """Half of a length, or what is wanted if that is no less."""
    return max(length // 2, wanted) if length > wanted else wanted
