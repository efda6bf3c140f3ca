"""Things beside the road that never move, and how they are painted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Protocol

import numpy as np

from .canvas import Canvas, Color, Panel, Points, Texture
from .layout import BUILDING, FENCE, POLE, SIGN, VEGETATION
from .light import Light


class Drawable(Protocol):
    """Anything the painter can put on the canvas."""

    @property
    def order(self) -> float:
        """Place in the painter's order, larger = earlier: the far end along the road."""
        ...

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Paint it."""
        ...

    def shadow(self, light: Light) -> Points | None:
        """World points [n, 3] on the ground whose hull it darkens."""
        ...


@dataclass(frozen=True)
class Building:
    """A front along the road, an end wall that looks back at the camera, a roof."""

    order: float
    front: Panel
    end: Panel
    """Reaches down to the roof of the building before, or to the ground."""
    roof: float
    """Height of the ridge above the walls; 0 = flat."""
    roof_color: Color
    texture: Texture
    side: int

    def draw(self, canvas: Canvas, light: Light) -> None:
        """End wall and roof first: the front covers their common edge."""
        along = light.facing(0, -1)
        if self.end.top > self.end.bottom:
            canvas.panel(self.texture, self.end, along, BUILDING)
        if self.roof:
            self._roof(canvas, light)
        canvas.panel(self.texture, self.front, light.facing(-self.side, 0), BUILDING)

    def shadow(self, light: Light) -> Points | None:
        """Only the sun casts a long shadow."""
        return light.cast_by_sun(self.front.corners()[[0, 3]], self.front.top)

    def _roof(self, canvas: Canvas, light: Light) -> None:
        (x0, s0), (x1, s1) = self.front.start, self.front.end
        back, top = self.end.end[0] - x0, self.front.top
        ridge = np.array(
            [[x0 + back / 2, s0, top + self.roof], [x1 + back / 2, s1, top + self.roof]]
        )
        eaves = np.array([[x0 - back * 0.04, s0, top - 0.1], [x1 - back * 0.04, s1, top - 0.1]])
        wall = scaled(self.texture.mean, light.facing(0, -1))
        gable = np.array([[x0, s0, top], ridge[0], [x0 + back, s0, top]])
        canvas.polygon(gable, wall, BUILDING)
        tiles = scaled(self.roof_color, light.facing(-self.side * 0.6, 0, 0.8))
        canvas.polygon(np.vstack([eaves, ridge[::-1]]), tiles, BUILDING)


@dataclass(frozen=True)
class Barrier:
    """A piece of fence, railing or hedge."""

    order: float
    panel: Panel
    texture: Texture
    code: int
    side: int

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Paint one panel; far away its texture cannot be seen."""
        shade = light.facing(-self.side, 0)
        if self.order - canvas.camera.s > 60:
            color = scaled(self.texture.mean, shade)
            canvas.polygon(self.panel.corners(), color, self.code)
        else:
            canvas.panel(self.texture, self.panel, shade, self.code)

    def shadow(self, light: Light) -> Points | None:
        """A strip on the ground."""
        return light.cast_by_sun(self.panel.corners()[[0, 3]], self.panel.top * 0.6)


@dataclass(frozen=True)
class GuardRail:
    """A steel beam on short posts, or a low concrete wall; both are fences."""

    order: float
    start: tuple[float, float]
    end: tuple[float, float]
    low: float
    color: Color

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Posts, then the beam with a bright edge."""
        (x0, s0), (x1, s1) = self.start, self.end
        near = self.order - canvas.camera.s < 50
        for fraction in (0.25, 0.75) if self.low and near else ():
            x, s = x0 + fraction * (x1 - x0), s0 + fraction * (s1 - s0)
            post = [[x, s - 0.08, 0.0], [x, s + 0.08, 0], [x, s + 0.08, 0.5], [x, s - 0.08, 0.5]]
            canvas.polygon(np.array(post), scaled(self.color, 0.6), FENCE)
        for bottom, top, shade in ((self.low, 0.8, 0.85), (0.66, 0.8, 1.15)):
            beam = [[x0, s0, bottom], [x1, s1, bottom], [x1, s1, top], [x0, s0, top]]
            canvas.polygon(np.array(beam), scaled(self.color, shade), FENCE)

    def shadow(self, light: Light) -> Points | None:
        """Under the beam."""
        return light.cast(np.array([[*self.start, 0.0], [*self.end, 0.0]]), 0.6)


@dataclass(frozen=True)
class Plant:
    """A tree or bush, drawn as a cut-out that faces the camera."""

    order: float
    s: float
    x: float
    height: float
    width: float
    texture: Texture

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Paint the cut-out."""
        foot = canvas.camera.view(np.array([[self.x, self.s, 0.0]]))
        depth = float(foot[0, 2])
        if depth < 2.0:
            return
        column, row = canvas.camera.pixels(foot)[0]
        scale = canvas.camera.focal / depth
        half, height = self.width / 2 * scale, self.height * scale
        box = (column - half, row - height, column + half, row)
        canvas.sprite(self.texture, box, depth, VEGETATION)

    def shadow(self, light: Light) -> Points | None:
        """A round patch where the crown's shadow falls, larger and nearer without sun."""
        angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1) * self.width * 0.4
        middle = light.cast(np.array([[self.x, self.s, 0.0]]), self.height * 0.6)[1]
        return ring + middle


@dataclass(frozen=True)
class Post:
    """A pole with a lamp arm, signs or traffic lights on it."""

    order: float
    s: float
    x: float
    height: float
    radius: float
    arm: float
    """Length of the arm over the road, signed; 0 = none."""
    color: Color
    plates: tuple[tuple[str, float, float, Color], ...]
    """Shape, height of the centre, size and colour of each plate."""

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Pole, arm, plates."""
        view = canvas.camera.view(np.array([[self.x, self.s, 0.0]]))
        if view[0, 2] < 1.5:
            return
        foot = canvas.camera.pixels(view)[0]
        depth = float(view[0, 2])
        scale = canvas.camera.focal / depth
        half = max(self.radius, 0.45 / scale)

        def area(points: list[tuple[float, float]], color: Color, code: int) -> None:
            pixels = np.array(points) * (scale, -scale) + foot
            canvas.fill(pixels, canvas.haze.mix(color, depth), canvas.part(code, view))

        h = self.height
        area([(-half, 0), (half, 0), (half * 0.7, h), (-half * 0.7, h)], self.color, POLE)
        if self.arm:
            a = self.arm * canvas.camera.mirror
            area([(0, h - 0.1), (a, h + 0.25), (a, h + 0.4), (0, h + 0.05)], self.color, POLE)
            area([(a * 0.8, h + 0.2), (a * 1.2, h + 0.3), (a * 1.2, h + 0.45), (a * 0.8, h + 0.4)],
                 scaled(self.color, 1.3), POLE)  # fmt: skip
        for shape, centre, size, color in self.plates if scale > 4 else ():
            _PLATES[shape](area, centre, size, color)

    def shadow(self, light: Light) -> Points | None:
        """A thin line, in the sun only."""
        r = self.radius
        base = np.array([[self.x - r, self.s, 0.0], [self.x + r, self.s, 0.0]])
        return light.cast_by_sun(base, self.height)


_CIRCLE = [(cos(i * pi / 6), sin(i * pi / 6)) for i in range(12)]
_Area = Callable[[list[tuple[float, float]], Color, int], None]


def _box(left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def _disc(area: _Area, centre: float, size: float, color: Color) -> None:
    for r, c in ((size / 2, color), (size * 0.36, (235.0, 235.0, 230.0))):
        area([(r * x, centre + r * y) for x, y in _CIRCLE], c, SIGN)
    bar = _box(-size * 0.2, centre - size * 0.05, size * 0.2, centre + size * 0.05)
    area(bar, (30.0, 30.0, 34.0), SIGN)


def _triangle(area: _Area, centre: float, size: float, color: Color) -> None:
    for r, c in ((size * 0.6, color), (size * 0.36, (235.0, 235.0, 230.0))):
        area([(-r, centre - r * 0.6), (r, centre - r * 0.6), (0.0, centre + r)], c, SIGN)


def _board(area: _Area, centre: float, size: float, color: Color) -> None:
    w, h = size * 0.8, size * 0.5
    area(_box(-w, centre - h, w, centre + h), color, SIGN)
    ink = (240.0, 240.0, 240.0) if sum(color) < 380 else (20.0, 20.0, 24.0)
    for row in (-0.3, 0.25):
        y = centre + row * 2 * h * 0.8
        area(_box(-w * 0.8, y - h * 0.15, w * 0.6, y + h * 0.15), ink, SIGN)


def _lights(area: _Area, centre: float, size: float, color: Color) -> None:
    w, h = 0.19, 0.5
    area(_box(-w, centre - h, w, centre + h), (22.0, 24.0, 24.0), SIGN)
    lit = {0: (255.0, 50.0, 40.0), 1: (255.0, 190.0, 50.0), 2: (70.0, 255.0, 140.0)}
    on = int(color[0]) % 3
    for i in range(3):
        y = centre + 0.3 - 0.3 * i
        shade = lit[i] if i == on else (50.0, 46.0, 42.0)
        area([(0.11 * u, y + 0.11 * v) for u, v in _CIRCLE], shade, SIGN)


_PLATES = {"disc": _disc, "triangle": _triangle, "board": _board, "lights": _lights}


def scaled(color: Color | np.ndarray, factor: float) -> Color:
    r, g, b = (float(min(c * factor, 255.0)) for c in color)
    return (r, g, b)
