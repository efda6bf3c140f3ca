"""Points in space with the class and track of the pixels that show them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS, PanopticFrame
from .camera_model import CameraModel
from .surfaces import cells_at, inner_cells

POINT_DTYPE = np.dtype(
    {
        "names": ["x", "y", "z", "rgb", "class_id", "track_id", "confidence"],
        "formats": ["<f4", "<f4", "<f4", "<u4", "<u2", "<u4", "<f4"],
        "offsets": [0, 4, 8, 12, 16, 20, 24],
        "itemsize": 28,
    }
)
"""A point as ~/points has it: `rgb` is 0x00RRGGBB, which RViz reads in the place of a float."""
MAX_POINTS = 80_000
"""Points of a depth image, about, unless the setting `point_stride` has another wish."""
_BUCKETS = 1 << 18


@dataclass(frozen=True)
class LabelledPoints:
    """Points in the frame of the camera."""

    xyz: NDArray[np.float32]
    """[N, 3] metres; NaN where nothing was measured."""
    label: NDArray[np.uint16]
    """[N] of the frame; 0 = none."""
    inner: NDArray[np.bool_]
    """[N] not at the border of a segment, where depth is a mixture of two; but all of thin ones."""
    color: NDArray[np.uint32]
    """[N] 0x00RRGGBB."""
    frame: PanopticFrame
    size: tuple[int, int] | None = None
    """Height and width of points that are in the order of pixels."""

    def array(self) -> NDArray[np.void]:
        """[N] of `POINT_DTYPE`."""
        words = np.empty((len(self.xyz), POINT_DTYPE.itemsize // 4), np.uint32)
        words[:, :3] = self.xyz.view(np.uint32)
        words[:, 3] = self.color
        fields = (("class_id", NO_CLASS), ("track_id", 0), ("score", 0))
        table = [self.frame.by_label(name, none, np.float64) for name, none in fields]
        words[:, 4:6] = np.stack(table[:2], axis=1).astype(np.int64).astype(np.uint32)[self.label]
        words[:, 6] = table[2].astype(np.float32).view(np.uint32)[self.label]
        if sys.byteorder == "big":
            words = words.astype("<u4")
        return words.view(POINT_DTYPE)[:, 0]

    def of_classes(self, ids: Sequence[int], voxel: float) -> LabelledPoints:
        """Those of these classes, one for each cube of `voxel` metres."""
        return self._thinned(self._is_of(ids), voxel)

    def obstacles(self, ground: Sequence[int], voxel: float) -> LabelledPoints:
        """Those of no class of `ground`, one for each cube of `voxel` metres."""
        return self._thinned(~self._is_of(ground), voxel)

    def _is_of(self, ids: Sequence[int]) -> NDArray[np.bool_]:
        table = np.isin(self.frame.by_label("class_id", NO_CLASS, np.int64), ids)
        table[0] = False
        return np.asarray(table[self.label])

    def _thinned(self, chosen: NDArray[np.bool_], voxel: float) -> LabelledPoints:
        rows = np.flatnonzero(chosen & self.inner & np.isfinite(self.xyz[:, 0]))
        rows = rows[thinned(self.xyz[rows], voxel)]
        return LabelledPoints(
            self.xyz[rows], self.label[rows], self.inner[rows], self.color[rows], self.frame
        )


def stride_of(size: tuple[int, ...], setting: int) -> int:
    """The stride of points in a depth image [H, W] by the setting `point_stride`."""
    by_size = max(math.ceil(math.sqrt(math.prod(size) / MAX_POINTS)), 1)
    return max(min(setting or by_size, *size), 1)


def point_size(size: tuple[int, int], setting: int) -> tuple[int, int]:
    """Height and width of the points of a depth image [H, W]."""
    stride = stride_of(size, setting)
    height, width = (len(range(stride // 2, length, stride)) for length in size)
    return height, width


def points_of_depth(
    frame: PanopticFrame,
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    rays: NDArray[np.float32],
    stride: int,
    reach: tuple[float, float] = (0.0, math.inf),
) -> LabelledPoints:
    """The points of every `stride`-th row and column of a depth image [H, W], row by row.

    Args:
        image: RGB [H', W', 3] of the same field of view.
        rays: [H, W, 2] of the pixels of `depth`.
        reach: smallest and largest depth that count [m].
    """
    start = stride // 2
    z = depth[start::stride, start::stride]
    with np.errstate(invalid="ignore"):
        z = np.where((z >= reach[0]) & (z <= reach[1]), z, np.float32(np.nan))
    height, width = z.shape
    xyz = np.empty((height, width, 3), np.float32)
    np.multiply(rays[start::stride, start::stride], z[:, :, None], out=xyz[:, :, :2])
    xyz[:, :, 2] = z
    rows = np.arange(start, depth.shape[0], stride)
    columns = np.arange(start, depth.shape[1], stride)

    def at(picture: NDArray) -> NDArray:
        """Rows and columns of another picture of the field of view, at these pixels."""
        v = cells_at(rows, depth.shape[0], picture.shape[0])
        u = cells_at(columns, depth.shape[1], picture.shape[1])
        return picture[v][:, u].reshape(height * width, *picture.shape[2:])

    small = frame.label_map.small
    return LabelledPoints(
        xyz.reshape(-1, 3),
        at(small),
        at(_solid_cells(small)),
        _packed(at(image)),
        frame,
        (height, width),
    )


def points_of_cloud(
    frame: PanopticFrame, image: NDArray[np.uint8], points: NDArray[np.float32], camera: CameraModel
) -> LabelledPoints:
    """The points [N, 3] of a cloud, in the frame of the camera, that are in the image."""
    pixels, in_front = camera.project(points)
    height, width = frame.label_map.size
    with np.errstate(invalid="ignore"):
        u, v = np.rint(pixels).T
        seen = np.flatnonzero(in_front & (u >= 0) & (v >= 0) & (u < width) & (v < height))
    u, v = u[seen].astype(np.int64), v[seen].astype(np.int64)
    small = frame.label_map.small
    cells = cells_at(v, height, small.shape[0]), cells_at(u, width, small.shape[1])
    return LabelledPoints(
        points[seen], small[cells], _solid_cells(small)[cells], _packed(image[v, u]), frame
    )


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """[N] 0x00RRGGBB of colours [N, 3]."""
    red, green, blue = rgb.T.astype(np.uint32)
    return red << 16 | green << 8 | blue


def _solid_cells(labels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """[h, w] cells of a label map but those at a border beside an inner one of the same label."""
    inner = inner_cells(labels)
    beside = cv2.dilate(inner.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    return inner | ~beside.view(np.bool_)


def thinned(points: NDArray[np.float32], voxel: float) -> NDArray[np.int64]:
    """Ascending rows of points [N, 3], one for each cube of `voxel` metres that has any."""
    cells = np.floor(points * np.float32(1 / voxel)).astype(np.int64)
    keys = (cells[:, 0] << 42) ^ ((cells[:, 1] & 0x1FFFFF) << 21) ^ (cells[:, 2] & 0x1FFFFF)
    buckets = (keys * np.int64(-7046029254386353131)) >> 46 & (_BUCKETS - 1)
    kept, left = [], np.arange(len(points))
    owner = np.zeros(_BUCKETS, np.int64)
    while len(left):  # points of another cube in the same bucket have their turn after it
        owner[buckets[left]] = left
        first = owner[buckets[left]]
        kept.append(left[first == left])
        left = left[keys[first] != keys[left]]
    return np.sort(np.concatenate(kept)) if kept else left
