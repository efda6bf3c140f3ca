"""The camera of an image: from pixels to rays and from points to pixels.

Pixels are (x, y) with whole numbers at pixel centres; points are in the camera's optical frame, in
metres. The distortion models are OpenCV's, in NumPy: ten times as fast for the points of a lidar,
and with a known field of view. OpenCV folds points outside of it back into the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class SpatialError(ValueError):
    """A message of depth, points or a camera that cannot be used: what was expected and got."""


_COEFFICIENTS = {"plumb_bob": (4, 5, 8), "rational_polynomial": (4, 5, 8), "equidistant": (4,)}
"""Distortion model -> possible numbers of coefficients. OpenCV reads the first two as one model."""
_MAX_PIXELS = 100_000_000
_MAX_NUMBER = 1e6
"""Of focal lengths and coefficients: larger ones would overflow."""
_ANGLES = np.radians(np.arange(0, 90, 0.01))
"""Angles from the optical axis at which the distortion is tabulated."""
_TANGENTIAL_STEPS = 3
_MAX_RESIDUAL = 0.005
"""Pixels between a pixel and the projection of its ray, if undistortion has converged."""


@dataclass(frozen=True, eq=False)
class CameraModel:
    """A calibrated camera, for the image as it is delivered: after region of interest and binning.

    As in image_geometry, skew is not supported.
    """

    width: int
    height: int
    frame_id: str
    """The optical frame: x to the right, y down, z ahead."""
    k: NDArray[np.float64]
    """[3, 3], in pixels of the delivered image."""
    distortion_model: str = ""
    """One of sensor_msgs/distortion_models.hpp; "" if there is no distortion."""
    distortion: tuple[float, ...] = ()
    """k1, k2, p1, p2 and, of plumb_bob and rational_polynomial, k3 to k6; equidistant: k1 to k4."""

    @classmethod
    def from_message(cls, info: Any, rectified: bool) -> CameraModel:
        """Camera of a sensor_msgs/CameraInfo, of ROS 1 or 2, adjusted as image_geometry does it.

        A rectified image has the matrix P and no distortion. The fourth column of P is not used: it
        refers to the frame of the other camera of a stereo pair, while the origin of `frame_id` is
        the optical centre of this one. R is not used either: rays and points have the axes of the
        image, raw or rectified.

        Raises:
            SpatialError: the camera is not calibrated, or a field has a value that cannot be used.
        """
        name, columns = ("p", 4) if rectified else ("k", 3)
        k = _numbers(info, name, (3 * columns,)).reshape(3, columns)
        focal_lengths, centre = k[[0, 1], [0, 1]], k[:2, 2]
        _expect(
            bool(np.all(focal_lengths >= 1)),
            f"{name}: expected focal lengths of at least 1 pixel, got {focal_lengths.tolist()}; "
            "a camera that is not calibrated has 0",
        )
        offset, size = _region(info)
        binning = np.maximum([int(info.binning_x), int(info.binning_y)], 1)
        width, height = (int(n) for n in size // binning)
        _expect(
            0 < width * height <= _MAX_PIXELS,
            f"width and height: expected 1 to {_MAX_PIXELS} pixels after binning, "
            f"got {width} x {height}",
        )
        fx, fy = focal_lengths / binning
        cx, cy = (centre - offset) / binning
        k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        model, coefficients = ("", ()) if rectified else _distortion(info)
        return cls(width, height, str(info.header.frame_id), k, model, coefficients)

    def resized(self, height: int, width: int) -> CameraModel:
        """Camera of this image after it was resized: the same field of view in other pixels."""
        scale = np.diag([width / self.width, height / self.height, 1])
        to_corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # whole numbers are centres
        k = np.linalg.inv(to_corner) @ scale @ to_corner @ self.k
        return replace(self, width=width, height=height, k=k)

    def rays(self) -> NDArray[np.float32]:
        """x/z and y/z of each pixel [H, W, 2], read-only; NaN outside the lens model's field."""
        return self._rays

    def rays_at(self, pixels: ArrayLike) -> NDArray[np.float32]:
        """x/z and y/z [N, 2] of pixels [N, 2]; NaN outside the field of the lens model."""
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        (fx, _, cx), (_, fy, cy), _ = self.k.tolist()
        x, y = (pixels[:, 0] - cx) / fx, (pixels[:, 1] - cy) / fy
        if self.distortion_model:
            distorted = x, y
            x, y = self._undistort(*distorted)
            again = self._distort(x, y)
            residual = np.hypot(fx * (again[0] - distorted[0]), fy * (again[1] - distorted[1]))
            x[~(residual <= _MAX_RESIDUAL)] = y[~(residual <= _MAX_RESIDUAL)] = np.nan
        return np.stack([x, y], axis=1).astype(np.float32)

    def project(self, points: NDArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Where points of the optical frame are in the image.

        Args:
            points: [N, 3] in metres; may be NaN.

        Returns:
            pixels: [N, 2], also of points beside the image; NaN where not `in_front`.
            in_front: [N], whether the point is ahead and within the field of the lens model.
        """
        pixels = np.full((len(points), 2), np.nan, np.float32)
        in_front = np.zeros(len(points), np.bool_)
        ahead = np.flatnonzero(points[:, 2] > 0)
        limit = self._field[0][-1] if self.distortion_model else np.inf
        with np.errstate(over="ignore", invalid="ignore"):
            x, y, z = (np.asarray(points[ahead, axis], np.float32) for axis in range(3))
            x, y = x / z, y / z
            seen = x * x + y * y < limit**2
            ahead, x, y = ahead[seen], x[seen], y[seen]
            if self.distortion_model:
                x, y = self._distort(x, y)
        (fx, _, cx), (_, fy, cy), _ = self.k.tolist()
        pixels[ahead, 0], pixels[ahead, 1] = fx * x + cx, fy * y + cy
        in_front[ahead] = True
        return pixels, in_front

    @cached_property
    def _rays(self) -> NDArray[np.float32]:
        y, x = np.indices((self.height, self.width), np.float32)
        rays = self.rays_at(np.stack([x, y], axis=-1)).reshape(self.height, self.width, 2)
        rays.flags.writeable = False
        return rays

    @cached_property
    def _field(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Radii of rays and of their distorted images, as far from the axis as both increase.

        Towards one side the tangential part takes 3 |p| r² off the image's radius.
        """
        radii = np.tan(_ANGLES)
        with np.errstate(all="ignore"):
            distorted = radii * self._radial(radii**2)
            is_lost = ~(np.diff(distorted - 3 * np.hypot(*self._p) * radii**2) > 0)
        count = 1 + (int(np.argmax(is_lost)) if is_lost.any() else len(is_lost))
        return radii[:count], distorted[:count]

    def _radial(self, r2: NDArray) -> NDArray:
        """Distorted by undistorted radius, of rays at a squared radius of `r2`."""
        if self.distortion_model == "equidistant":
            k1, k2, k3, k4 = self.distortion
            r = np.sqrt(r2)
            angle = np.arctan(r)
            a2 = angle * angle
            image = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
            return np.divide(image, r, out=np.ones_like(r), where=r > 0)
        k1, k2, _, _, k3, k4, k5, k6 = (*self.distortion, 0.0, 0.0, 0.0, 0.0)[:8]
        scale = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return scale / (1 + r2 * (k4 + r2 * (k5 + r2 * k6))) if k4 or k5 or k6 else scale

    @property
    def _p(self) -> tuple[float, float]:
        """p1 and p2 of a lens that is not centred."""
        if self.distortion_model == "equidistant":
            return 0.0, 0.0
        return self.distortion[2], self.distortion[3]

    def _tangential(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """The distortion of rays that is not along their radius."""
        p1, p2 = self._p
        x2, y2, xy = x * x, y * y, 2 * x * y
        return p1 * xy + p2 * (3 * x2 + y2), p1 * (x2 + 3 * y2) + p2 * xy

    def _distort(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        radial = self._radial(x * x + y * y)
        if not any(self._p):
            return x * radial, y * radial
        dx, dy = self._tangential(x, y)
        return x * radial + dx, y * radial + dy

    def _undistort(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        """Rays of distorted ones: radially from a table, the rest by fixed-point iteration.

        OpenCV iterates over both, which converges slowly near the limit of a wide lens.
        """
        rays = self._undistort_radially(x, y)
        for _ in range(_TANGENTIAL_STEPS if any(self._p) else 0):
            dx, dy = self._tangential(*rays)
            rays = self._undistort_radially(x - dx, y - dy)
        return rays

    def _undistort_radially(self, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
        radii, images = self._field
        r = np.hypot(x, y)
        scale = np.interp(r, images, radii, right=np.nan)
        np.divide(scale, r, out=scale, where=r > 0)
        scale[r == 0] = 1
        return x * scale, y * scale


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise SpatialError(message)


def _numbers(info: Any, name: str, sizes: Sequence[int]) -> NDArray[np.float64]:
    """A field of numbers, whose name is a capital letter in ROS 1."""
    values = np.array(getattr(info, name if hasattr(info, name) else name.upper()), np.float64)
    _expect(
        len(values) in sizes,
        f"{name}: expected {' or '.join(map(str, sizes))} numbers, got {len(values)}",
    )
    _expect(
        bool(np.all(np.abs(values) <= _MAX_NUMBER)),
        f"{name}: expected numbers up to {_MAX_NUMBER:g}, got {values.tolist()}",
    )
    return values


def _distortion(info: Any) -> tuple[str, tuple[float, ...]]:
    """Model and coefficients; of zeros none, even if equidistant, as image_geometry reads them."""
    model = str(info.distortion_model)
    if not np.any(info.d if hasattr(info, "d") else info.D):
        return "", ()
    _expect(
        model in _COEFFICIENTS,
        f"distortion_model: expected one of {', '.join(_COEFFICIENTS)}, got {model!r}",
    )
    return model, tuple(_numbers(info, "d", _COEFFICIENTS[model]).tolist())


def _region(info: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offset and size (x, y) of the region of interest, in pixels before binning."""
    roi, full = info.roi, np.array([info.width, info.height], np.int64)
    size = np.array([roi.width, roi.height], np.int64)
    if not size.any():
        return np.zeros(2, np.int64), full
    offset = np.array([roi.x_offset, roi.y_offset], np.int64)
    _expect(
        bool(np.all((size > 0) & (offset + size <= full))),
        f"roi: expected a region of the image of {full[0]} x {full[1]} pixels, "
        f"got {size[0]} x {size[1]} at ({offset[0]}, {offset[1]})",
    )
    return offset, size
