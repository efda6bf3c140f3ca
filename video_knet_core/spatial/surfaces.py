"""Where the visible surface of each region of a frame is, from points that project into its mask.

The border of a mask belongs to the background as often as to the object: masks are coarse, depth
mixes both sides of an edge, and two sensors never agree to the pixel. So points at the border do
not count where there are others, and of the rest the nearest dense cluster along the line of sight
is the object: what is seen through a fence, over a shoulder or beside a leg is farther away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry import LabelMap

SAMPLES = 256
"""Points of a region that are looked at, about: masks are not so exact that more would help."""
MIN_INNER = 6
"""Points away from the border below which those at the border count too."""
MIN_POINTS = 3
"""Points below which a region has no range."""
DENSE = 0.25
"""Fraction of the points of a region that a cluster needs to be the object."""
GAP, GAP_OF_RANGE = 0.5, 0.02
"""Metres, and their growth with the range, between two successive points of one cluster."""
EXTENT = 0.02
"""Quantiles of the points that the size leaves out at each end."""
EDGE = 0.08
"""Quantile of the points at which a surface begins: of those beyond it many are of other things."""
EXTENT_SIGMAS, EDGE_SIGMAS = 2.05, 1.41
"""Standard deviations from the mean at which a normal distribution has those quantiles."""

_LARGEST = 4096.0
"""Metres that no coordinate reaches."""
_ROUNDING = 1e-6
"""Metres by which `_sorted` is not exact, at most."""

Points = NDArray[np.floating]


@dataclass(frozen=True)
class RegionMap:
    """Which pixels belong to which of R regions, at the size of a label map [h, w]."""

    index: NDArray[np.int16]
    """[h, w] number of the region; -1 = none."""
    inner: NDArray[np.bool_]
    """[h, w] not at the border of its region."""
    image: tuple[int, int]
    """Height and width of the image that the map is of."""

    @classmethod
    def of(cls, label_map: LabelMap, labels: NDArray[np.int64]) -> RegionMap:
        """The regions of `labels` [R], which are numbered as they come."""
        number = np.full(1 + max(int(label_map.small.max(initial=0)), labels.max(initial=0)), -1)
        number[labels] = np.arange(len(labels))
        index = number[label_map.small].astype(np.int16)
        return cls(index, inner_cells(index), label_map.size)

    def at(self, rows: NDArray, columns: NDArray) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Region and whether it is inner, of pixels [N] of the image, which must lie in it."""
        place = _places(rows, columns, self.image, self.index.shape)
        return self.index.ravel()[place], self.inner.ravel()[place]


def cells_at(positions: NDArray, length: int, cells: int) -> NDArray:
    """Cells of a map's axis at pixels of an image's axis of `length`, as `NearestUpsampling`."""
    return (2 * positions + 1) * cells // (2 * length)


def _places(
    rows: NDArray, columns: NDArray, image: tuple[int, ...], cells: tuple[int, ...]
) -> NDArray:
    """Places in a flat map [h, w] of pixels of an image [H, W]."""
    row = cells_at(rows, image[0], cells[0])
    return row * cells[1] + cells_at(columns, image[1], cells[1])


def inner_cells(values: NDArray) -> NDArray[np.bool_]:
    """[h, w] cells whose four neighbours have the same value."""
    inner = np.ones(values.shape, bool)
    for axis in (0, 1):
        same = np.diff(values.astype(np.int32), axis=axis) == 0
        one, other = (slice(None, -1), slice(1, None))
        for part in (one, other):
            inner[(part, slice(None)) if axis == 0 else (slice(None), part)] &= same
    return inner


@dataclass(frozen=True)
class Samples:
    """Points of regions in the frame of the camera."""

    region: NDArray[np.int16]
    """[N]"""
    inner: NDArray[np.bool_]
    """[N]"""
    points: Points
    """[N, 3] metres."""


@dataclass(frozen=True)
class Surfaces:
    """The visible surface of each of R regions."""

    points: NDArray[np.int64]
    """[R] points that were used; 0 = it has no range, and its other values are NaN."""
    position: NDArray[np.float64]
    """[R, 3] medians of the coordinates."""
    spread: NDArray[np.float64]
    """[R] standard deviation of the range, robust: noise and shape together."""
    noise: NDArray[np.float64]
    """[R] standard deviation of the noise of the range, from differences between neighbours."""
    low: NDArray[np.float64]
    """[R, 3] lower and upper limits of the points along the axes of `find_surfaces`."""
    high: NDArray[np.float64]
    anchor: NDArray[np.float64]
    """[R, 3] the corner of the limits that is nearest to the camera, along the axes too. Other than
    the middle of what is visible it stays in its place on an object that is passed."""


def samples_of_depth(
    regions: RegionMap,
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    reach: tuple[float, float],
) -> Samples:
    """Points of a depth image [H, W] that shows the same as the image, with its rays [H, W, 2].

    Of a small region every pixel is looked at, of a large one a regular subset. `reach` is the
    smallest and largest depth that count; NaN never does.
    """
    height, width = regions.index.shape
    cells = np.flatnonzero(regions.index.ravel() >= 0)
    region = regions.index.ravel()[cells]
    count = np.bincount(region)
    rows, columns = depth.shape[0] / height, depth.shape[1] / width
    # pixels of a map cell that are looked at, in each direction; or every n-th cell
    side = np.sqrt(SAMPLES / np.maximum(count, 1))
    most = max(int(round(min(rows, columns))), 1)
    per_cell = np.clip(side, 1, most).astype(np.int64)
    every = np.maximum(count // (2 * SAMPLES), 1)
    keep = (cells // width + cells % width) % every[region] == 0
    parts = [
        _pixels_of(cells[keep & (per_cell[region] == k)], width, k, rows, columns)
        for k in np.unique(per_cell[region])
    ]
    pixels = np.concatenate(parts or [np.zeros((2, 0), np.int64)], axis=1)
    z = depth[pixels[0], pixels[1]]
    with np.errstate(invalid="ignore"):
        valid = (z >= reach[0]) & (z <= reach[1])
    (v, u), z = pixels[:, valid], z[valid]
    place = _places(v, u, depth.shape, regions.index.shape)
    points = np.empty((len(z), 3), np.float32)
    points[:, :2] = rays[v, u] * z[:, None]
    points[:, 2] = z
    region = regions.index.ravel()[place]
    # where a pixel is no whole part of a cell, the pixel of a cell may be of its neighbour as well
    # beside the axis of a very wide lens a depth within reach is kilometres away
    ok = (np.einsum("ij,ij->i", points, points) < _LARGEST**2) & (region >= 0)
    return Samples(region[ok], regions.inner.ravel()[place[ok]], points[ok])


def _pixels_of(
    cells: NDArray[np.int64], width: int, side: int, rows: float, columns: float
) -> NDArray[np.int64]:
    """[2, n] rows and columns of `side` x `side` pixels, evenly in each cell of a map."""
    offsets = (np.arange(side) + 0.5) / side
    v = ((cells // width)[:, None, None] + offsets[:, None]) * rows
    u = ((cells % width)[:, None, None] + offsets) * columns
    shape = (len(cells), side, side)
    return np.stack([np.broadcast_to(x, shape).astype(np.int64).ravel() for x in (v, u)])


def samples_of_cloud(
    regions: RegionMap,
    points: Points,
    pixels: Points,
    seen: NDArray[np.bool_],
) -> Samples:
    """Points [N, 3] in the frame of the camera, whose `pixels` [N, 2] are those of the image.

    `seen` [N] is whether they lie in front of the camera.
    """
    with np.errstate(invalid="ignore"):
        u, v = np.rint(pixels[:, 0]), np.rint(pixels[:, 1])
        seen = seen & (u >= 0) & (v >= 0) & (u < regions.image[1]) & (v < regions.image[0])
    found = np.flatnonzero(seen)
    region, inner = regions.at(v[found].astype(np.int64), u[found].astype(np.int64))
    inside = region >= 0
    return Samples(region[inside], inner[inside], points[found[inside]])


def find_surfaces(
    samples: Samples, count: int, axes: NDArray[np.float64] | None = None
) -> Surfaces:
    """The surface of each of `count` regions.

    Args:
        axes: [3, 3] rotation from the camera to the axes along which limits are taken.
    """
    region = samples.region.astype(np.int64)
    points = samples.points.astype(np.float64)
    distance = np.sqrt(np.einsum("ij,ij->i", points, points))
    inner_count = np.bincount(region[samples.inner], minlength=count)
    used = samples.inner | (inner_count < MIN_INNER)[region]
    start, end = _nearest_cluster(region[used], distance[used], count)
    in_range = (distance >= start[region]) & (distance <= end[region])
    chosen = np.flatnonzero(used & in_range)
    number = np.bincount(region[chosen], minlength=count)
    number[number < MIN_POINTS] = 0
    position = np.stack(
        [_quantiles(region[chosen], points[chosen, axis], number, (0.5,))[0] for axis in range(3)],
        1,
    )
    middle, upper = _quantiles(region[chosen], distance[chosen], number, (0.16, 0.84))
    border = np.flatnonzero(in_range)
    noise = _noise(region[border], distance[border], number)
    turned, direction = points[border], position / np.linalg.norm(position, axis=1)[:, None]
    if axes is not None:
        turned, direction = turned @ axes.T, direction @ axes.T
    at_all = np.where(number, np.bincount(region[border], minlength=count), 0)
    fractions = (0.5, EXTENT, EDGE, 1 - EDGE, 1 - EXTENT)
    limits = [_quantiles(region[border], turned[:, axis], at_all, fractions) for axis in range(3)]
    center, low, first, last, high = np.array(limits).transpose(1, 2, 0)
    along = noise[:, None] * np.abs(direction)
    low, high = (_without_noise(center, end, EXTENT_SIGMAS * along) for end in (low, high))
    first, last = (_without_noise(center, end, EDGE_SIGMAS * along) for end in (first, last))
    anchor = _nearest_corner(first, last)
    return Surfaces(number, position, (upper - middle) / 2, noise, low, high, anchor)


def _noise(
    region: NDArray[np.int64], distance: NDArray[np.float64], number: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[R] from samples that follow each other, which are neighbours; NaN where `number` is 0.

    Of three in a row what is left is noise: a slope has no second difference.
    """
    same = region[2:] == region[:-2]
    middle, steps = region[2:][same], np.abs(np.diff(distance, 2))[same]
    counted = np.where(number, np.bincount(middle, minlength=len(number)), 0)
    noise = 1.4826 / np.sqrt(6) * _quantiles(middle, steps, counted, (0.5,))[0]
    return np.where((number > 0) & np.isnan(noise), 0.0, noise)


def _without_noise(
    center: NDArray[np.float64], end: NDArray[np.float64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ends of extents from `center`, to which noise of this size has been added in squares."""
    extent = end - center
    return center + np.sign(extent) * np.sqrt(np.maximum(extent**2 - noise**2, 0))


def _nearest_corner(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of boxes [R, 3], seen from the origin; where one extends to both sides of it, in between."""
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 1e-6)
    return middle - np.clip(middle / half, -1, 1) * half


def _nearest_cluster(
    region: NDArray[np.int64], distance: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last distance [count] of the nearest dense cluster of each region.

    Clusters are parted by gaps. Without a dense one it is the largest; inf, -inf without a point.
    """
    distance, region = _sorted(region, distance)
    start, end = np.full(count, np.inf), np.full(count, -np.inf)
    if not len(region):
        return start, end
    gap = np.diff(distance) > GAP + GAP_OF_RANGE * distance[:-1]
    begins = np.concatenate([[True], (np.diff(region) != 0) | gap])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(region)) - 1
    size, owner = last - first + 1, region[first]
    total = np.bincount(region, minlength=count)
    enough = size >= DENSE * total[owner]
    # the last of its order wins: dense ones before others, near before far, large before small
    rank = np.lexsort((np.where(enough, -distance[first], size), enough))
    start[owner[rank]] = distance[first[rank]] - _ROUNDING
    end[owner[rank]] = distance[last[rank]] + _ROUNDING
    return start, end


def _quantiles(
    region: NDArray[np.int64],
    values: NDArray[np.float64],
    number: NDArray[np.int64],
    fractions: tuple[float, ...],
) -> NDArray[np.float64]:
    """[fractions, R] quantiles of the values of each region; NaN where `number` [R] is 0."""
    if not len(values):
        return np.full((len(fractions), len(number)), np.nan)
    ordered, _ = _sorted(region, values)
    counted = np.bincount(region, minlength=len(number))
    first = np.cumsum(counted) - counted
    found = []
    for fraction in fractions:
        row = (first + fraction * np.maximum(counted - 1, 0)).astype(np.int64)
        found.append(np.where(number > 0, ordered[np.minimum(row, len(values) - 1)], np.nan))
    return np.array(found)


def _sorted(
    region: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The values by region and size, and the region of each: one sort of sums, which is fast."""
    keys = np.sort(region * (2 * _LARGEST) + values)
    regions = np.floor(keys / (2 * _LARGEST) + 0.5).astype(np.int64)
    return keys - regions * (2 * _LARGEST), regions
