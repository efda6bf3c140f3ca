"""Pinhole camera and painter's canvas of the synthetic street.

World frame: x to the right of the road's general direction, s along it, z up; metres. The ground is
z = 0. Every primitive is painted into the picture and into the map of codes at once, far things
first, so labels show exactly what can be seen. Where depth is asked for, each flat part of a thing
has a code of its own, and depth is looked up by the same codes as the labels.

Pixels: the centre of the pixel in column i and row j is the point (i, j), as in ROS and OpenCV.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

NEAR = 0.6
"""Depth in metres at which polygons are cut off."""
SHIFT = 3
"""Fractional bits of polygon corners."""
_FIRST_THING_CODE = 64
"""Codes below are stuff class ids; above, rows of the frame's table of things."""
INFINITY = 1e6
"""Metres from which on there is no depth."""

Color = tuple[float, float, float]
"""RGB, 0..255."""
Points = NDArray[np.float64]
Image = NDArray[Any]
"""uint8 [H, W] or [H, W, 3]; the stubs of cv2 lack the dtype."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Camera:
    """Pose and intrinsics for one frame; pitch is a shift of the horizon, as for small angles."""

    x: float
    s: float
    height: float
    yaw: float
    """Radians, positive to the right."""
    focal: float
    """Pixels."""
    centre: float
    """Column of the optical axis."""
    horizon: float
    """Row of the horizon."""
    mirror: float
    """+1, or -1 for a mirrored world (traffic on the left)."""

    @cached_property
    def _rotation(self) -> Points:
        """[3, 3] from world axes (columns x, s, z) to camera axes, transposed for row vectors."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        m = self.mirror
        return np.array([[cos * m, 0.0, sin], [-sin * m, 0, cos], [0, -1, 0]])

    @cached_property
    def _origin(self) -> Points:
        return np.array([self.x, self.s, self.height])

    @cached_property
    def _principal(self) -> Points:
        return np.array([self.centre, self.horizon])

    def view(self, points: Points) -> Points:
        """World [n, 3] (x, s, z) to camera [n, 3] (right, below the camera, depth)."""
        return (points - self._origin) @ self._rotation

    def pixels(self, view: Points) -> Points:
        """Camera [n, 3] with depth > 0 to pixels [n, 2] (column, row)."""
        return view[:, :2] * (self.focal / view[:, 2:]) + self._principal

    def intrinsics(self) -> Points:
        """[3, 3]."""
        return np.array([[self.focal, 0, self.centre], [0, self.focal, self.horizon], [0, 0, 1.0]])

    def pose(self, row: float) -> Points:
        """[4, 4] to (s, left, z) from the optical frame of a level camera's principal point `row`.

        The horizon is at another row by as much as the camera is pitched.
        """
        pitch = np.arctan((self.horizon - row) / self.focal)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw) * self.mirror
        right, down, ahead = np.array([[-sin, -cos, 0.0], [0, 0, -1], [cos, -sin, 0]])
        axes = [
            right,
            np.cos(pitch) * down + np.sin(pitch) * ahead,
            np.cos(pitch) * ahead - np.sin(pitch) * down,
            np.array([self.s, -self.mirror * self.x, self.height]),
        ]
        return np.vstack([np.stack(axes, 1), [0, 0, 0, 1]])

    def ground_homography(self) -> Points:
        """[3, 3] from (x, s, 1) on the ground to homogeneous pixels."""
        base, right, ahead = self.view(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]))
        return self.intrinsics() @ np.stack([right - base, ahead - base, base], 1)


def clip_near(view: Points) -> Points:
    """Cut a polygon in camera space [n, 3] at depth `NEAR`; may return no points."""
    inside = view[:, 2] >= NEAR
    count = int(np.count_nonzero(inside))
    if count == len(view):
        return view
    if count == 0:
        return view[:0]
    following = np.roll(view, -1, 0)
    crosses = inside != np.roll(inside, -1)
    gap = np.where(crosses, following[:, 2] - view[:, 2], 1.0)
    cuts = view + ((NEAR - view[:, 2]) / gap)[:, None] * (following - view)
    keep = np.stack([inside, crosses], 1).ravel()
    return np.stack([view, cuts], 1).reshape(-1, 3)[keep]


@dataclass(frozen=True)
class Haze:
    """Aerial perspective: colours fade towards `color` with depth."""

    color: Color
    reach: float
    """Depth in metres at which 63 % of the own colour is lost."""

    def fraction(self, depth: float) -> float:
        """Part of the haze colour at `depth`."""
        return 1.0 - float(np.exp(-depth / self.reach))

    def mix(self, color: Color, depth: float) -> Color:
        """A colour seen at `depth`."""
        a = self.fraction(depth)
        r, g, b = (c + a * (h - c) for c, h in zip(color, self.color, strict=True))
        return (r, g, b)

    def blend(self, rgb: Image, depth: float, light: float = 1.0) -> Image:
        """A picture under `light`, seen at `depth`."""
        a = self.fraction(depth)
        if a < 0.02 and light == 1.0:
            return rgb
        r, g, b = self.color
        veil: Any = (a * r, a * g, a * b, 0.0)
        return cv2.add(cv2.convertScaleAbs(rgb, alpha=light * (1 - a)), veil)


@dataclass(frozen=True)
class _TextureLevel:
    """One copy of a texture."""

    rgb: Image
    mask: Image | None
    """Cut-out of the picture, 255 inside; None = solid."""
    extent: Image | None
    """Cut-out of the label where it is coarser than the picture's, as for bare twigs."""
    scale: float
    """Pixels per metre."""


class Texture:
    """A picture at `scale` pixels per metre with smaller copies for the distance."""

    def __init__(
        self, rgb: Image, scale: float, mask: Image | None = None, extent: Image | None = None
    ):
        self.levels = [_TextureLevel(rgb, mask, extent, scale)]
        self.mean = rgb.reshape(-1, 3).mean(0)
        while min(self.levels[-1].rgb.shape[:2]) >= 16 and len(self.levels) < 5:
            last = self.levels[-1]
            mask, extent = (None if m is None else cv2.pyrDown(m) for m in (last.mask, last.extent))
            self.levels.append(_TextureLevel(cv2.pyrDown(last.rgb), mask, extent, last.scale / 2))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in metres."""
        first = self.levels[0]
        return first.rgb.shape[1] / first.scale, first.rgb.shape[0] / first.scale

    def level(self, scale: float) -> _TextureLevel:
        """The copy that fits a picture with `scale` pixels per metre."""
        step = np.log2(self.levels[0].scale / max(scale, 1e-3)) + 0.2
        return self.levels[int(min(max(step, 0), len(self.levels) - 1))]


@dataclass(frozen=True)
class Panel:
    """An upright rectangle between two places (x, s), from `bottom` to `top` metres."""

    start: tuple[float, float]
    end: tuple[float, float]
    bottom: float
    top: float

    @property
    def length(self) -> float:
        """Metres along the ground."""
        return float(np.hypot(self.end[0] - self.start[0], self.end[1] - self.start[1]))

    def corners(self) -> Points:
        """World points [4, 3]."""
        a, b = self.start, self.end
        return np.array(
            [[*a, self.bottom], [*a, self.top], [*b, self.top], [*b, self.bottom]], np.float64
        )

    def homography(self, camera: Camera) -> Points:
        """[3, 3] from (metres along, metres below the top, 1) to homogeneous pixels."""
        top = np.array([[*self.start, self.top], [*self.end, self.top]], np.float64)
        base, far = camera.view(top)
        columns = np.array([(far - base) / self.length, [0.0, 1.0, 0.0], base])
        return camera.intrinsics() @ columns.T


_NOWHERE = np.array([[0.0, 0.0, INFINITY]])


class Canvas:
    """The picture and the code map of one frame, and the brushes; `has_depth` for `depth`."""

    def __init__(
        self,
        image: Image,
        codes: NDArray[np.uint16],
        camera: Camera,
        haze: Haze,
        has_depth: bool = False,
    ):
        self.image = image
        self.codes = codes
        self.camera = camera
        self.haze = haze
        self.has_depth = has_depth
        # Of each code, its class and track id, and its outline in camera space.
        self._labels = [(class_id, 0) for class_id in range(_FIRST_THING_CODE)]
        self._outlines = [_NOWHERE] * _FIRST_THING_CODE

    def thing(self, class_id: int, track_id: int) -> int:
        """Code of a thing; use it for all parts of that thing."""
        return self._code((class_id, track_id), _NOWHERE)

    def part(self, code: int, view: Points) -> int:
        """Code of a flat part of the stuff or thing `code`; without depth, `code` itself.

        `view` [n, 3] is its outline in camera space, not nearer than `NEAR`; a single point stands
        for a part that faces the camera.
        """
        return self._code(self._labels[code], view) if self.has_depth else code

    def _code(self, label: tuple[int, int], outline: Points) -> int:
        self._labels.append(label)
        self._outlines.append(outline)
        return len(self._labels) - 1

    def labels(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Semantic and instance map [H, W] of what has been painted."""
        semantic, instance = np.array(self._labels).T
        return semantic.astype(np.uint8)[self.codes], instance.astype(np.uint16)[self.codes]

    def depth(self) -> NDArray[np.float32]:
        """[H, W] metres along the optical axis of what has been painted; 0 = infinitely far.

        The inverse of depth is affine in the pixels of a plane. It is kept within that of the
        outline, for pixels on the border may lie a little outside.
        """
        a, b, c, low, high = (row[self.codes] for row in self._inverse_depth())
        height, width = self.codes.shape
        inverse = a * np.arange(width) + b * np.arange(height)[:, None] + c
        inverse = np.clip(inverse, low, high)
        return np.where(inverse > 1 / INFINITY, 1 / inverse, 0.0).astype(np.float32)

    def _inverse_depth(self) -> Points:
        """[5, codes] factors of column, row and 1 in the inverse of depth, and its limits."""
        points = np.concatenate(self._outlines)
        ends = np.cumsum([len(outline) for outline in self._outlines])
        starts = np.concatenate([[0], ends[:-1]])
        following = np.arange(1, len(points) + 1)
        following[ends - 1] = starts
        normals = np.add.reduceat(np.cross(points, points[following]), starts)
        offsets = np.einsum("ij,ij->i", normals, points[starts])
        # Planes through the eye, seen edge on, have no such factors, nor have single points.
        tiny = 1e-9 * np.linalg.norm(normals, axis=1) * np.linalg.norm(points[starts], axis=1)
        flat = np.abs(offsets) > tiny
        planes = np.zeros_like(normals)
        np.divide(normals, offsets[:, None], out=planes, where=flat[:, None])
        planes = planes @ np.linalg.inv(self.camera.intrinsics())
        nearest = np.minimum.reduceat(points[:, 2], starts)
        farthest = np.maximum.reduceat(points[:, 2], starts)
        return np.vstack([planes.T, 1 / farthest, 1 / nearest])

    def polygon(self, points: Points, color: Color, code: int, hazy: bool = True) -> None:
        """Fill a flat polygon given by world points [n, 3]; `Ground.finish` adds haze by row."""
        view = clip_near(self.camera.view(points))
        if len(view) >= 3:
            color = self.haze.mix(color, float(view[:, 2].mean())) if hazy else color
            self.fill(self.camera.pixels(view), color, self.part(code, view))

    def bent_strip(self, points: Points, color: Color, code: int) -> None:
        """Fill a strip that is flat between each pair of points and the next, without haze.

        `points` [2n, 3] in the world go from near to far along one edge and back along the other.
        """
        self.polygon(points, color, code, hazy=False)
        if not self.has_depth:
            return
        # The parts, drawn apart and copied where the whole is: the labels are as without depth.
        whole, parts = len(self._labels) - 1, np.zeros_like(self.codes)
        for i in reversed(range(len(points) // 2 - 1)):
            view = clip_near(self.camera.view(points[[i, i + 1, -i - 2, -i - 1]]))
            if len(view) >= 3:
                corners = fixed_point(self.camera.pixels(view))
                cv2.fillPoly(parts, [corners], (self.part(code, view),), cv2.LINE_8, SHIFT)
        np.copyto(self.codes, parts, where=(self.codes == whole) & (parts > 0))

    def fill(self, pixels: Points, color: Color, code: int) -> None:
        """Fill a polygon given in pixels [n, 2]; `code` as from `part`."""
        corners = fixed_point(pixels)
        cv2.fillPoly(self.image, [corners], color, cv2.LINE_AA, SHIFT)
        cv2.fillPoly(self.codes, [corners], (code,), cv2.LINE_8, SHIFT)

    def is_in_view(self, column: float, reach: float) -> bool:
        """Whether columns `column` +- `reach` are partly inside the picture."""
        return -reach < column < self.codes.shape[1] + reach

    def paint(self, outlines: list[Points], color: Color) -> None:
        """Fill polygons in the picture only, given in pixels; they do not change the class."""
        if outlines:
            corners = [fixed_point(p) for p in outlines]
            cv2.fillPoly(self.image, corners, color, cv2.LINE_AA, SHIFT)

    def sprite(self, texture: Texture, box: Box, depth: float, code: int) -> None:
        """Paste a cut-out upright into the pixel box."""
        left, top, right, bottom = box
        roi = self._roi(left, top, right, bottom)
        if roi is None:
            return
        x0, y0, x1, y1 = roi
        level = texture.level((bottom - top) / texture.size[1])
        height, width = level.rgb.shape[:2]
        sx, sy = width / (right - left), height / (bottom - top)
        inverse = np.array([[sx, 0, (x0 - left) * sx], [0, sy, (y0 - top) * sy]])

        def warp(picture: Image) -> Image:
            flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
            return cv2.warpAffine(picture, inverse, (x1 - x0, y1 - y0), flags=flags)

        assert level.mask is not None, "a sprite has a mask"
        mask = warp(level.mask)
        self._blend(self.haze.blend(warp(level.rgb), depth), mask, roi)
        extent = mask if level.extent is None else warp(level.extent)
        self.codes[y0:y1, x0:x1][extent > 127] = self.part(code, np.array([[0.0, 0.0, depth]]))

    def panel(self, texture: Texture, panel: Panel, light: float, code: int) -> None:
        """Map a texture on an upright rectangle; where its mask has gaps only the code is set."""
        view = clip_near(self.camera.view(panel.corners()))
        if len(view) < 3:
            return
        pixels = self.camera.pixels(view)
        (left, top), (right, bottom) = pixels.min(0), pixels.max(0)
        roi = self._roi(left, top, right + 1, bottom + 1)
        if roi is None:
            return
        depth, code = float(view[:, 2].mean()), self.part(code, view)
        if (right - left) * (bottom - top) < 120:
            r, g, b = (float(min(c * light, 255.0)) for c in texture.mean)
            self.fill(pixels, self.haze.mix((r, g, b), depth), code)
            return
        shape = cv2.fillPoly(
            np.zeros((roi[3] - roi[1], roi[2] - roi[0]), np.uint8),
            [fixed_point(pixels - roi[:2])], (255,), cv2.LINE_8, SHIFT,
        )  # fmt: skip
        rgb, mask = self._warp(texture, panel, depth, roi)
        seen = shape if mask is None else cv2.bitwise_and(shape, mask)
        self._paste(self.haze.blend(rgb, depth, light), seen, roi)
        self.codes[roi[1] : roi[3], roi[0] : roi[2]][shape > 127] = code

    def _warp(
        self, texture: Texture, panel: Panel, depth: float, roi: tuple[int, int, int, int]
    ) -> tuple[Image, Image | None]:
        x0, y0, x1, y1 = roi
        level = texture.level(self.camera.focal / depth)
        matrix = panel.homography(self.camera)
        matrix[:2] -= np.array([[x0], [y0]]) * matrix[2]
        matrix[:, :2] /= level.scale

        def warp(picture: Image) -> Image:
            return cv2.warpPerspective(
                picture, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_WRAP
            )

        return warp(level.rgb), None if level.mask is None else warp(level.mask)

    def _paste(self, rgb: Image, mask: Image, roi: tuple[int, int, int, int]) -> None:
        """Copy into the picture where the mask is over one half."""
        x0, y0, x1, y1 = roi
        _, inside = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)
        cv2.copyTo(rgb, inside, self.image[y0:y1, x0:x1])

    def _blend(self, rgb: Image, mask: Image, roi: tuple[int, int, int, int]) -> None:
        """Mix into the picture, with the mask as opacity."""
        x0, y0, x1, y1 = roi
        below = self.image[y0:y1, x0:x1]
        opacity = cv2.merge([mask] * 3)
        front = cv2.multiply(rgb, opacity, scale=1 / 255)
        below[:] = cv2.add(front, cv2.multiply(below, cv2.bitwise_not(opacity), scale=1 / 255))

    def _roi(
        self, left: float, top: float, right: float, bottom: float
    ) -> tuple[int, int, int, int] | None:
        height, width = self.codes.shape
        x0, x1 = max(int(np.floor(left)), 0), min(int(np.ceil(right)), width)
        y0, y1 = max(int(np.floor(top)), 0), min(int(np.ceil(bottom)), height)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def fixed_point(pixels: Points) -> NDArray[np.int32]:
    """Corners for cv2 with `SHIFT` fractional bits; far outliers are pulled in."""
    scaled = pixels * float(1 << SHIFT)
    np.rint(scaled, out=scaled)
    limit = 20000.0 * (1 << SHIFT)
    return scaled.clip(-limit, limit).astype(np.int32)
