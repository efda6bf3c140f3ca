"""Polyhedra of cars, vans, trucks and buses, with windows, wheels and lights.

Local frame: x right, y forward, z up; metres; the origin is on the ground under the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .canvas import Color, Points

_Corner = tuple[float, float, float]
_Rectangle = tuple[float, float, float, float]
"""Level rectangle: half width, rear, front, height."""
_Frustum = tuple[_Rectangle, _Rectangle]
"""Block between a lower and an upper rectangle."""
_Quad = list[_Corner]
"""Bottom left, bottom right, top right, top left."""


def _sides(block: _Frustum) -> tuple[_Quad, _Quad, dict[int, _Quad]]:
    """Rear and front of a block, and its left (-1) and right (1) side."""
    (xa, ya, yb, za), (xb, yc, yd, zb) = block
    rear = [(-xa, ya, za), (xa, ya, za), (xb, yc, zb), (-xb, yc, zb)]
    front = [(-xa, yb, za), (xa, yb, za), (xb, yd, zb), (-xb, yd, zb)]
    flanks = {
        side: [(side * xa, ya, za), (side * xa, yb, za), (side * xb, yd, zb), (side * xb, yc, zb)]
        for side in (-1, 1)
    }
    return rear, front, flanks


@dataclass(frozen=True)
class VehicleModel:
    """Shape and colours of one vehicle; equal models have the same faces."""

    kind: str
    """car, van, truck or bus."""
    length: float
    width: float
    height: float
    paint: Color
    seed: int
    """Varies the details."""


def random_paint(rng: np.random.Generator) -> Color:
    palette = [
        (20, 20, 22), (52, 54, 58), (110, 114, 118), (176, 180, 184), (228, 230, 230),
        (140, 18, 20), (24, 44, 100), (44, 84, 140), (30, 70, 46), (190, 170, 130),
        (200, 150, 30), (96, 30, 40), (70, 90, 110), (210, 80, 30), (90, 130, 160),
    ]  # fmt: skip
    weights = np.array([3, 3, 3, 4, 3, 2, 2, 2, 1, 0.7, 0.6, 1, 1.5, 0.4, 1])
    base = np.array(palette[rng.choice(len(palette), p=weights / weights.sum())])
    r, g, b = np.clip(base * rng.uniform(0.8, 1.15) + rng.normal(0, 5, 3), 4, 245)
    return (float(r), float(g), float(b))


@dataclass(frozen=True)
class _Face:
    corners: slice
    color: Color
    glow: bool
    outline: bool
    """Part of the silhouette; other faces lie on one that is."""
    fine: bool
    """Invisible from afar."""


class _Shape:
    """Faces in painter's order for a viewer above the belt line."""

    def __init__(self) -> None:
        self.points: list[_Corner] = []
        self.faces: list[_Face] = []
        self.normals: list[Points] = []

    def face(
        self, corners: list[_Corner], color: Color, outward: _Corner,
        glow: bool = False, outline: bool = True, fine: bool = False,
    ) -> None:  # fmt: skip
        """Add a flat face; `outward` is roughly where its front faces."""
        p = np.array(corners)
        normal = np.cross(p[1] - p[0], p[2] - p[0])
        normal /= max(float(np.linalg.norm(normal)), 1e-9)
        self.normals.append(normal if normal @ np.array(outward) >= 0 else -normal)
        start = len(self.points)
        self.points.extend(corners)
        self.faces.append(_Face(slice(start, len(self.points)), color, glow, outline, fine))

    def block(self, block: _Frustum, color: Color) -> None:
        """Six-sided block between two rectangles."""
        xb, yc, yd, zb = block[1]
        rear, front, flanks = _sides(block)
        self.face([(-xb, yc, zb), (xb, yc, zb), (xb, yd, zb), (-xb, yd, zb)], color, (0, 0, 1))
        self.face(rear, color, (0, -1, 0))
        self.face(front, color, (0, 1, 0))
        for side, quad in flanks.items():
            self.face(quad, color, (side, 0, 0))

    def inset(self, quad: _Quad, u: tuple[float, float], v: tuple[float, float],
              color: Color, outward: _Corner, glow: bool = False,
              fine: bool = False) -> None:  # fmt: skip
        """Part of a quad in fractions."""
        a, b, c, d = (np.array(p) for p in quad)
        corners = []
        for s, t in ((u[0], v[0]), (u[1], v[0]), (u[1], v[1]), (u[0], v[1])):
            p = (a * (1 - s) + b * s) * (1 - t) + (d * (1 - s) + c * s) * t
            corners.append((float(p[0]), float(p[1]), float(p[2])))
        self.face(corners, color, outward, glow, outline=False, fine=fine)


@dataclass(frozen=True)
class _Mesh:
    points: Points
    faces: tuple[_Face, ...]
    colors: Points
    normals: Points
    anchors: Points
    coarse: NDArray[np.bool_]


@lru_cache(maxsize=1024)
def mesh(model: VehicleModel) -> _Mesh:
    shape = _Shape()
    rng = np.random.default_rng(model.seed)
    if model.kind in ("truck", "bus"):
        _build_boxy(shape, model, rng)
    else:
        _build_car(shape, model, rng)
    points = np.array(shape.points)
    return _Mesh(
        points,
        tuple(shape.faces),
        np.array([f.color for f in shape.faces]),
        np.array(shape.normals),
        np.array([points[f.corners.start] for f in shape.faces]),
        np.array([not f.fine for f in shape.faces]),
    )


_TYRE: Color = (18, 18, 18)
_TRIM: Color = (34, 35, 37)


def _build_car(shape: _Shape, m: VehicleModel, rng: np.random.Generator) -> None:
    """Car or van: lower body, then a tapered cabin on top."""
    half, rear, front = m.width / 2, -m.length / 2, m.length / 2
    van = m.kind == "van"
    belt = m.height * (rng.uniform(0.5, 0.6) if van else rng.uniform(0.56, 0.63))
    _wheels(shape, m, 0.3 if not van else 0.34)
    lower = (half, rear, front, 0.24)
    shape.block((lower, (half * 0.97, rear + 0.06, front - 0.12, belt)), m.paint)
    _bumpers(shape, m, belt, rng)
    estate = van or rng.random() < 0.5
    bottom_rear = rear + (0.06 if estate else m.length * rng.uniform(0.1, 0.2))
    bottom_front = front - m.length * (rng.uniform(0.1, 0.2) if van else rng.uniform(0.24, 0.3))
    top_rear = bottom_rear + (0.08 if van else rng.uniform(0.2, 0.5))
    top_front = bottom_front - (0.7 if van else rng.uniform(0.6, 0.95))
    taper = 0.92 if van else rng.uniform(0.76, 0.84)
    cabin = ((half * 0.96, bottom_rear, bottom_front, belt),
             (half * taper, top_rear, top_front, m.height))  # fmt: skip
    shape.block(cabin, m.paint)
    _cabin_windows(shape, cabin, van and rng.random() < 0.6, rng)


def _cabin_windows(
    shape: _Shape, cabin: _Frustum, panel_van: bool, rng: np.random.Generator
) -> None:
    glass: Color = (38, 46, 54) if rng.random() < 0.7 else (70, 84, 96)
    sheen: Color = (120, 136, 150)
    rear, front, flanks = _sides(cabin)
    if panel_van:
        shape.inset(rear, (0.49, 0.51), (0, 1), _TRIM, (0, -1, 0))
    else:
        shape.inset(rear, (0.07, 0.93), (0.12, 0.86), glass, (0, -1, 0))
        shape.inset(rear, (0.12, 0.6), (0.68, 0.82), sheen, (0, -1, 0), fine=True)
    shape.inset(front, (0.05, 0.95), (0.06, 0.9), glass, (0, 1, 0))
    shape.inset(front, (0.1, 0.5), (0.6, 0.84), sheen, (0, 1, 0), fine=True)
    panes = ((0.62, 0.94),) if panel_van else ((0.07, 0.3), (0.33, 0.6), (0.63, 0.93))
    for side, quad in flanks.items():
        for pane in panes:
            shape.inset(quad, pane, (0.1, 0.85), glass, (side, 0, 0))


def _bumpers(shape: _Shape, m: VehicleModel, belt: float, rng: np.random.Generator) -> None:
    """Bumper, plate, lamps, grille and sill on the lower body."""
    half, end = m.width / 2, m.length / 2
    trim = _TRIM if rng.random() < 0.5 else m.paint
    plate: Color = (230, 200, 40) if rng.random() < 0.4 else (225, 225, 220)
    tall = rng.random() < 0.5
    for sign in (-1, 1):
        y0, y1 = sign * (end + 0.01), sign * (end - (0.05 if sign < 0 else 0.11))
        quad = [(-half, y0, 0.24), (half, y0, 0.24), (half * 0.97, y1, belt),
                (-half * 0.97, y1, belt)]  # fmt: skip
        out = (0.0, float(sign), 0.0)
        shape.inset(quad, (0, 1), (0, 0.3), trim, out)
        shape.inset(
            quad, (0.36, 0.64), (0.34, 0.5) if sign < 0 else (0.08, 0.24), plate, out, fine=True
        )
        low, inner = (0.45, 0.16) if tall and sign < 0 else (0.58, 0.24)
        lamp: Color = (170, 16, 20) if sign < 0 else (225, 225, 215)
        for u in ((0.02, inner), (1 - inner, 0.98)):
            shape.inset(quad, u, (low, 0.88), lamp, out, glow=True)
        if sign > 0:
            shape.inset(quad, (0.28, 0.72), (0.5, 0.8), _TRIM, out)
    for side in (-1, 1):
        x = side * (half + 0.005)
        quad = [(x, -end, 0.24), (x, end, 0.24), (x * 0.97, end, belt), (x * 0.97, -end, belt)]
        shape.inset(quad, (0.02, 0.98), (0, 0.12), _TRIM, (side, 0, 0))
        for seam in (0.36, 0.62):
            shape.inset(quad, (seam, seam + 0.006), (0.1, 1), _TRIM, (side, 0, 0), fine=True)
        _wheel_discs(shape, m, side, 0.33)


def _wheels(shape: _Shape, m: VehicleModel, radius: float) -> None:
    """Tyres as seen from behind or in front, under the body."""
    half = m.width / 2
    for end in (-1.0, 1.0):
        y = end * m.length * 0.3
        for side in (-1, 1):
            x0, x1 = side * half * 0.98, side * (half * 0.98 - 0.22)
            for face in (-1.0, 1.0):
                yf = y + face * radius
                shape.face([(x0, yf, 0), (x1, yf, 0), (x1, yf, radius), (x0, yf, radius)],
                           _TYRE, (0, face, 0))  # fmt: skip
    y, x, low, top = m.length * 0.49, half * 0.95, 0.5 * radius, 0.95 * radius
    for face in (-1.0, 1.0):
        axle = [(-x, face * y, low), (x, face * y, low), (x, face * y, top), (-x, face * y, top)]
        shape.face(axle, _TYRE, (0, face, 0))


def _wheel_discs(shape: _Shape, m: VehicleModel, side: int, radius: float) -> None:
    """Round wheels with rims on one side."""
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for end in (-1.0, 1.0):
        y = end * m.length * 0.3
        for r, color, out in ((radius, _TYRE, 0.012), (radius * 0.6, (150, 152, 154), 0.016)):
            x = side * (m.width / 2 + out)
            corners = [(x, y + r * float(np.cos(a)), radius + r * float(np.sin(a))) for a in angles]
            rim = r < radius
            shape.face(corners, color, (side, 0, 0), outline=not rim, fine=rim)


def _build_boxy(shape: _Shape, m: VehicleModel, rng: np.random.Generator) -> None:
    """Truck (cab and cargo box) or bus (one box with a band of windows)."""
    half, end = m.width / 2, m.length / 2
    _wheels(shape, m, 0.5)
    shape.block(((half * 0.96, -end, end, 0.4), (half * 0.96, -end, end, 0.95)), _TRIM)
    for side in (-1, 1):
        _wheel_discs(shape, m, side, 0.5)
    if m.kind == "bus":
        body = ((half, -end, end, 0.38), (half * 0.98, -end + 0.05, end - 0.1, m.height))
        shape.block(body, m.paint)
        _bus_details(shape, body, rng)
        return
    split = end - 1.9
    cargo: Color = (215, 216, 214) if rng.random() < 0.5 else random_paint(rng)
    cab = ((half * 0.95, split, end, 0.5), (half * 0.9, split, end - 0.25, m.height * 0.8))
    box = ((half, -end, split - 0.15, 0.9), (half, -end, split - 0.15, m.height))
    shape.block(cab, m.paint)
    _bus_details(shape, cab, rng)
    shape.block(box, cargo)
    rear = [(-half, -end, 0.9), (half, -end, 0.9), (half, -end, m.height), (-half, -end, m.height)]
    shape.inset(rear, (0.485, 0.515), (0, 1), _TRIM, (0, -1, 0))
    stripe = random_paint(rng)
    for side in (-1, 1):
        x = side * (half + 0.005)
        quad = [(x, -end, 0.9), (x, split, 0.9), (x, split, m.height), (x, -end, m.height)]
        shape.inset(quad, (0.15, 0.8), (0.35, 0.65), stripe, (side, 0, 0))
    _rear_lamps(shape, half, -end - 0.01)


def _bus_details(shape: _Shape, body: _Frustum, rng: np.random.Generator) -> None:
    half, back, ahead, _ = body[0]
    rear, front, flanks = _sides(body)
    glass: Color = (36, 42, 50)
    shape.inset(front, (0.05, 0.95), (0.38, 0.86), glass, (0, 1, 0))
    shape.inset(rear, (0.1, 0.9), (0.5, 0.85), glass, (0, -1, 0))
    for u in ((0.04, 0.2), (0.8, 0.96)):
        shape.inset(front, u, (0.1, 0.18), (225, 225, 215), (0, 1, 0), glow=True)
    band = random_paint(rng)
    long = ahead - back > 4
    for side, quad in flanks.items():
        shape.inset(quad, (0.02, 0.98), (0.1, 0.3), band, (side, 0, 0))
        panes = np.linspace(0.03, 0.97, 7 if long else 2)
        for u0, u1 in zip(panes[:-1], panes[1:], strict=True):
            shape.inset(quad, (u0, u1 - 0.015), (0.5, 0.85), glass, (side, 0, 0))
    _rear_lamps(shape, half, back - 0.01)


def _rear_lamps(shape: _Shape, half: float, y: float) -> None:
    for side in (-1, 1):
        x0, x1 = side * half * 0.95, side * half * 0.78
        shape.face([(x0, y, 0.6), (x1, y, 0.6), (x1, y, 0.85), (x0, y, 0.85)],
                   (170, 16, 20), (0, -1, 0), glow=True)  # fmt: skip
