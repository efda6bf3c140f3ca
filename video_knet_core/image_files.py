"""Image files of any name: OpenCV itself crashes on a path that is no UTF-8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .natural_order import is_hidden

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class FrameError(ValueError):
    """A source of frames that is missing or cannot be read; the message names it."""


def is_image(name: str) -> bool:
    """Whether a file of that name is an image of the user, and none that a system added."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]; FrameError if the file is not an image."""
    image = read_pixels(path)
    if image is None:
        raise FrameError(f"{path} is not an image that OpenCV can read")
    return to_rgb(image)


def to_rgb(image: NDArray) -> NDArray[np.uint8]:
    """OpenCV's BGR [H, W, 3] as RGB."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_pixels(path: Path, flags: int = cv2.IMREAD_COLOR) -> NDArray | None:
    """As `cv2.imread`: None if there is no such file, or none that OpenCV can read."""
    try:
        return decode_pixels(np.fromfile(path, np.uint8), flags)
    except OSError:
        return None


def decode_pixels(data: NDArray[np.uint8], flags: int) -> NDArray | None:
    """As `cv2.imdecode`: None if it is no image that OpenCV can read."""
    try:
        return cv2.imdecode(data, flags) if data.size else None
    except cv2.error:  # larger than it allows
        return None


def write_pixels(path: Path, pixels: NDArray, options: Sequence[int] = ()) -> None:
    """As `cv2.imwrite`; OSError if the file cannot be written."""
    _, data = cv2.imencode(path.suffix, pixels, list(options))
    path.write_bytes(data.tobytes())
