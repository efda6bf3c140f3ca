"""What stands beside the road, built chunk by chunk, each from the seed and its number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import textures
from .canvas import Color, Panel, Texture
from .layout import CHUNK, FENCE, VEGETATION, Side, Style
from .scenery import Barrier, Building, Drawable, GuardRail, Plant, Post, scaled

_Place = tuple[float, float]
"""World (x, s)."""
_SEGMENT = 6.0
"""Metres of barrier painted as one panel; short, so that the painter's order holds."""


@dataclass(frozen=True)
class TextureSet:
    """The textures of one street."""

    facades: list[Texture]
    trees: list[Texture]
    bushes: list[Texture]
    hedges: list[Texture]
    fences: list[Texture]

    @classmethod
    def random(cls, rng: np.random.Generator) -> TextureSet:
        """Draw the textures that houses and plants of a street."""
        return cls(
            [textures.facade(rng) for _ in range(9)],
            [textures.tree(rng) for _ in range(6)],
            [textures.bush(rng) for _ in range(3)],
            [textures.hedge(rng) for _ in range(2)],
            [textures.fence(rng) for _ in range(2)],
        )


class RoadsideBuilder:
    """Fills one side of one chunk."""

    def __init__(self, rng: np.random.Generator, style: Style, textures: TextureSet, side: int):
        self.rng = rng
        self.style = style
        self.textures = textures
        self.sign = side
        self.side: Side = style.sides[0 if side < 0 else 1]
        self.items: list[Drawable] = []

    def place(self, offset: float, s: float) -> _Place:
        """World (x, s) of an outward offset from the ego lane."""
        return self.style.centre(s) + self.sign * offset, s

    def _segments(
        self, offset: float, s0: float
    ) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
        """Starts and ends of the panels along a chunk."""
        for s in np.arange(s0, s0 + CHUNK, _SEGMENT).tolist():
            yield self.place(offset, s), self.place(offset, s + _SEGMENT)

    def build(self, s0: float, crossing: bool) -> list[Drawable]:
        """All scenery from s0 to s0 + CHUNK; side roads keep their mouth free."""
        kinds = list(self.side.frontage)
        chances = np.array([self.side.frontage[k] for k in kinds])
        kind = kinds[int(self.rng.choice(len(kinds), p=chances / chances.sum()))]
        if crossing:
            self._corner_posts(s0)
            return self.items
        if kind in ("buildings", "houses"):
            self._buildings(s0, kind == "houses")
        if kind != "buildings" and self.rng.random() < self.side.barrier:
            self._barrier(s0)
        self._plants(s0, kind)
        self._posts(s0)
        if self.side.rail:
            self._rail(s0)
        return self.items

    def _buildings(self, s0: float, houses: bool) -> None:
        setback = self.rng.uniform(3, 9) if houses else 0.0
        s, before = s0, 0.0
        while s < s0 + CHUNK - 5:
            texture = self.textures.facades[self.rng.integers(len(self.textures.facades))]
            width, height = texture.size
            width = min(width, s0 + CHUNK - s)
            gap = self.rng.uniform(2, 6) if houses else 0.0
            offset = self.side.front + setback + self.rng.uniform(0, 0.6)
            height = min(height, 7.5) if houses else height
            span = (s, s + max(width - gap, 5.0))
            self._building(offset, span, (min(before, height), height), texture, houses)
            before = 0.0 if houses else height
            s += width

    def _building(
        self, offset: float, span: tuple[float, float], heights: tuple[float, float],
        texture: Texture, house: bool,
    ) -> None:  # fmt: skip
        """One building; `heights` are where its end wall comes into view and where it stops."""
        start, end = self.place(offset, span[0]), self.place(offset, span[1])
        back = self.place(offset + self.rng.uniform(7, 12), span[0])
        roof = self.rng.uniform(2, 4) if house or self.rng.random() < 0.3 else 0.0
        palette: list[Color] = [(120, 66, 50), (78, 74, 74), (96, 84, 74), (60, 64, 70)]
        color = scaled(palette[self.rng.integers(4)], self.rng.uniform(0.7, 1.2))
        front, wall = Panel(start, end, 0.0, heights[1]), Panel(start, back, *heights)
        order = span[1] + _SEGMENT
        self.items.append(Building(order, front, wall, roof, color, texture, self.sign))

    def _barrier(self, s0: float) -> None:
        leafy = self.rng.random() < 0.4
        pool = self.textures.hedges if leafy else self.textures.fences
        texture = pool[self.rng.integers(len(pool))]
        height = self.rng.uniform(0.8, 2.2)
        for start, end in self._segments(self.side.front + 0.3, s0):
            panel = Panel(start, end, 0.0, height)
            code = VEGETATION if leafy else FENCE
            self.items.append(Barrier(end[1], panel, texture, code, self.sign))

    def _plants(self, s0: float, kind: str) -> None:
        wild = kind in ("trees", "open")
        for _ in range(self.rng.poisson(self.side.trees)):
            offset = self.side.kerb + (0.9 if self.side.front - self.side.kerb > 2.6 else 99.0)
            if wild or kind == "houses" or offset > 90:
                offset = self.side.front + self.rng.uniform(1.2, 7)
                if kind == "buildings":
                    continue
            self._plant(offset, s0, self.textures.trees, self.rng.uniform(4, 10), 0.75)
        if kind == "trees":
            for _ in range(int(self.rng.integers(4, 9))):
                offset = self.side.front + self.rng.uniform(2, 18)
                self._plant(offset, s0, self.textures.trees, self.rng.uniform(5, 14), 0.75)
        if kind != "buildings":
            for _ in range(int(self.rng.integers(0, 5))):
                offset = self.side.front + self.rng.uniform(0.8, 5)
                self._plant(offset, s0, self.textures.bushes, self.rng.uniform(0.6, 2.2), 1.33)

    def _plant(
        self, offset: float, s0: float, pool: list[Texture], height: float, aspect: float
    ) -> None:
        texture = pool[self.rng.integers(len(pool))]
        x, s = self.place(offset, s0 + self.rng.uniform(0.5, CHUNK - 0.5))
        width = height * aspect * self.rng.uniform(0.8, 1.2)
        # What stands behind a barrier must be painted before the whole of each panel.
        order = s + (_SEGMENT if offset > self.side.front else 0.0)
        self.items.append(Plant(order, s, x, height, width, texture))

    def _posts(self, s0: float) -> None:
        for _ in range(self.rng.poisson(self.side.posts)):
            x, s = self.place(
                self.side.kerb + self.rng.uniform(0.3, 0.8), s0 + self.rng.uniform(1, 23)
            )
            kind = self.rng.choice(["lamp", "sign", "bollard", "mast"], p=[0.4, 0.35, 0.15, 0.1])
            shade = self.rng.uniform(30, 170)
            color: Color = (shade, shade, shade * self.rng.uniform(0.9, 1.1))
            if kind == "lamp":
                arm = -self.sign * self.rng.uniform(0.0, 2.2)
                post = Post(s, s, x, self.rng.uniform(4.5, 9), 0.08, arm, color, ())
            elif kind == "sign":
                height = self.rng.uniform(2.0, 3.0)
                post = Post(s, s, x, height, 0.035, 0.0, color, self._plates(height))
            elif kind == "bollard":
                post = Post(s, s, x, self.rng.uniform(0.7, 1.1), 0.07, 0.0, color, ())
            else:
                post = Post(s, s, x, self.rng.uniform(6, 10), 0.13, 0.0, (84.0, 70.0, 56.0), ())
            self.items.append(post)

    def _plates(self, height: float) -> tuple[tuple[str, float, float, Color], ...]:
        colors: list[Color] = [(190, 24, 30), (24, 60, 150), (30, 110, 70), (235, 200, 40),
                               (230, 230, 230)]  # fmt: skip
        plates = []
        top = height - 0.3
        for _ in range(int(self.rng.integers(1, 3))):
            shape = str(self.rng.choice(["disc", "triangle", "board"]))
            size = self.rng.uniform(0.6, 0.95) * (1.6 if self.style.kind == "highway" else 1.0)
            plates.append((shape, top, size, colors[self.rng.integers(5)]))
            top -= size + 0.05
        return tuple(plates)

    def _corner_posts(self, s0: float) -> None:
        for s in (s0 + 3.0, s0 + CHUNK - 3.0):
            x, place = self.place(self.side.kerb + 0.5, s)
            lit = (float(self.rng.integers(3)), 0.0, 0.0)
            plates = (("lights", self.rng.uniform(2.4, 3.2), 1.0, lit),)
            self.items.append(Post(place, place, x, 3.4, 0.06, 0.0, (70.0, 70.0, 72.0), plates))

    def _rail(self, s0: float) -> None:
        low, shade = (0.45, 165.0) if self.side.steel else (0.0, 130.0)
        for start, end in self._segments(self.side.kerb + 0.4, s0):
            self.items.append(GuardRail(end[1], start, end, low, (shade, shade, shade)))
