"""Masks of instances as run lengths: the field `rle` of a TrackedInstance.

The runs go row by row through the box of the instance, on from the end of a row to the start of the
next, background and instance by turns, background first. They add up to the area of the box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Run lengths of a mask inside its box [height, width], [R]; the box has pixels."""
    pixels = mask.ravel()
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = np.zeros(1 + int(pixels[0]), np.intp)  # twice 0: the background before it is empty
    runs = np.diff(np.concatenate([start, ends, [pixels.size]]))
    return runs.astype(np.uint32)


def mask_from_rle(instance: Any) -> NDArray[np.bool_]:
    """Mask of a TrackedInstance, bool [roi.height, roi.width]; all false without runs.

    Its place in the image is `[roi.y_offset:][:roi.height], [roi.x_offset:][:roi.width]`.

    Raises:
        ValueError: the runs do not add up to the roi.
    """
    shape = (instance.roi.height, instance.roi.width)
    runs = np.asarray(instance.rle, np.int64)
    if not len(runs):
        return np.zeros(shape, bool)
    if runs.sum() != shape[0] * shape[1]:
        raise ValueError(
            f"runs of {runs.sum()} pixels in all, wanted {shape[0] * shape[1]} "
            f"for a roi of {shape[1]} x {shape[0]}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)
