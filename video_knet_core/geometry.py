"""From the engine's small map to the image: nearest upsampling, and the geometry of regions.

Geometry is read from the small map with the weight each of its rows and columns has in the image,
so it agrees exactly with the pixels of the large map without ever visiting them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels of the image."""


def nearest_aspect(sizes: Sequence[tuple[int, int]], image: tuple[int, int]) -> tuple[int, int]:
    """The one of `sizes` (height, width) whose aspect is nearest to an image's, as a ratio.

    Of those that are equally near, the first.
    """
    height, width = image

    def distance(size: tuple[int, int]) -> float:
        return abs(math.log(size[1] * height / (size[0] * width)))

    return min(sizes, key=distance)


def box_overlap(a: NDArray, b: NDArray) -> NDArray[np.floating]:
    """Intersection over union of boxes x, y, width, height: [N, M] from [N, 4] and [M, 4]."""
    upper_left = np.maximum(a[:, None, :2], b[None, :, :2])
    lower_right = np.minimum(
        a[:, None, :2] + a[:, None, 2:],
        b[None, :, :2] + b[None, :, 2:],
    )
    shared = np.clip(lower_right - upper_left, 0, None).prod(axis=-1)
    union = a[:, None, 2:].prod(axis=-1) + b[None, :, 2:].prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def mask_overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Intersection over union of masks: [N, M] from [N, h, w] and [M, h, w]."""
    # products of float32, which are exact up to 2^24 pixels and much faster than of integers
    pixels = math.prod(a.shape[1:])
    flat_a, flat_b = (masks.reshape(-1, pixels).astype(np.float32) for masks in (a, b))
    shared = (flat_a @ flat_b.T).astype(np.float64)
    union = flat_a.sum(axis=1)[:, None] + flat_b.sum(axis=1) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


@dataclass(frozen=True)
class Regions:
    """Geometry of R regions in image pixels; a region without pixels has zeros and False."""

    areas: NDArray[np.int64]
    """[R] pixels."""
    boxes: NDArray[np.int64]
    """[R, 4] x, y, width, height of the tight box."""
    centroids: NDArray[np.float64]
    """[R, 2] mean x, y; the centre of the upper left pixel is (0, 0)."""
    truncated: NDArray[np.bool_]
    """[R] the box touches the border of the image."""

    def take(self, index: NDArray[np.int64]) -> Regions:
        """The regions at `index`, in that order."""
        return Regions(
            self.areas[index],
            self.boxes[index],
            self.centroids[index],
            self.truncated[index],
        )


NO_REGIONS = Regions(
    areas=np.zeros(0, np.int64),
    boxes=np.zeros((0, 4), np.int64),
    centroids=np.zeros((0, 2)),
    truncated=np.zeros(0, np.bool_),
)


class NearestUpsampling:
    """Nearest-neighbour resize of [h, w] maps to [H, W], pixel centres aligned; any sizes."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.source, self.target = source, target
        self._rows = _Axis(source[0], target[0])
        self._columns = _Axis(source[1], target[1])
        # per map position, flattened: where it is, and the image columns and rows made from it
        self._row_of, self._column_of = (index.ravel() for index in np.indices(source))
        self._wide = self._columns.weight[self._column_of]
        self._tall = self._rows.weight[self._row_of]

    def enlarge(
        self, small: NDArray, box: Box | None = None, out: NDArray | None = None
    ) -> NDArray:
        """The [h, w] map at [H, W], or only what is inside a box there: [height, width].

        It is written into `out`, if that is given: an array of this shape and the type of the map.
        """
        x, y, width, height = box or (0, 0, self.target[1], self.target[0])
        wide = np.take(small, self._columns.index[x : x + width], axis=1)
        rows = self._rows.index[y : y + height]
        return np.take(wide, rows, axis=0, out=out, mode="clip")  # "raise" would buffer `out`

    def measure(self, small: NDArray, count: int) -> Regions:
        """Geometry in the image of the regions 1..count of a [h, w] map (0 = no region)."""
        height, width = self.source
        region = small.ravel().astype(np.int64, copy=False)
        in_row = np.bincount(
            region * height + self._row_of, self._wide, minlength=(count + 1) * height
        ).reshape(-1, height)[1:]
        in_column = np.bincount(
            region * width + self._column_of, self._tall, minlength=(count + 1) * width
        ).reshape(-1, width)[1:]
        return self._regions(in_row, in_column)

    def measure_masks(self, masks: NDArray[np.uint8], present: NDArray[np.bool_]) -> Regions:
        """Geometry in the image of masks [R, h, w] of 0 and 1, which may overlap.

        Those that are not `present` [R] are taken to be empty, whatever they hold.
        """
        chosen = masks[present]
        in_row, in_column = (np.zeros((len(masks), size)) for size in self.source)
        in_row[present] = chosen @ self._columns.weight
        in_column[present] = self._rows.weight @ chosen
        return self._regions(in_row, in_column)

    def _regions(self, in_row: NDArray, in_column: NDArray) -> Regions:
        """From [R, h] and [R, w]: image pixels of a region in one image line of each position."""
        y, tall, mean_y = self._rows.extent(in_row)
        x, wide, mean_x = self._columns.extent(in_column)
        height, width = self.target
        touches = (x == 0) | (y == 0) | (x + wide == width) | (y + tall == height)
        return Regions(
            areas=(in_row @ self._rows.weight).astype(np.int64),
            boxes=np.stack([x, y, wide, tall], axis=1),
            centroids=np.stack([mean_x, mean_y], axis=1),
            truncated=touches & (wide > 0),
        )


_upsampling = lru_cache(maxsize=4)(NearestUpsampling)


@dataclass(frozen=True)
class LabelMap:
    """A label for each pixel of an image, kept at the size of the engine's map."""

    small: NDArray[np.uint16]
    """[h, w]"""
    upsampling: NearestUpsampling
    """From there to the image, [H, W]."""

    @classmethod
    def of(cls, labels: NDArray[np.uint16]) -> LabelMap:
        """From labels [H, W] of the image's own size."""
        size = (labels.shape[0], labels.shape[1])
        return cls(labels, NearestUpsampling(size, size))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.upsampling.target

    def at_size(self, size: tuple[int, int]) -> LabelMap:
        """The same for a picture of another size (H, W)."""
        return LabelMap(self.small, _upsampling(self.upsampling.source, size))

    def enlarge(self, out: NDArray | None = None) -> NDArray[np.uint16]:
        """[H, W] labels, written into `out` if that is given."""
        return self.upsampling.enlarge(self.small, out=out)

    def look_up(self, table: NDArray, out: NDArray | None = None) -> NDArray:
        """[H, W, ...] what `table` [labels, ...] has for each pixel, for the price of the small.

        It is written into `out`, if that is given.
        """
        return self.upsampling.enlarge(table[self.small], out=out)


@dataclass(frozen=True)
class OverlappingMasks:
    """A mask for each of the labels 1..n, kept at the size of the engine's map."""

    small: NDArray[np.uint8]
    """[n, h, w] of 0 and 1; that of label l is l - 1."""
    upsampling: NearestUpsampling
    """From there to the image, [H, W]."""

    def enlarge(self, label: int, box: Box | None = None) -> NDArray[np.bool_]:
        """[H, W] the mask of one label, or only what is inside a box there: [height, width]."""
        return self.upsampling.enlarge(self.small[label - 1].view(np.bool_), box)

    def painted(self, labels: Iterable[int]) -> LabelMap:
        """A label map on which the masks lie over each other, the last one on top."""
        small = np.zeros(self.upsampling.source, np.uint16)
        for label in labels:
            small[self.small[label - 1].view(np.bool_)] = label
        return LabelMap(small, self.upsampling)


class _Axis:
    """One axis of the upsampling: which image positions come from which map position."""

    def __init__(self, source: int, target: int) -> None:
        positions = np.arange(target)
        self.index = (2 * positions + 1) * source // (2 * target)
        self.weight = np.bincount(self.index, minlength=source).astype(np.float64)
        self._sums = np.bincount(self.index, weights=positions, minlength=source)
        self._first = np.searchsorted(self.index, np.arange(source), "left")
        self._last = np.searchsorted(self.index, np.arange(source), "right") - 1

    def extent(self, profile: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """First position, length and mean position of each region; `profile` is [R, source].

        `profile` counts the image pixels in one image line made from each map position.
        """
        present = (profile > 0) & (self.weight > 0)
        exists = present.any(axis=1)
        first = self._first[present.argmax(axis=1)] * exists
        last = self._last[len(self.weight) - 1 - present[:, ::-1].argmax(axis=1)]
        area = profile @ self.weight
        mean = np.divide(profile @ self._sums, area, out=np.zeros(len(area)), where=area > 0)
        return first, (last - first + 1) * exists, mean
