"""Everything that moves, in closed form: streams of road users whose places depend on time only.

A stream is an endless row of numbered slots that drives or walks along the road. Slot j of a stream
is one object for ever, so its id never changes and is never given to another object nearby.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, tan

import numpy as np

from .canvas import Canvas, Color, Points
from .layout import CHUNK, CYCLIST, PERSON, VEHICLE, Style
from .light import Light
from .people import (
    Figure,
    cyclist_size,
    draw_cyclist,
    draw_person,
    in_sight,
    person_size,
    random_figure,
)
from .vehicle_mesh import VehicleModel
from .vehicles import draw_vehicle, footprint, random_model

BEHIND, AHEAD = 8.0, 110.0
"""Metres from the camera within which road users exist in the picture."""
_ID_SPACE = 65535


@dataclass(frozen=True)
class Stream:
    """A row of slots; lengths in metres, speeds in m/s, times in seconds."""

    kind: str
    """vehicle, person or cyclist."""
    offset: float
    """Lateral place; 0 = middle of the ego lane."""
    spread: float
    spacing: float
    speed: float
    """Along the road; for `with_ego` streams on top of the ego motion."""
    sway: float
    """Amplitude of the slow oscillation about the slot."""
    period: float
    presence: float
    """Fraction of slots that are taken."""
    with_ego: bool = False
    first: int | None = None
    """Slots below this number stay empty."""

    @property
    def direction(self) -> float:
        """Heading along the road: 0 or pi."""
        return np.pi if self.speed < 0 else 0.0


@dataclass(frozen=True)
class _Slot:
    """What fills one slot of a stream."""

    taken: bool
    shift: float
    lateral: float
    phase: float
    turned: float
    figure: Figure | None
    bike: Color
    model: VehicleModel | None


@dataclass(frozen=True)
class RoadUser:
    """One thing at one time; `s`, `x`, `heading` in the world, `phase` of gait or pedals."""

    s: float
    x: float
    heading: float
    phase: float
    velocity: tuple[float, float]
    """Of (x, s), m/s."""
    track_id: int
    figure: Figure | None
    bike: Color | None
    model: VehicleModel | None

    @property
    def class_id(self) -> int:
        """Class of the street model."""
        if self.model is not None:
            return VEHICLE
        return PERSON if self.bike is None else CYCLIST

    @property
    def size(self) -> tuple[float, float, float]:
        """Length, width and height in metres; of people and cyclists, of all their poses."""
        if self.model is not None:
            return self.model.length, self.model.width, self.model.height
        assert self.figure is not None, "a road user is a vehicle or has a figure"
        return person_size(self.figure) if self.bike is None else cyclist_size(self.figure)

    @property
    def order(self) -> float:
        """Place in the painter's order."""
        return self.s

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Paint it with its own code."""
        if self.model is not None:
            code = canvas.thing(self.class_id, self.track_id)
            draw_vehicle(canvas, self.model, self.x, self.s, self.heading, light, code)
            return
        assert self.figure is not None, "a road user is a vehicle or has a figure"
        place = (self.x, self.s)
        if not in_sight(canvas, place):
            return
        across, shade = self._across(canvas), light.facing(0, -1)
        code = canvas.thing(self.class_id, self.track_id)
        if self.bike is not None:
            draw_cyclist(canvas, self.figure, self.bike, place, self.phase, across, shade, code)
        else:
            draw_person(canvas, self.figure, place, self.phase, across, shade, code)

    def _across(self, canvas: Canvas) -> float:
        """Sine of the angle between the line of sight and the heading, + = to the right."""
        camera = canvas.camera
        bearing = np.arctan2(self.x - camera.x, self.s - camera.s)
        return float(np.sin(self.heading - bearing)) * camera.mirror

    def shadow(self, light: Light) -> Points:
        """Ground points under the object and, with sun, of its shadow."""
        if self.model is not None:
            base = footprint(self.model, self.x, self.s, self.heading)
            height = self.model.height * 0.9
        else:
            reach = 0.7 if self.bike is not None else 0.2
            base = np.array([[self.x - 0.2, self.s - reach, 0], [self.x + 0.2, self.s + reach, 0]])
            height = 1.6
        return light.cast(base, height)


class Traffic:
    """All streams of one street."""

    def __init__(self, seed: int, style: Style, rng: np.random.Generator):
        self.seed = seed
        self.style = style
        self.streams = [*_lanes(style, rng), *_parked(style), *_pavements(style, rng)]
        self._slots: dict[tuple[int, int], _Slot] = {}

    def users(self, seconds: float, crossings: list[int]) -> Iterator[RoadUser]:
        """Road users near the camera; `crossings` are the chunks with a side road ahead."""
        for number, stream in enumerate(self.streams):
            yield from self._stream_users(number, stream, seconds, crossings)
        for chunk in crossings:
            yield from self._crossing_users(chunk, seconds)

    def _stream_users(
        self, number: int, stream: Stream, seconds: float, crossings: list[int]
    ) -> Iterator[RoadUser]:
        ego = self.style.travelled(seconds)
        pace = (self.style.pace(seconds) if stream.with_ego else 0.0) + stream.speed
        base = (ego if stream.with_ego else 0.0) + stream.speed * seconds
        margin = stream.sway + 0.4 * stream.spacing
        low = int(np.floor((ego - BEHIND - margin - base) / stream.spacing))
        high = int(np.ceil((ego + AHEAD + margin - base) / stream.spacing))
        if stream.first is not None:
            low = max(low, stream.first)
        for j in range(low, high + 1):
            slot = self._slot(number, j)
            turn = 2 * np.pi * seconds / stream.period + slot.phase
            sway = stream.sway * np.sin(turn)
            s = j * stream.spacing + slot.shift + base + float(sway)
            parked = stream.speed == 0 and not stream.with_ego
            blocked = parked and int(s // CHUNK) in crossings
            if slot.taken and not blocked and -BEHIND < s - ego < AHEAD:
                speed = pace + stream.sway * 2 * pi / stream.period * cos(turn)
                yield self._user(number, stream, j, slot, s, speed, seconds)

    def _user(
        self, number: int, stream: Stream, j: int, slot: _Slot, s: float, speed: float,
        seconds: float,
    ) -> RoadUser:  # fmt: skip
        """The user of slot j at s along the road, which grows by `speed`."""
        x = self.style.centre(s) + stream.offset + slot.lateral
        road = self.style.heading(s)
        rate = 5.5 if stream.speed or stream.with_ego else 0.0
        return RoadUser(
            s=s, x=x, heading=road + stream.direction + slot.turned,
            phase=slot.phase + rate * seconds, velocity=(speed * tan(road), speed),
            track_id=self._track_id(number, j), figure=slot.figure,
            bike=slot.bike if stream.kind == "cyclist" else None, model=slot.model,
        )  # fmt: skip

    def _track_id(self, number: int, j: int) -> int:
        """Id 1..65535 of a slot; repeats only after thousands of slots, far out of sight."""
        rows = len(self.streams) + 2
        return 1 + (j * rows + number) % (_ID_SPACE // rows * rows)

    def _slot(self, number: int, j: int) -> _Slot:
        key = (number, j)
        if key not in self._slots:
            if len(self._slots) > 4000:
                self._slots.clear()
            self._slots[key] = self._fill(number, j)
        return self._slots[key]

    def _fill(self, number: int, j: int) -> _Slot:
        rng = np.random.default_rng([self.seed, 3, number, j + (1 << 30)])
        stream = self.streams[number]
        vehicle = stream.kind == "vehicle"
        still = stream.speed == 0 and not stream.with_ego
        tight = 0.04 if vehicle and still else 0.3
        return _Slot(
            taken=bool(rng.random() < stream.presence),
            shift=stream.spacing * rng.uniform(-tight, tight),
            lateral=stream.spread * rng.uniform(-1, 1),
            phase=rng.uniform(0, 2 * np.pi),
            turned=0.0 if vehicle or not still else rng.uniform(0, 2 * np.pi),
            figure=None if vehicle else random_figure(rng),
            bike=tuple(rng.uniform(10, 200, 3)),
            model=_fitting(random_model(rng, self.style.heavy), still) if vehicle else None,
        )

    def _crossing_users(self, chunk: int, seconds: float) -> Iterator[RoadUser]:
        """Who crosses the road, in time before the ego vehicle comes: on foot and by car."""
        rng = np.random.default_rng([self.seed, 4, chunk + (1 << 30)])
        left, right = (side.front for side in self.style.sides)
        walks, drives = rng.random() < 0.8, rng.random() < 0.6
        goes_right = bool(rng.random() < 0.5)
        arrival = self.style.arrival((chunk + 0.5) * CHUNK)
        rows = len(self.streams)
        if walks:
            speed, figure = rng.uniform(1.2, 2.0), random_figure(rng)
            late = seconds - (arrival - rng.uniform(3.0, 4.5))
            far = min(max(late * speed + right, -left), right) if goes_right else 0.0
            if not goes_right:
                far = max(min(-late * speed - left, right), -left)
            moving = -left < far < right
            yield self._crosser(
                chunk, rows, 4.5, far, goes_right, speed * moving, 6 * seconds * moving, figure
            )
        if drives:
            model = _fitting(random_model(rng, 0.15), True)
            speed, late = rng.uniform(5, 8), seconds - (arrival - rng.uniform(3.5, 6.0))
            far = (1 if goes_right else -1) * late * speed
            if abs(far) < 60:
                yield self._crosser(chunk, rows + 1, 12.0, far, goes_right, speed, 0.0, None, model)

    def _crosser(
        self, chunk: int, row: int, along: float, offset: float, goes_right: bool, speed: float,
        phase: float, figure: Figure | None, model: VehicleModel | None = None,
    ) -> RoadUser:  # fmt: skip
        s = chunk * CHUNK + along
        heading = np.pi / 2 if goes_right else -np.pi / 2
        x = self.style.centre(s) + offset
        velocity = (speed if goes_right else -speed, 0.0)
        track_id = self._track_id(row, chunk)
        return RoadUser(s, x, heading, phase, velocity, track_id, figure, None, model)


def _fitting(model: VehicleModel, short: bool) -> VehicleModel:
    """Long vehicles do not park or cross."""
    if not short or model.length < 6:
        return model
    return VehicleModel("car", 4.3, 1.75, 1.5, model.paint, model.seed)


def _lanes(style: Style, rng: np.random.Generator) -> Iterator[Stream]:
    spacing = 100.0 / max(style.traffic, 0.4)
    if rng.random() < 0.75:
        sway, gap = rng.uniform(2, 6), rng.uniform(22, 40)
        yield Stream("vehicle", 0.0, 0.2, gap, 0.0, sway, rng.uniform(15, 40), 0.9, True, 1)
    for lane in range(style.lanes_same):
        if lane != style.ego_lane:
            offset = (lane - style.ego_lane) * style.lane
            far = max(spacing, 30.0)
            sway = min(rng.uniform(8, 22), 0.3 * far)
            period = rng.uniform(14, 30)
            yield Stream("vehicle", offset, 0.25, far, 0.0, sway, period, 0.85, True)
    for lane in range(style.lanes_opposite):
        offset = -((style.ego_lane + 1 + lane) * style.lane + style.median)
        speed = -style.speed * rng.uniform(0.8, 1.1)
        yield Stream("vehicle", offset, 0.2, max(spacing, 16.0), speed, 0.8, 11.0, 0.7)
    if style.cyclists > 0:
        near = 100.0 / style.cyclists
        kerbs = [side.kerb - side.parking - 0.7 for side in style.sides]
        for offset, sign in ((kerbs[1], 1), (-kerbs[0], -1)):
            speed = sign * style.speed * rng.uniform(0.55, 0.8)
            yield Stream("cyclist", offset, 0.2, max(near, 12.0), speed, 1.0, 9.0, 0.6)


def _parked(style: Style) -> Iterator[Stream]:
    for sign, side in zip((-1, 1), style.sides, strict=True):
        if side.parking:
            offset = sign * (side.kerb - side.parking / 2 - 0.1)
            yield Stream("vehicle", offset, 0.1, 6.3, 0.0, 0.0, 1.0, style.parked)


def _pavements(style: Style, rng: np.random.Generator) -> Iterator[Stream]:
    for sign, side in zip((-1, 1), style.sides, strict=True):
        if side.people <= 0:
            continue
        inner = side.kerb + 0.3 + side.verge
        middle, half = (inner + side.front) / 2, max((side.front - inner) / 2 - 0.3, 0.1)
        for speed in (rng.uniform(0.9, 1.7), -rng.uniform(0.9, 1.7), 0.0):
            spacing = 100.0 / side.people * (1.0 if speed else 3.0)
            yield Stream("person", sign * middle, half, max(spacing, 1.5), speed, 0.4, 7.0, 0.7)
