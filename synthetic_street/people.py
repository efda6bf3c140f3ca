"""People and cyclists of the synthetic street: flat jointed figures that face the camera."""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, cos, hypot, pi, sin

import cv2
import numpy as np

from .canvas import SHIFT, Canvas, Color, fixed_point


@dataclass(frozen=True)
class Figure:
    """Build and clothes of one person; lengths in metres."""

    height: float
    girth: float
    skin: Color
    hair: Color
    top: Color
    legs: Color
    shoes: Color
    skirt: bool
    bag: Color | None
    hood: bool


def random_figure(rng: np.random.Generator, child: float = 0.1) -> Figure:
    """A person as met on a pavement."""
    small = rng.random() < child
    skins = [(224, 178, 150), (198, 148, 118), (150, 104, 78), (96, 66, 50)]
    hairs = [(30, 24, 20), (70, 48, 30), (150, 116, 70), (120, 118, 116), (20, 20, 22)]
    return Figure(
        height=rng.uniform(1.0, 1.4) if small else rng.uniform(1.55, 1.92),
        girth=rng.uniform(0.85, 1.3),
        skin=skins[rng.integers(4)],
        hair=hairs[rng.integers(5)],
        top=_cloth(rng, 0.4),
        legs=_cloth(rng, 0.75),
        shoes=_cloth(rng, 0.8),
        skirt=bool(rng.random() < 0.15),
        bag=_cloth(rng, 0.5) if rng.random() < 0.4 else None,
        hood=bool(rng.random() < 0.2),
    )


def _cloth(rng: np.random.Generator, dark: float) -> Color:
    if rng.random() < dark:
        base = np.array([(22, 22, 26), (36, 42, 60), (60, 58, 56), (52, 40, 34)][rng.integers(4)])
    else:
        base = rng.uniform(20, 240, 3)
    r, g, b = np.clip(base * rng.uniform(0.7, 1.3), 5, 245)
    return (float(r), float(g), float(b))


def person_size(figure: Figure) -> tuple[float, float, float]:
    """Length, width and height in metres of the box round all steps of `draw_person`."""
    h, girth = figure.height, figure.girth
    return 0.4 * h + 0.11 * girth + 0.1, 0.1 * h + 0.42 * girth + 0.07, h


def cyclist_size(figure: Figure) -> tuple[float, float, float]:
    """Length, width and height in metres of the box round what `draw_cyclist` paints."""
    return 1.74, 0.58, 0.69 + 0.62 * figure.height


Place = tuple[float, float]
"""Metres right of and above the feet, in the figure's plane."""

_CIRCLE = [(cos(i * pi / 5), sin(i * pi / 5)) for i in range(10)]


class _Brush:
    """Collects convex patches in the figure's plane and paints them together."""

    def __init__(self) -> None:
        self.points: list[Place] = []
        self.ends: list[int] = []
        self.colors: list[Color] = []

    def area(self, points: list[Place], color: Color) -> None:
        """A convex patch."""
        self.points.extend(points)
        self.ends.append(len(self.points))
        self.colors.append(color)

    def limb(self, a: Place, b: Place, wide: float, narrow: float, color: Color) -> None:
        """A tapered limb from a to b."""
        x, y = b[0] - a[0], b[1] - a[1]
        length = 2 * max(hypot(x, y), 1e-6)
        p, q = -y / length, x / length
        self.area([(a[0] + p * wide, a[1] + q * wide), (b[0] + p * narrow, b[1] + q * narrow),
                   (b[0] - p * narrow, b[1] - q * narrow), (a[0] - p * wide, a[1] - q * wide)],
                  color)  # fmt: skip

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, color: Color) -> None:
        """An upright ellipse."""
        self.area([(cx + rx * c, cy + ry * s) for c, s in _CIRCLE], color)

    def paint(self, canvas: Canvas, place: tuple[float, float], shade: float, code: int) -> None:
        """Put everything on the canvas with the feet at world (x, s)."""
        camera = canvas.camera
        foot = camera.view(np.array([[*place, 0.0]]))
        depth = float(foot[0, 2])
        origin, scale = camera.pixels(foot)[0], camera.focal / depth
        corners = fixed_point(np.array(self.points) * (scale, -scale) + origin)
        colors = np.minimum(np.array(self.colors) * shade, 255)
        colors += canvas.haze.fraction(depth) * (np.array(canvas.haze.color) - colors)
        start, code = 0, canvas.part(code, foot)
        for end, color in zip(self.ends, colors.tolist(), strict=True):
            patch, start = corners[start:end], end
            cv2.fillConvexPoly(canvas.image, patch, color, cv2.LINE_AA, SHIFT)
            cv2.fillConvexPoly(canvas.codes, patch, (code,), cv2.LINE_8, SHIFT)


def in_sight(canvas: Canvas, place: tuple[float, float]) -> bool:
    """Whether a figure at world (x, s) may be in the picture."""
    foot = canvas.camera.view(np.array([[*place, 0.0]]))
    depth = float(foot[0, 2])
    if depth < 0.8:
        return False
    return canvas.is_in_view(canvas.camera.pixels(foot)[0, 0], 1.2 * canvas.camera.focal / depth)


def draw_person(
    canvas: Canvas,
    figure: Figure,
    place: tuple[float, float],
    gait: float,
    across: float,
    shade: float,
    code: int,
) -> None:
    """Paint a person.

    Args:
        place: feet on the ground (x, s), metres.
        gait: phase of the step in radians; constant while standing.
        across: part of the motion across the view, -1 (to the left) .. 1 (to the right).
        shade: brightness factor.
        code: from `Canvas.thing`.
    """
    brush = _Brush()
    h, wide = figure.height, 0.5 * figure.girth * (1 - 0.35 * abs(across))
    hip, shoulder = 0.5 * h, 0.82 * h
    swing = sin(gait)
    stride = 0.2 * h * across if abs(across) > 0.1 else 0.03 * h
    for leg in (-1, 1):
        _leg(brush, figure, leg, hip, leg * swing * stride, max(0.0, leg * cos(gait)))
    arm_x = 0.42 * wide
    _arm(brush, figure, -1, arm_x, shoulder, -swing * stride, across)
    _torso(brush, figure, wide, hip, shoulder)
    _arm(brush, figure, 1, arm_x, shoulder, swing * stride, across)
    _head(brush, figure, h, across)
    if figure.bag is not None:
        side = copysign(0.14, -across) if abs(across) > 0.3 else 0.0
        low, high = 0.56 * h, 0.8 * h
        brush.area([(side - 0.13, low), (side + 0.13, low), (side + 0.11, high),
                    (side - 0.11, high)], figure.bag)  # fmt: skip
    brush.paint(canvas, place, shade, code)


def _leg(brush: _Brush, figure: Figure, leg: int, hip: float, reach: float, lift: float) -> None:
    h, girth = figure.height, figure.girth
    top = (0.055 * leg * girth, hip + 0.02 * h)
    x, y = top[0] + reach, 0.03 * h + 0.05 * h * lift
    bend = copysign(0.02 * h * lift, reach)
    knee = ((top[0] + x) / 2 + bend, (top[1] + y) / 2)
    bare = figure.skin if figure.skirt else figure.legs
    brush.limb(top, knee, 0.105 * h * girth, 0.08 * h * girth, figure.legs)
    brush.limb(knee, (x, y), 0.078 * h * girth, 0.055 * h, bare)
    brush.area([(x - 0.045, y - 0.03 * h), (x + 0.05, y - 0.03 * h), (x + 0.045, y + 0.02 * h),
                (x - 0.04, y + 0.02 * h)], figure.shoes)  # fmt: skip


def _arm(
    brush: _Brush, figure: Figure, arm: int, x: float, shoulder: float, reach: float, across: float
) -> None:
    h = figure.height
    top = (arm * x * (1 - 0.8 * abs(across)), shoulder - 0.02 * h)
    hand = (top[0] + arm * 0.03 - reach, 0.47 * h)
    elbow = ((top[0] + hand[0]) / 2 + 0.03 * arm * (1 - abs(across)), (top[1] + hand[1]) / 2)
    brush.limb(top, elbow, 0.06 * h, 0.05 * h, figure.top)
    brush.limb(elbow, hand, 0.05 * h, 0.035 * h, figure.top)
    brush.ellipse(hand[0], hand[1], 0.022 * h, 0.028 * h, figure.skin)


def _torso(brush: _Brush, figure: Figure, wide: float, hip: float, shoulder: float) -> None:
    half = wide / 2
    waist, top = hip + 0.2, shoulder + 0.05
    brush.area([(-half * 0.62, hip - 0.04), (half * 0.62, hip - 0.04), (half * 0.6, waist),
                (-half * 0.6, waist)], figure.top)  # fmt: skip
    brush.area([(-half * 0.6, waist), (half * 0.6, waist), (half * 0.9, shoulder),
                (half * 0.4, top), (-half * 0.4, top), (-half * 0.9, shoulder)],
               figure.top)  # fmt: skip
    if figure.skirt:
        low = hip * 0.55
        brush.area([(-half * 0.6, hip + 0.05), (half * 0.6, hip + 0.05), (half * 0.85, low),
                    (-half * 0.85, low)], figure.legs)  # fmt: skip


def _head(brush: _Brush, figure: Figure, h: float, across: float) -> None:
    brush.limb((0.0, 0.83 * h), (0.0, 0.9 * h), 0.09, 0.08, figure.skin)
    brush.ellipse(0.0, h - 0.12, 0.085, 0.12, figure.top if figure.hood else figure.hair)
    if abs(across) > 0.3:
        brush.ellipse(copysign(0.03, across), h - 0.14, 0.065, 0.09, figure.skin)


def draw_cyclist(
    canvas: Canvas,
    figure: Figure,
    bike: Color,
    place: tuple[float, float],
    pedal: float,
    across: float,
    shade: float,
    code: int,
) -> None:
    """Paint a rider on a bicycle; arguments as for `draw_person`, `pedal` in radians."""
    brush = _Brush()
    side, base = abs(across), 0.53 * across
    hip, bar, crank = (-0.2 * across, 0.98), (0.45 * across, 1.02), (0.0, 0.32)
    head = (0.12 * across, 0.55 + figure.height * 0.62)
    for end in (-1, 1):
        _bicycle_wheel(brush, end * base, side)
    seat, tube = (hip[0], 0.85), (bar[0], 0.9)
    for a, b in ((seat, crank), (crank, tube), (seat, tube), (bar, (base, 0.34)),
                 (crank, (-base, 0.34)), (seat, (-base, 0.34))):  # fmt: skip
        brush.limb(a, b, 0.05, 0.05, bike)
    for leg in (-1, 1):
        _pedalling_leg(brush, figure, leg, hip, pedal, across)
    _rider(brush, figure, hip, head, bar, side)
    brush.paint(canvas, place, shade, code)


def _pedalling_leg(
    brush: _Brush, figure: Figure, leg: int, hip: Place, pedal: float, across: float
) -> None:
    offset = 0.09 * leg * (1 - abs(across))
    turn = pedal + (pi if leg < 0 else 0.0)
    foot = (offset + 0.17 * cos(turn) * across, 0.32 + 0.17 * sin(turn))
    thigh = (hip[0] + offset, hip[1])
    knee = ((hip[0] + foot[0]) / 2 + offset + 0.2 * across, (hip[1] + foot[1]) / 2 + 0.08)
    brush.limb(thigh, knee, 0.17, 0.13, figure.legs)
    brush.limb(knee, foot, 0.12, 0.08, figure.legs)
    brush.ellipse(foot[0], foot[1], 0.06, 0.04, figure.shoes)


def _rider(brush: _Brush, figure: Figure, hip: Place, head: Place, bar: Place, side: float) -> None:
    """Trunk, arms and head; `side` = 1 seen from the side, 0 from behind."""
    half = 0.21 * figure.girth * (1 - 0.4 * side)
    x, y = head[0] * 0.85, head[1] - 0.24
    brush.area([(hip[0] - half * 0.75, hip[1] - 0.05), (hip[0] + half * 0.75, hip[1] - 0.05),
                (x + half, y), (x + half * 0.4, y + 0.09), (x - half * 0.4, y + 0.09),
                (x - half, y)], figure.top)  # fmt: skip
    for arm in (-1, 1):
        hand = (bar[0] + arm * 0.24 * (1 - side), bar[1])
        brush.limb((x + arm * half * 0.9, y), hand, 0.09, 0.06, figure.top)
    brush.ellipse(head[0], head[1], 0.1, 0.13, figure.skin if side > 0.4 else figure.hair)
    brush.ellipse(head[0], head[1] + 0.06, 0.115, 0.085, figure.bag or figure.hair)


def _bicycle_wheel(brush: _Brush, x: float, side: float) -> None:
    """Tyre and a paler disc of spokes; all of it belongs to the cyclist."""
    rx = 0.03 + 0.31 * side
    brush.ellipse(x, 0.34, rx, 0.34, (24, 24, 26))
    if side > 0.3:
        brush.ellipse(x, 0.34, rx - 0.05, 0.29, (96, 96, 94))
