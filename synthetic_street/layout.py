"""What a seed stands for: the road, its sides, the light, the traffic and the ego motion."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan, cos, pi, sin

import numpy as np

from .canvas import Color

ROAD, SIDEWALK, BUILDING, FENCE, POLE, SIGN, VEGETATION, SKY = range(8)
PERSON, CYCLIST, VEHICLE = 8, 9, 10

CHUNK = 24.0
"""Metres of road that are laid out together."""


@dataclass(frozen=True)
class Side:
    """One side of the road; offsets are metres outwards from the centre of the ego lane."""

    kerb: float
    parking: float
    """Width of the parking lane inside the kerb, 0 = none."""
    front: float
    """Offset of the frontage: everything between kerb and front is pavement (or verge)."""
    paved: bool
    verge: float
    """Width of a strip of grass next to the kerb."""
    frontage: dict[str, float]
    """Chance of each kind of frontage per chunk."""
    barrier: float
    """Chance of a fence or hedge per chunk."""
    trees: float
    """Trees per chunk."""
    posts: float
    """Lamp posts, signs and bollards per chunk."""
    people: float
    """Walkers per 100 m and direction."""
    rail: bool
    """A guard rail along the kerb."""
    steel: bool
    """The rail is a steel beam on posts, else a low concrete wall."""


@dataclass(frozen=True)
class Style:
    """Everything random about a street that holds for the whole of it; SI units."""

    kind: str
    mirror: float
    lane: float
    lanes_same: int
    lanes_opposite: int
    ego_lane: int
    median: float
    sides: tuple[Side, Side]
    """Left (opposite traffic) and right (near kerb)."""
    speed: float
    stop_and_go: float
    """0 = constant speed, 1 = comes to a standstill now and then."""
    bends: tuple[tuple[float, float, float], ...]
    """Amplitude, wavelength and phase of the road's centre line."""
    camera_height: float
    field_of_view: float
    """Focal length in image widths."""
    horizon: float
    """Row of the horizon as a fraction of the image height."""
    shake: float
    asphalt: Color
    pavement: Color
    terrain: Color
    marking: Color
    wear: float
    crossings: float
    """Chance of a side road per chunk."""
    traffic: float
    """Vehicles per 100 m and lane."""
    heavy: float
    parked: float
    """Fraction of parking places taken."""
    cyclists: float
    """Cyclists per 100 m and direction."""

    def centres(self, s: np.ndarray) -> np.ndarray:
        """x of the ego lane's middle at places s along the road."""
        return np.asarray(sum(a * np.sin(2 * pi * s / w + p) for a, w, p in self.bends))

    def centre(self, s: float) -> float:
        """x of the ego lane's middle at one place."""
        return sum(a * sin(2 * pi * s / w + p) for a, w, p in self.bends)

    def heading(self, s: float) -> float:
        """Direction of the road at s, radians from +s towards +x."""
        return atan(sum(a * 2 * pi / w * cos(2 * pi * s / w + p) for a, w, p in self.bends))

    def travelled(self, seconds: float) -> float:
        """Where the ego vehicle is along the road; strictly increasing."""
        rate = 2 * pi / 19.0
        return self.speed * (seconds - 0.97 * self.stop_and_go * sin(rate * seconds) / rate)

    def pace(self, seconds: float) -> float:
        """Speed of the ego vehicle along the road in m/s, the derivative of `travelled`."""
        return self.speed * (1 - 0.97 * self.stop_and_go * cos(2 * pi / 19.0 * seconds))

    def arrival(self, s: float) -> float:
        """Seconds at which the ego vehicle reaches s; the inverse of `travelled`."""
        low, high = s / self.speed - 4.0, s / self.speed + 4.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.travelled(middle) < s else (low, middle)
        return (low + high) / 2


def random_style(rng: np.random.Generator) -> Style:
    """Draw a street."""
    kind = str(rng.choice(["city", "suburb", "green", "highway"], p=[0.42, 0.3, 0.12, 0.16]))
    highway = kind == "highway"
    lane = rng.uniform(3.3, 3.8) if highway else rng.uniform(2.8, 3.5)
    same = int(rng.integers(2, 5)) if highway else int(rng.choice([1, 1, 2]))
    opposite = int(rng.choice([0, 2, 3])) if highway else int(rng.choice([0, 1, 1, 1, 2]))
    ego = int(rng.integers(same))
    median = rng.uniform(1.5, 8.0) if highway else 0.0
    left = (ego + 0.5 + opposite) * lane + median
    right = (same - ego - 0.5) * lane
    gray = rng.uniform(44, 128)
    asphalt = gray + rng.normal(0, 3, 3) + rng.uniform(-4, 4) * np.array([1, 0, -1])
    return Style(
        kind=kind,
        mirror=float(rng.choice([-1.0, 1.0])),
        lane=lane,
        lanes_same=same,
        lanes_opposite=opposite,
        ego_lane=ego,
        median=median,
        sides=(_random_side(rng, kind, left), _random_side(rng, kind, right)),
        speed={"city": 7.0, "suburb": 10.0, "green": 13.0, "highway": 23.0}[kind]
        * rng.uniform(0.75, 1.3),
        stop_and_go=float(rng.choice([0.0, 0.5, 1.0])) if kind == "city" else rng.uniform(0, 0.4),
        bends=(
            (rng.uniform(0, 14), rng.uniform(320, 600), rng.uniform(0, 6.3)),
            (rng.uniform(0, 1.5), rng.uniform(150, 260), rng.uniform(0, 6.3)),
        ),
        camera_height=rng.uniform(1.2, 1.65),
        field_of_view=rng.uniform(0.8, 1.35),
        horizon=rng.uniform(0.38, 0.56),
        shake=rng.uniform(0.2, 1.0),
        asphalt=_rgb(asphalt),
        pavement=_rgb(asphalt * rng.uniform(0.95, 1.5) + rng.uniform(0, 30) + rng.normal(0, 5, 3)),
        terrain=_grass(rng),
        marking=(225.0, 225.0, 220.0) if rng.random() < 0.8 else (220.0, 180.0, 60.0),
        wear=rng.uniform(0.0, 0.6),
        crossings=0.0 if highway else rng.uniform(0.0, 0.25),
        traffic=rng.uniform(1.0, 3.0) if highway else rng.uniform(0.6, 3.4),
        heavy=rng.uniform(0.08, 0.4),
        parked=rng.uniform(0.2, 0.95),
        cyclists=0.0 if highway else rng.uniform(0.0, 2.0),
    )


def _random_side(rng: np.random.Generator, kind: str, edge: float) -> Side:
    if kind == "highway":
        shoulder = rng.uniform(0.8, 3.0)
        return Side(
            kerb=edge + shoulder, parking=0.0, front=edge + shoulder + rng.uniform(2, 9),
            paved=False, verge=0.0, frontage={"open": 0.5, "trees": 0.5},
            barrier=rng.choice([0.0, 0.9]), trees=rng.uniform(0.2, 4.0),
            posts=rng.uniform(0.1, 0.7), people=0.0, rail=bool(rng.random() < 0.6),
            steel=bool(rng.random() < 0.7),
        )  # fmt: skip
    parking = float(rng.choice([0.0, 2.1])) if kind != "green" else 0.0
    walk = rng.uniform(1.4, 4.5)
    verge = rng.uniform(0.8, 2.5) if rng.random() < (0.2 if kind == "city" else 0.5) else 0.0
    frontage = {
        "city": {"buildings": 0.85, "houses": 0.05, "trees": 0.05, "open": 0.05},
        "suburb": {"buildings": 0.12, "houses": 0.66, "trees": 0.12, "open": 0.1},
        "green": {"houses": 0.12, "trees": 0.6, "open": 0.28},
    }[kind]
    return Side(
        kerb=edge + parking + rng.uniform(0.1, 0.6),
        parking=parking,
        front=edge + parking + 0.6 + verge + walk,
        paved=kind == "city",
        verge=verge,
        frontage=frontage,
        barrier={"city": 0.15, "suburb": 0.65, "green": 0.5}[kind],
        trees=rng.uniform(0, {"city": 1.4, "suburb": 2.0, "green": 3.5}[kind]),
        posts=rng.uniform(0.6, {"city": 2.6, "suburb": 1.6, "green": 0.9}[kind]),
        people={"city": 8.0, "suburb": 2.5, "green": 1.0}[kind] * rng.uniform(0.1, 1.4),
        rail=False,
        steel=False,
    )


def _rgb(values: np.ndarray) -> Color:
    r, g, b = np.clip(values, 15, 240)
    return (float(r), float(g), float(b))


def _grass(rng: np.random.Generator) -> Color:
    base = [(88, 108, 48), (72, 92, 44), (150, 132, 82), (112, 116, 64)][rng.integers(4)]
    return _rgb(np.array(base) * rng.uniform(0.7, 1.2))
