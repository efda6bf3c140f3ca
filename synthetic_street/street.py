"""A generated driving scene with exact panoptic and track labels, seen from a moving vehicle.

On request with depth, the pose of the camera, and places and velocities of the road users, in a
fixed frame: x forward along the road, y left, z up, metres, with the ground at z = 0 (REP 103).

Every seed is another street: its own road, houses, plants, light, traffic and camera. A frame
depends on (seed, size, frame rate, t) and nothing else, so frames may be requested in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core.data.frame_source import Intrinsics
from video_knet_core.data.street_frame import StreetFrame, drop_small_objects

from . import textures
from .canvas import SHIFT, Camera, Canvas, Color, Haze, Image, clip_near, fixed_point
from .ground import Ground
from .layout import BUILDING, CHUNK, SKY, VEGETATION, random_style
from .light import Light
from .roadside import RoadsideBuilder, TextureSet
from .scenery import Drawable
from .traffic import RoadUser, Traffic

_FAR = 160.0
"""Metres of street that are painted."""
_SHADOWS = 70.0
"""Metres within which shadows are; beyond they are flatter than a pixel."""


@dataclass(frozen=True)
class _Weather:
    """Light and lens of a street."""

    light: Light
    haze: Haze
    zenith: Color
    cover: float
    gain: NDArray[np.float32]
    """[3] of red, green, blue."""
    vignette: float
    blur: float
    """Sigma in pixels of a 480 pixel wide frame."""
    noise: float
    """Standard deviation in grey levels."""


@dataclass(frozen=True)
class StreetObject:
    """A road user in the fixed frame; metres and seconds."""

    track_id: int
    """As in the instance map."""
    class_id: int
    position: NDArray[np.float64]
    """[3] centre of its box."""
    velocity: NDArray[np.float64]
    """[3]."""
    size: NDArray[np.float64]
    """[3] length, width and height of its box."""
    yaw: float
    """Radians about z from x to where it faces, along its length."""


class SyntheticStreet:
    """An endless drive.

    Args:
        seed: which street; >= 0.
        height, width: size of the frames in pixels, at least 32.
        fps: frames per second of the imagined camera.
        depth: whether frames have depth, which takes longer.

    Raises:
        ValueError: a size, seed or rate that cannot be.
    """

    def __init__(
        self,
        seed: int,
        height: int = 288,
        width: int = 480,
        fps: float = 10.0,
        depth: bool = False,
    ):
        if seed < 0:
            raise ValueError(f"expected a seed >= 0, got {seed}")
        if min(height, width) < 32:
            raise ValueError(f"expected a height and width >= 32, got {height} x {width}")
        if not fps > 0:
            raise ValueError(f"expected fps > 0, got {fps}")
        self.seed, self.height, self.width, self.fps = seed, height, width, fps
        self.has_depth = depth
        rng = np.random.default_rng([seed, 1])
        self.style = random_style(rng)
        focal = self.style.field_of_view * max(width, height * 4 / 3)
        self.intrinsics = Intrinsics(focal, focal, width / 2, height * self.style.horizon)
        """Whole numbers are centres of pixels, as in ROS. The camera shakes, but its horizon is in
        row cy while it is level; the rest is the pitch of `pose`."""
        self._weather = _random_weather(rng)
        self._textures = TextureSet.random(rng)
        self._traffic = Traffic(seed, self.style, rng)
        self._ground = Ground(seed, self.style, rng)
        self._backdrop, self._backdrop_codes = self._paint_backdrop(rng)
        self._lens = self._paint_lens()
        self._noise = rng.standard_normal((height + 64, width + 64, 3), dtype=np.float32)
        self._chunks: dict[int, list[Drawable]] = {}

    def __iter__(self) -> Iterator[StreetFrame]:
        """Frames 0, 1, 2, ... without end."""
        return map(self.frame, count())

    def frame(self, t: int) -> StreetFrame:
        """Frame number t >= 0; the same arguments give the same pixels."""
        seconds = self._seconds(t)
        camera = self._camera(seconds)
        canvas = self._sky(camera)
        items = self._items(camera, seconds)
        self._ground.draw(canvas)
        self._ground.finish(canvas, self._shadows(canvas, items))
        for item in sorted(items, key=lambda item: -item.order):
            item.draw(canvas, self._weather.light)
        semantic, instance = drop_small_objects(*canvas.labels())
        depth = canvas.depth() if self.has_depth else None
        return StreetFrame(self._expose(canvas.image, t), semantic, instance, depth=depth)

    def pose(self, t: int) -> NDArray[np.float64]:
        """[4, 4] at frame t, from the optical frame (x right, y down, z ahead) to the fixed one."""
        return self._camera(self._seconds(t)).pose(self.intrinsics.cy)

    def objects(self, t: int) -> tuple[StreetObject, ...]:
        """Road users at frame t, in view or not, from 8 m behind the camera to 110 m ahead."""
        return tuple(map(self._object, self._users(self._seconds(t))))

    def _seconds(self, t: int) -> float:
        if t < 0:
            raise ValueError(f"expected a frame number >= 0, got {t}")
        return t / self.fps

    def _object(self, user: RoadUser) -> StreetObject:
        # Turns (x, s, z) into (s, left, z); a mirrored street has x on the left.
        axes = np.array([[0, 1, 0], [-self.style.mirror, 0, 0], [0, 0, 1.0]])
        return StreetObject(
            track_id=user.track_id,
            class_id=user.class_id,
            position=axes @ [user.x, user.s, user.size[2] / 2],
            velocity=axes @ [*user.velocity, 0.0],
            size=np.array(user.size),
            yaw=-self.style.mirror * user.heading,
        )

    def _camera(self, seconds: float) -> Camera:
        style = self.style
        s = style.travelled(seconds)
        drift = 0.25 * np.sin(0.43 * seconds) + 0.1 * np.sin(1.1 * seconds + 1)
        yaw = style.heading(s + 5.0) + 0.012 * np.sin(0.31 * seconds + 2)
        bounce = 0.6 * np.sin(7.3 * seconds) + 0.4 * np.sin(12.1 * seconds + 1)
        return Camera(
            x=style.centre(s) + drift,
            s=s,
            height=style.camera_height,
            yaw=yaw,
            focal=self.intrinsics.fx,
            centre=self.intrinsics.cx,
            horizon=self.height * (style.horizon + 0.004 * style.shake * bounce),
            mirror=style.mirror,
        )

    def _items(self, camera: Camera, seconds: float) -> list[Drawable]:
        """All scenery and road users that may be in view."""
        items: list[Drawable] = []
        for number in _chunks_ahead(camera.s):
            items.extend(item for item in self._chunk(number) if item.order > camera.s)
        items.extend(self._users(seconds))
        return items

    def _users(self, seconds: float) -> Iterator[RoadUser]:
        """All road users that may be in view."""
        chunks = _chunks_ahead(self.style.travelled(seconds))
        crossings = [c for c in (chunks[0] - 1, *chunks) if self._ground.crossing(c)]
        return self._traffic.users(seconds, crossings)

    def _chunk(self, number: int) -> list[Drawable]:
        if number not in self._chunks:
            if len(self._chunks) > 64:
                self._chunks.clear()
            items: list[Drawable] = []
            for side in (-1, 1):
                rng = np.random.default_rng([self.seed, 2, number + (1 << 30), side + 1])
                builder = RoadsideBuilder(rng, self.style, self._textures, side)
                items.extend(builder.build(number * CHUNK, self._ground.crossing(number)))
            self._chunks[number] = items
        return self._chunks[number]

    def _shadows(self, canvas: Canvas, items: list[Drawable]) -> Image:
        """[H, W] brightness of the ground, 255 = no shadow."""
        mask = np.full(canvas.codes.shape, 255, np.uint8)
        light = self._weather.light
        for item in items:
            near = item.order < canvas.camera.s + _SHADOWS
            points = item.shadow(light) if near else None
            if points is None:
                continue
            view = canvas.camera.view(points)
            if view[:, 2].max() < 1.0:
                continue
            view = clip_near(view)
            outline = canvas.camera.pixels(view).astype(np.float32)
            hull = cv2.convexHull(outline)[:, 0].astype(np.float64)
            value = 115 if light.direct > 0.2 else 160
            cv2.fillConvexPoly(mask, fixed_point(hull), (value,), cv2.LINE_AA, SHIFT)
        size = max(self.width // 160, 1) * 2 + 1
        return cv2.blur(mask, (size, size))

    def _sky(self, camera: Camera) -> Canvas:
        """A canvas with sky and the far end of the world on it."""
        rows = self._backdrop.shape[0]
        top = int(np.clip(round(rows - 8 - camera.horizon), 0, rows - 1))
        spare = self._backdrop.shape[1] - self.width
        left = spare / 2 + camera.mirror * camera.yaw * camera.focal
        left = int(np.clip(round(left), 0, spare))
        image = np.zeros((self.height, self.width, 3), np.uint8)
        codes = np.full((self.height, self.width), VEGETATION, np.uint16)
        part = self._backdrop[top:, left : left + self.width][: self.height]
        image[: len(part)] = part
        codes[: len(part)] = self._backdrop_codes[top:, left : left + self.width][: self.height]
        return Canvas(image, codes, camera, self._weather.haze, self.has_depth)

    def _paint_backdrop(self, rng: np.random.Generator) -> tuple[Image, NDArray[np.uint16]]:
        """Sky with hills, woods or houses along the horizon, which is 8 rows above the bottom."""
        rows, columns = int(self.height * 0.62) + 24, self.width * 2
        weather = self._weather
        image = textures.sky(rng, rows, columns, weather.zenith, weather.haze.color, weather.cover)
        codes = np.full((rows, columns), SKY, np.uint16)
        for depth, reach in ((0.75, 0.05), (0.5, 0.03)):
            urban = rng.random() < (0.6 if self.style.kind == "city" else 0.25)
            step = max(self.width // (30 if urban else 200), 1)
            field = textures.noise(rng, 2, columns, columns / (90 if urban else 9), 4)[0]
            profile = np.repeat(field[::step], step)[:columns] if urban else field
            heights = self.height * reach * (0.6 + 0.5 * profile) * rng.uniform(0.4, 1.5) + 8
            inside = (rows - np.arange(rows))[:, None] <= heights
            color = np.array(textures.wall_color(rng) if urban else textures.leaf_color(rng))
            grain = 1 + 0.25 * textures.noise(rng, rows, columns, 12, 3)[..., None]
            color = color * (1 - depth) * grain + np.array(weather.haze.color) * depth
            image[inside] = np.clip(color, 0, 255)[inside]
            codes[inside] = BUILDING if urban else VEGETATION
        return image, codes

    def _paint_lens(self) -> NDArray[np.float32]:
        """[H, W, 3] gain of exposure, white balance and vignette."""
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j]
        fall = 1 - self._weather.vignette * (x**2 + y**2) / 2
        return (fall[..., None] * self._weather.gain).astype(np.float32)

    def _expose(self, image: Image, t: int) -> Image:
        """What the sensor makes of the scene: blur, exposure, noise."""
        rng = np.random.default_rng([self.seed, 5, t])
        weather = self._weather
        sigma = weather.blur * self.width / 480
        if sigma > 0.2:
            image = cv2.GaussianBlur(image, (5, 5), sigma)
        flicker = 1 + 0.01 * rng.standard_normal()
        exposed = cv2.multiply(image, self._lens, scale=flicker, dtype=cv2.CV_32F)
        y, x = rng.integers(0, 64, 2)
        grain = self._noise[y : y + self.height, x : x + self.width]
        return cv2.addWeighted(exposed, 1.0, grain, weather.noise, 0.0, dtype=cv2.CV_8U)


def _chunks_ahead(s: float) -> range:
    """Numbers of the chunks of which something may be in view."""
    return range(int(s // CHUNK), int((s + _FAR) // CHUNK) + 1)


def _random_weather(rng: np.random.Generator) -> _Weather:
    kind = str(rng.choice(["sunny", "overcast", "dusk"], p=[0.5, 0.35, 0.15]))
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.95)
    flat = np.sqrt(1 - height**2)
    sun = (float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), height)
    zenith, low, direct, exposure = {
        "sunny": ((70, 120, 200), (190, 212, 234), rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.25)),
        "overcast": ((196, 200, 206), (226, 228, 230), 0.0, rng.uniform(0.65, 1.2)),
        "dusk": ((70, 84, 124), (214, 176, 146), rng.uniform(0, 0.35), rng.uniform(0.4, 0.8)),
    }[kind]
    top, bottom = (np.clip(np.array(c) * rng.uniform(0.85, 1.1), 0, 255) for c in (zenith, low))
    tint = 1 + rng.normal(0, 0.05, 3)
    return _Weather(
        light=Light(sun, float(direct), kind == "dusk" or bool(rng.random() < 0.1)),
        haze=Haze(tuple(bottom.tolist()), rng.uniform(250, 1500)),
        zenith=tuple(top.tolist()),
        cover=float(rng.uniform(0, 0.6)),
        gain=(exposure * tint).astype(np.float32),
        vignette=rng.uniform(0, 0.35),
        blur=rng.uniform(0.3, 0.9),
        noise=rng.uniform(1.0, 6.0),
    )
