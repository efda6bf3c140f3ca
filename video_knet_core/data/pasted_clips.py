"""Tracks on real pixels: moving cut-out objects pasted on a real video of a street.

The clip brings scenery, light and camera motion, the sprites bring objects whose tracks are known
exactly. The clip's own people and vehicles are labelled, but without tracks: they are
void, neither expected nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image_files import FrameError
from ..types import NO_CLASS
from .sprites import Sprite, blend, placement
from .street_frame import StreetFrame, drop_small_objects
from .video import Video

HORIZON = 0.49
"""Row of the horizon over image height, and ..."""
CAMERA_METRES = 1.4
"""... height of the camera, as objects of known size in CamVid's sequence 0016E5 show."""
NEAREST, FARTHEST = 0.5, 0.08
"""Rows from the horizon to the feet over image height: a car fills the width, a person has 35 of
360 rows."""
_STREET_METRES = 4.5
"""Objects start at most this far to either side of the image's centre line."""
_SMOOTHING = 15
"""Cut-outs over which the size of an object is averaged: less would take a pose for a distance."""
_MIN_CUTOUTS = 10
"""A sprite with a shorter run of whole cut-outs is not pasted."""


class PastedClip:
    """An endless clip: `clip` played forward and backward, with 3 to 6 objects on the street.

    Args:
        clip: consecutive frames with stuff labels, shown from a frame on that the seed draws.
        sprites: what is pasted; each is used once before one is used again.
        things: class ids that are void where the clip has them.
        seed: which objects, where and how they move; >= 0.
        fps: frames per second of the clip.

    FrameError if no sprite is whole for long enough.
    """

    def __init__(
        self,
        clip: Video,
        sprites: Sequence[Sprite],
        things: Sequence[int],
        seed: int,
        fps: float = 15.0,
    ) -> None:
        usable = [s for s in sprites if _longest_run(s.whole)[1] >= _MIN_CUTOUTS]
        if not usable:
            raise FrameError(
                f"none of {len(sprites)} sprites shows its object whole in {_MIN_CUTOUTS} "
                "consecutive cut-outs"
            )
        self.clip, self.things, self.seed, self.fps = clip, tuple(things), seed, fps
        rng = np.random.default_rng(seed)
        self._first = int(rng.integers(len(clip)))
        order, count = rng.permutation(len(usable)), int(rng.integers(3, 7))
        image = clip.image(0)
        aspect = image.shape[1] / image.shape[0]
        self.objects = [
            _random_object(usable[order[k % len(usable)]], aspect, np.random.default_rng([seed, k]))
            for k in range(count)
        ]
        """Track k + 1 is object k."""

    def frame(self, t: int) -> StreetFrame:
        """Frame number t >= 0; the same arguments give the same pixels."""
        frame = self.clip[ping_pong_index(self._first + t, len(self.clip))]
        own = np.isin(frame.semantic, self.things)
        void = np.where(own, np.uint8(NO_CLASS), frame.semantic)
        maps = frame.image.copy(), void, np.zeros(own.shape, np.uint16)
        views = [item.view(t, t / self.fps) for item in self.objects]
        parts = [
            *((near, partial(_uncover, frame.image, pixels)) for near, pixels in _regions(own)),
            *((view.nearness, partial(_paste, view, k)) for k, view in enumerate(views, start=1)),
        ]
        for _, draw in sorted(parts, key=lambda part: part[0]):
            draw(*maps)
        return StreetFrame(maps[0], *drop_small_objects(*maps[1:]))


def ping_pong_index(t: int, count: int) -> int:
    """Index of frame t of a sequence played forward, backward, forward, ...; ends show once."""
    period = max(2 * count - 2, 1)
    return min(t % period, period - t % period)


@dataclass(frozen=True)
class _Sway:
    """A smooth motion back and forth, 0 at the start."""

    reach: float
    seconds: float
    phase: float

    def at(self, seconds: float) -> float:
        """Where it is, within 2 * `reach` of the start."""
        angle = 2 * np.pi * seconds / self.seconds + self.phase
        return float(self.reach * (np.sin(angle) - np.sin(self.phase)))


def _random_sway(rng: np.random.Generator, low: float, high: float) -> _Sway:
    return _Sway(rng.uniform(low, high), rng.uniform(5, 12), rng.uniform(0, 2 * np.pi))


@dataclass(frozen=True)
class _Object:
    """A sprite with a place on the street. It moves as in its own video, and drifts besides."""

    sprite: Sprite
    first: int
    """The cut-out of frame 0, counted within the whole ones."""
    nearness: float
    """Rows from the horizon to the feet over image height: nearer objects stand lower."""
    metres: float
    """Where the feet are to the right of the image's centre line."""
    aside: _Sway
    """In metres."""
    nearer: _Sway
    """Of the logarithm of `nearness`."""
    size: float
    """How much larger than the usual one of its kind."""
    mirror: bool
    brightness: float

    def view(self, t: int, seconds: float) -> _View:
        """The object in frame t, which is so many seconds after frame 0."""
        start, count = _longest_run(self.sprite.whole)
        begin, now = (start + ping_pong_index(self.first + n, count) for n in (0, t))
        centres = self.sprite.centres[:, 0] / self.sprite.scales
        metre = _smooth_heights(self.sprite) / (self.sprite.metres * self.size)  # source pixels
        nearness = self.nearness * np.exp(self.nearer.at(seconds)) * metre[now] / metre[begin]
        own = (centres[now] - centres[begin]) / metre[now]
        return _View(
            item=self,
            cutout=now,
            nearness=float(np.clip(nearness, FARTHEST, NEAREST)),
            metres=self.metres + self.aside.at(seconds) + (-own if self.mirror else own),
            scale=1 / (metre[now] * self.sprite.scales[now]),
        )


@dataclass(frozen=True)
class _View:
    """An object as it is seen in one frame; `nearness` and `metres` as those of an object."""

    item: _Object
    cutout: int
    """Which one of its sprite."""
    nearness: float
    metres: float
    scale: float
    """Metres per pixel of the cut-out."""


def _paste(view: _View, track: int, image: NDArray, semantic: NDArray, instance: NDArray) -> None:
    """Draw an object over the image and the label maps."""
    height, width = semantic.shape
    pixels_per_metre = view.nearness * height / CAMERA_METRES
    foot = np.array(
        [width / 2 + view.metres * pixels_per_metre, (HORIZON + view.nearness) * height]
    )
    item = view.item
    cutout, mask, scale = _shrunk(*item.sprite.cutouts[view.cutout], view.scale * pixels_per_metre)
    matrix = placement(cutout.shape, scale, foot, item.mirror)
    maps = image, semantic, instance
    blend(maps, cutout, mask, matrix, item.brightness, item.sprite.class_id, track)


def _regions(things: NDArray[np.bool_]) -> Iterator[tuple[float, tuple[NDArray, ...]]]:
    """Nearness and pixels of the connected regions of the things [H, W] of the clip itself."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(things.astype(np.uint8))
    for region, (_, y, _, height, _) in enumerate(stats[1:].tolist(), start=1):
        yield (y + height) / len(things) - HORIZON, np.nonzero(regions == region)


def _uncover(
    source: NDArray,
    pixels: tuple[NDArray, ...],
    image: NDArray,
    semantic: NDArray,
    instance: NDArray,
) -> None:
    """Bring pixels of the clip back, which hide what is farther away; they stay void."""
    image[pixels] = source[pixels]
    semantic[pixels] = NO_CLASS
    instance[pixels] = 0


def _random_object(sprite: Sprite, aspect: float, rng: np.random.Generator) -> _Object:
    """`aspect`: width over height of the image. At the start, the feet are within its width."""
    nearness = np.exp(rng.uniform(*np.log((0.1, 0.4))))
    reach = min(0.45 * aspect * CAMERA_METRES / nearness, _STREET_METRES)
    return _Object(
        sprite=sprite,
        first=int(rng.integers(2 * len(sprite.cutouts))),
        nearness=nearness,
        metres=rng.uniform(-reach, reach),
        aside=_random_sway(rng, 0.3, 2.0),
        nearer=_random_sway(rng, 0.0, 0.3),
        size=rng.uniform(0.9, 1.1),
        mirror=bool(rng.random() < 0.5),
        brightness=rng.uniform(0.6, 1.1),
    )


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """Start and length of the longest run of True in flags [T]; length 0 if there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest] - starts[longest])


def _smooth_heights(sprite: Sprite) -> NDArray[np.float64]:
    """[T] height in pixels of the source frame, averaged over `_SMOOTHING` cut-outs."""
    heights = np.array([mask.shape[0] for _, mask in sprite.cutouts]) / sprite.scales
    padded = np.pad(heights, _SMOOTHING // 2, mode="edge")
    return np.convolve(padded, np.full(_SMOOTHING, 1 / _SMOOTHING), mode="valid")


def _shrunk(cutout: NDArray, mask: NDArray, scale: float) -> tuple[NDArray, NDArray, float]:
    """Cut-out and mask at the size they are drawn at, and the scale that is left to do.

    Averaged: a map that skips pixels makes small objects flicker.
    """
    if scale >= 1:
        return cutout, mask, scale
    height, width = (max(round(n * scale), 1) for n in mask.shape)
    small, soft = (
        cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        for part in (cutout, mask.astype(np.float32))
    )
    return small, soft, scale * mask.shape[0] / height
