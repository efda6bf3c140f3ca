"""The ground of the synthetic street: road, kerbs, pavements, grass, markings and side roads."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import textures
from .canvas import INFINITY, NEAR, Canvas, Color, Image, Points, clip_near
from .layout import CHUNK, ROAD, SIDEWALK, VEGETATION, Style

_KERB = 0.12
"""Height of the pavement above the road, metres."""
_STEPS = np.array([-3, -1, 0, 0.7, 1.5, 2.5, 4, 6, 9, 13, 18, 25, 34, 46, 62, 84, 115, 155, 210.0])
"""Metres ahead at which ribbons along the road have corners."""
_TEXTURE_SCALE = 40.0
"""Pixels of the ground texture per metre."""


class Ground:
    """Paints everything flat."""

    def __init__(self, seed: int, style: Style, rng: np.random.Generator):
        self.seed = seed
        self.style = style
        self.texture = textures.ground(rng)
        self.kerb_color = _mix(style.pavement, (200.0, 200.0, 195.0), rng.uniform(0, 0.6))
        self.edge_lines = bool(rng.random() < 0.6)
        self.solid_middle = bool(rng.random() < 0.4)
        self.dash = (rng.uniform(1.5, 4.0), rng.uniform(6.0, 12.0))
        self.tiles = bool(rng.random() < 0.5)

    def crossing(self, chunk: int) -> bool:
        """Whether a side road joins in this chunk."""
        rng = np.random.default_rng([self.seed, 6, chunk + (1 << 30)])
        return bool(rng.random() < self.style.crossings) and chunk > 1

    def draw(self, canvas: Canvas) -> None:
        """Paint ground, far things first, from the terrain up to the markings."""
        style = self.style
        start = max(int(np.ceil(canvas.camera.horizon)), 0)
        canvas.image[start:] = np.array(style.terrain, np.uint8)
        level = canvas.camera.height
        outline = [[-NEAR, level, NEAR], [-INFINITY, level, INFINITY], [INFINITY, level, INFINITY]]
        canvas.codes[start:] = canvas.part(VEGETATION, np.array(outline))
        left, right = style.sides
        self._ribbon(canvas, -left.kerb, right.kerb, 0.0, style.asphalt, ROAD)
        if style.median:
            inner = -(style.ego_lane + 0.5) * style.lane - 0.5
            self._ribbon(canvas, inner - style.median + 1.0, inner, 0.02, style.terrain, VEGETATION)
        if style.kind != "highway":
            for sign, side in zip((-1, 1), style.sides, strict=True):
                self._pavement(canvas, sign, side.kerb, side.front, side.paved)
                if side.verge:
                    inner = side.kerb + 0.2
                    outer = inner + side.verge
                    color = style.terrain
                    self._ribbon(canvas, sign * inner, sign * outer, _KERB, color, VEGETATION)
        first = int(canvas.camera.s // CHUNK)
        chunks = range(first - 1, first + 7)
        for chunk in chunks:
            if self.crossing(chunk):
                self._side_road(canvas, chunk)
        self._markings(canvas)
        for chunk in chunks:
            self._patches(canvas, chunk)
            if self.crossing(chunk):
                self._zebra(canvas, chunk)

    def finish(self, canvas: Canvas, shadow: Image) -> None:
        """Give the painted ground grain, shadows [H, W] (255 = none) and haze."""
        start = max(int(np.ceil(canvas.camera.horizon)) + 1, 0)
        height, width = canvas.codes.shape
        if start >= height:
            return
        rows = np.arange(start, height, dtype=np.float32)
        below = rows - np.float32(canvas.camera.horizon)
        depth = np.float32(canvas.camera.focal * canvas.camera.height) / below
        metre = np.diag([1 / _TEXTURE_SCALE, 1 / _TEXTURE_SCALE, 1.0])
        shift = np.array([[1.0, 0, 0], [0, 1, -start], [0, 0, 1]])
        # The texture wraps round, so only the place within one tile matters: small numbers.
        tile = self.texture.shape[0] / _TEXTURE_SCALE
        corner = np.eye(3)
        corner[:2, 2] = np.floor(np.array([canvas.camera.x, canvas.camera.s]) / tile) * tile
        matrix = shift @ canvas.camera.ground_homography() @ corner @ metre
        grain = cv2.warpPerspective(
            self.texture, matrix, (width, height - start), borderMode=cv2.BORDER_WRAP
        )
        strength = np.clip(14.0 / depth, 0.1, 1.0)[:, None] / np.float32(128.0)
        veil = (1 - np.exp(-depth / np.float32(canvas.haze.reach)))[:, None]
        factor = (1 + (grain.astype(np.float32) - 128) * strength) * (1 - veil)
        factor *= shadow[start:] * np.float32(1 / 255.0)
        ground: NDArray[Any] = cv2.multiply(
            canvas.image[start:], cv2.merge([factor] * 3), dtype=cv2.CV_32F
        )
        ground += veil[..., None] * np.array(canvas.haze.color, np.float32)
        canvas.image[start:] = cv2.convertScaleAbs(ground)

    def _ribbon(
        self, canvas: Canvas, inner: float, outer: float, z: float, color: Color, code: int
    ) -> None:
        canvas.polygon(self._strip(canvas, (inner, z), (outer, z)), color, code, hazy=False)

    def _strip(
        self, canvas: Canvas, inner: tuple[float, float], outer: tuple[float, float]
    ) -> Points:
        """World outline of the strip between two (offset, z) lines along the road."""
        s = canvas.camera.s + _STEPS
        x = self.style.centres(s)
        a = np.stack([x + inner[0], s, np.full_like(s, inner[1])], 1)
        b = np.stack([x + outer[0], s, np.full_like(s, outer[1])], 1)
        return np.vstack([a, b[::-1]])

    def _pavement(self, canvas: Canvas, sign: int, kerb: float, front: float, paved: bool) -> None:
        style = self.style
        outer = front + (20.0 if paved else 0.0)
        self._ribbon(canvas, sign * kerb, sign * outer, _KERB, style.pavement, SIDEWALK)
        if self.tiles:
            self._joints(canvas, sign, kerb, front)
        self._ribbon(canvas, sign * kerb, sign * (kerb + 0.15), _KERB, self.kerb_color, SIDEWALK)
        face = self._strip(canvas, (sign * kerb, 0.0), (sign * kerb, _KERB))
        dark = _mix(self.kerb_color, (0.0, 0.0, 0.0), 0.25)
        canvas.bent_strip(face, dark, SIDEWALK)

    def _joints(self, canvas: Canvas, sign: int, kerb: float, front: float) -> None:
        """Joints between paving slabs, near the camera."""
        first = int(canvas.camera.s)
        bars = []
        for s in range(first + 1, first + 22):
            x = self.style.centre(float(s))
            bars.append(_bar(x + sign * kerb, x + sign * front, s, s + 0.03, _KERB))
        self._paint(canvas, bars, _mix(self.style.pavement, (0.0, 0.0, 0.0), 0.2))

    def _side_road(self, canvas: Canvas, chunk: int) -> None:
        s0, s1 = chunk * CHUNK + 7.0, chunk * CHUNK + 17.0
        x = self.style.centre((s0 + s1) / 2)
        left, right = self.style.sides
        for u0, u1 in ((-90.0, -left.kerb), (right.kerb, 90.0)):
            outline = _bar(x + u0, x + u1, s0, s1, _KERB)
            canvas.polygon(outline, self.style.asphalt, ROAD, hazy=False)

    def _zebra(self, canvas: Canvas, chunk: int) -> None:
        s = chunk * CHUNK + 3.0
        x = self.style.centre(s)
        left, right = self.style.sides
        bars = [
            _bar(x + u, x + u + 0.5, s, s + 3.0)
            for u in np.arange(-left.kerb + 0.3, right.kerb, 1.0).tolist()
        ]
        self._paint(canvas, bars, self._marking())

    def _patches(self, canvas: Canvas, chunk: int) -> None:
        """Repairs and manhole covers."""
        rng = np.random.default_rng([self.seed, 7, chunk + (1 << 30)])
        left, right = self.style.sides
        for _ in range(int(rng.integers(0, 4))):
            s = chunk * CHUNK + rng.uniform(0, CHUNK)
            u, width, length = rng.uniform(-left.kerb, right.kerb - 1), 0.7, 0.7
            if rng.random() < 0.6:
                width, length = rng.uniform(0.3, 2.5), rng.uniform(1, 9)
            x = self.style.centre(s) + u
            width = min(width, right.kerb - u)
            tone = 0.0 if rng.random() < 0.7 else 200.0
            color = _mix(self.style.asphalt, (tone, tone, tone), rng.uniform(0.05, 0.25))
            self._paint(canvas, [_bar(x, x + width, s, s + length)], color)

    def _markings(self, canvas: Canvas) -> None:
        style = self.style
        for lane in range(1, style.lanes_same):
            self._dashes(canvas, (lane - style.ego_lane - 0.5) * style.lane)
        middle = -(style.ego_lane + 0.5) * style.lane
        if style.lanes_opposite and not style.median:
            (self._line if self.solid_middle else self._dashes)(canvas, middle)
        for lane in range(1, style.lanes_opposite):
            self._dashes(canvas, middle - style.median - lane * style.lane)
        if self.edge_lines:
            self._line(canvas, (style.lanes_same - style.ego_lane - 0.5) * style.lane - 0.1)
            self._line(canvas, middle + 0.15 if style.median else -style.sides[0].kerb + 0.4)

    def _line(self, canvas: Canvas, offset: float) -> None:
        strip = self._strip(canvas, (offset - 0.07, 0.0), (offset + 0.07, 0.0))
        self._paint(canvas, [strip], self._marking())

    def _dashes(self, canvas: Canvas, offset: float) -> None:
        length, period = self.dash
        first = int(canvas.camera.s // period)
        bars = []
        for i in range(first, first + int(90 / period)):
            a, b = i * period, i * period + length
            xa, xb = self.style.centre(a) + offset, self.style.centre(b) + offset
            bars.append(np.array([[xa - 0.07, a, 0.0], [xa + 0.07, a, 0],
                                  [xb + 0.07, b, 0], [xb - 0.07, b, 0]]))  # fmt: skip
        self._paint(canvas, bars, self._marking())

    def _marking(self) -> Color:
        return _mix(self.style.marking, self.style.asphalt, self.style.wear)

    def _paint(self, canvas: Canvas, outlines: list[Points], color: Color) -> None:
        """Paint outlines in the picture only: markings do not change the class."""
        if not outlines:
            return
        view = canvas.camera.view(np.concatenate(outlines))
        parts = np.split(view, np.cumsum([len(outline) for outline in outlines])[:-1])
        if view[:, 2].min() < NEAR:
            parts = [cut for cut in map(clip_near, parts) if len(cut) >= 3]
        canvas.paint([canvas.camera.pixels(part) for part in parts], color)


def _bar(x0: float, x1: float, s0: float, s1: float, z: float = 0.0) -> Points:
    return np.array([[x0, s0, z], [x1, s0, z], [x1, s1, z], [x0, s1, z]])


def _mix(a: Color, b: Color, fraction: float) -> Color:
    x, y, z = (p + fraction * (q - p) for p, q in zip(a, b, strict=True))
    return (x, y, z)
