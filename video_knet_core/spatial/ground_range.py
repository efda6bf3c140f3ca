"""Range without depth: where the line of sight to the foot of a region meets the ground plane.

It holds for things that stand on flat ground and whose foot is in view. A small error of the angle
is a large one of the range, as range squared over the height of the camera: the covariance has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray

from .camera_model import CameraModel
from .surfaces import RegionMap

ANGLE_SIGMA = radians(0.25)
"""Of the camera's pitch, of its vibration and of the slope of the ground."""
HEIGHT_SIGMA = 0.02
"""Relative, of the camera's height."""
EDGE_SIGMA = 0.5
"""Of the lower edge of a mask, in cells of the label map."""
FOOT_QUANTILE = 0.85
"""Of the lowest pixels of the columns of a mask: some reach below its foot, between its wheels or
legs many end above."""
HIDDEN = 0.3
"""Fraction of the columns at the foot with another thing below them from which the foot counts as
hidden."""


@dataclass(frozen=True)
class GroundPlane:
    """The ground as a camera sees it: points p [m] of its frame with `normal` . p = `height`."""

    normal: NDArray[np.float64]
    """[3] downwards, of length 1."""
    height: float
    """Of the camera above the ground [m], above 0."""

    @classmethod
    def of_mount(cls, height: float, pitch: float) -> GroundPlane:
        """Of a camera `height` metres above the ground that looks `pitch` degrees down."""
        angle = radians(pitch)
        return cls(np.array([0.0, cos(angle), sin(angle)]), height)

    @classmethod
    def of_transform(cls, ground_from_camera: NDArray[np.float64]) -> GroundPlane | None:
        """From a transform [4, 4] into a frame whose plane z = 0 is the ground; None below it."""
        height = float(ground_from_camera[2, 3])
        return cls(-ground_from_camera[2, :3], height) if height > 0 else None


@dataclass(frozen=True)
class Standing:
    """Where R regions stand; NaN without a range."""

    position: NDArray[np.float64]
    """[R, 3] at half of the visible height, above the foot [m]."""
    sigma: NDArray[np.float64]
    """[R] standard deviation of the range [m]."""
    size: NDArray[np.float64]
    """[R, 2] width and height of the mask at that range [m]."""


def find_standing(
    regions: RegionMap,
    plane: GroundPlane,
    camera: CameraModel,
    boxes: NDArray[np.int64],
    reach: float,
) -> Standing:
    """Where each region stands.

    A region has no range if its foot is out of the image or hidden by another one, at the horizon
    or above it, or farther away than `reach` [m].

    Args:
        boxes: [R, 4] x, y, width, height in pixels.
    """
    foot, visible = _feet(regions, len(boxes))
    x, y, wide, tall = boxes.T.astype(np.float64)
    middle = x + (wide - 1) / 2
    cell = regions.image[0] / regions.index.shape[0]
    left, right = (x - 0.5, foot), (x + wide - 0.5, foot)
    places = [(middle, foot), (middle, foot + 1), left, right, (middle, y - 0.5)]
    pixels = np.concatenate([np.stack(place, axis=1) for place in places])
    rays = np.ones((len(pixels), 3))
    rays[:, :2] = camera.rays_at(np.nan_to_num(pixels))
    at_foot, lower, at_left, at_right, top = np.split(rays, len(places))
    down = at_foot @ plane.normal
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(visible & (down > 0), plane.height / down, np.nan)
        length = np.linalg.norm(at_foot, axis=1)
        seen = np.isfinite(rays.reshape(len(places), -1, 3)).all(axis=(0, 2))  # within the lens
        z = np.where(seen & (z * length <= reach), z, np.nan)
        per_pixel = np.abs((lower - at_foot) @ plane.normal)
        # of a pixel, and of the angle, on the component of the ray along the normal
        slope = np.hypot(EDGE_SIGMA * cell * per_pixel, ANGLE_SIGMA)
        sigma = z * length * np.hypot(slope / down, HEIGHT_SIGMA)
    bottom = at_foot * z[:, None]
    high = np.linalg.norm((top - at_foot) * z[:, None], axis=1)
    position = bottom - plane.normal * high[:, None] / 2
    size = np.stack([np.linalg.norm((at_right - at_left) * z[:, None], axis=1), high], axis=1)
    return Standing(position, sigma, size)


def _feet(regions: RegionMap, count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Lower edge of each region: its place between rows of the image, and whether it is in view."""
    height, width = regions.index.shape
    rows, columns = np.nonzero(regions.index >= 0)
    region = regions.index[rows, columns]
    lowest = np.full((count, width), -1)
    lowest[region, columns] = rows  # the last one of equal index stays: rows ascend
    present = lowest >= 0
    foot = np.array(
        [np.quantile(row[has], FOOT_QUANTILE) if has.any() else 0.0
         for row, has in zip(lowest, present, strict=True)]
    )  # fmt: skip
    at_foot = present & (lowest >= foot[:, None] - 1)
    below = np.minimum(lowest + 1, height - 1)
    other = regions.index[below, np.arange(width)]
    hides = (other >= 0) & (other != np.arange(count)[:, None])
    hidden = (hides & at_foot).sum(1) > HIDDEN * at_foot.sum(1)
    edge = (foot + 1) * regions.image[0] / height - 0.5
    return edge, present.any(1) & ~hidden & (foot < height - 1)
