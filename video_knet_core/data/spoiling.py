"""Frames as cameras spoil them: motion blur, darkness, an occluder, glare, blocks lost on the way.

`spoil` damages one image, and training draws it as it likes. `SpoiltFrames` decides which frames
of a clip are spoilt, so that an evaluation is the same each time. Labels stay those of the clean
frame.

All sizes are fractions of the image, so an image looks the same at any resolution.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import check_image

FRACTION = 0.35
"""Of the frames of a clip that are spoilt."""
FIRST_CLEAN = 2
"""Frames at the start of a clip that are never spoilt: what is not seen once cannot be followed."""
RUN_LENGTHS = (0.5, 0.2, 0.15, 0.15)
"""How likely 1, 2, 3, 4 frames are spoilt in a row."""

_MEAN_RUN = sum(n * weight for n, weight in enumerate(RUN_LENGTHS, 1))
_LARGEST_FRACTION = _MEAN_RUN / (_MEAN_RUN + 1)  # with one clean frame between two runs
_BLOCKS_PER_ROW = 36  # macroblocks of 16 pixels at a width of 576

Image = NDArray[np.uint8]


def motion_blur(image: Image, rng: np.random.Generator) -> Image:
    """Averaged along a line of 4 to 10 % of the width, at most 30 degrees from level."""
    size = image.shape[1], image.shape[0]
    small = max(size[0] // 2, 1), max(size[1] // 2, 1)  # what is blurred needs no more
    length, angle = rng.uniform(0.04, 0.10) * small[0], np.deg2rad(rng.uniform(-30, 30))
    line = length * np.array([np.cos(angle), np.sin(angle)])
    blurred = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    blurred = _moved(blurred, -line / 2)  # things stay where their labels are
    # each pass averages the image with itself moved, half the way of the pass before
    for halvings in range(1, 2 + int(np.log2(max(length, 1)))):
        blurred = cv2.addWeighted(blurred, 0.5, _moved(blurred, line / 2**halvings), 0.5, 0)
    return np.asarray(cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _moved(image: NDArray, by: NDArray[np.float64]) -> NDArray:
    """The image moved by (x, y) pixels; its edge is repeated."""
    matrix = np.array([[1, 0, by[0]], [0, 1, by[1]]])
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def darkness(image: Image, rng: np.random.Generator) -> Image:
    """4 to 20 % of the light, with the noise of a sensor at high gain, equal in all colours."""
    light, gain = rng.uniform(0.04, 0.2), rng.uniform(1.0, 2.0)
    noise = rng.standard_normal(image.shape[:2], np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    noise *= np.sqrt(np.float32(0.6 * light) * grey + np.float32(9))
    dark = np.multiply(image, light, dtype=np.float32) + noise[..., None]
    return np.asarray(cv2.convertScaleAbs(np.maximum(dark, 0), alpha=gain), np.uint8)


def occluder(image: Image, rng: np.random.Generator) -> Image:
    """A bar across the image, as a wiper or a pole nearby, of 12 to 35 % of the width."""
    height, width = image.shape[:2]
    half = rng.uniform(0.06, 0.175) * width
    centre = rng.uniform(0.1, 0.9, 2) * (width, height)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across, reach = np.array([-along[1], along[0]]) * half, along * (width + height)
    corners = [centre + reach + across, centre + reach - across]
    corners += [centre - reach - across, centre - reach + across]
    cover = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(cover, np.round(corners).astype(np.int32), 255)
    soft = 2 * int(width / 100) + 1
    alpha = cv2.blur(cover, (soft, soft)).astype(np.float32) / 255
    colour = (rng.uniform(5, 90) + rng.uniform(-15, 15, 3)).clip(0, 255).astype(np.float32)
    return _blended(image, colour, alpha)


def glare(image: Image, rng: np.random.Generator) -> Image:
    """A light that shines into the lens: white around one point, and a veil over all."""
    height, width = image.shape[:2]
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.0, 0.7) * height
    radius = rng.uniform(0.15, 0.35) * width
    across = np.exp(-(((np.arange(width, dtype=np.float32) - x) / radius) ** 2))
    down = np.exp(-(((np.arange(height, dtype=np.float32) - y) / radius) ** 2))
    veil = rng.uniform(0.2, 0.5)
    light = np.minimum(veil + 1.4 * down[:, None] * across, 1).astype(np.float32)
    return _blended(image, np.full(3, 255, np.float32), light)


def lost_blocks(image: Image, rng: np.random.Generator) -> Image:
    """Rows of blocks that a decoder did not get: 20 to 60 % of them, grey or smeared from above."""
    height, width = image.shape[:2]
    size = max(round(width / _BLOCKS_PER_ROW), 1)
    rows, columns = -(-height // size), -(-width // size)
    lost, smeared = rng.uniform(0.2, 0.6), rng.random() < 0.5
    out = image.copy()
    for row in np.flatnonzero(rng.random(rows) < lost * 4 / 3):
        # a slice is lost from some block to its end: three quarters of a row on average
        start, top = int(rng.integers(0, max(columns // 2, 1))) * size, int(row) * size
        part = out[top : top + size, start:]
        part[:] = out[top - 1, start:] if smeared and top else 128
    return out


DAMAGES: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "motion_blur": motion_blur,
    "darkness": darkness,
    "occluder": occluder,
    "glare": glare,
    "lost_blocks": lost_blocks,
}
"""All ways to spoil an image, by name; none changes its argument."""


def spoil(image: Image, rng: np.random.Generator, damages: Sequence[str] = tuple(DAMAGES)) -> Image:
    """A spoilt copy of an image.

    Args:
        image: uint8 [H, W, 3] RGB.
        rng: draws the damage, each as likely as any other, and its strength; the same state gives
            the same pixels.
        damages: names in `DAMAGES` to draw from.

    Raises:
        ValueError: the image is not a uint8 RGB image with pixels, or a damage is unknown.
    """
    check_image(image)
    if not damages or (unknown := [name for name in damages if name not in DAMAGES]):
        got = f"{unknown[0]!r}" if damages else "none"
        raise ValueError(f"damages: expected some of {', '.join(DAMAGES)}, got {got}")
    return DAMAGES[damages[int(rng.integers(len(damages)))]](image, rng)


class SpoiltFrames:
    """Which frames of a clip are spoilt, and how: a function of the seed and the frame's number.

    Spoilt frames come in runs of 1 to 4, between them at least one is clean, and the first
    `FIRST_CLEAN` are. All frames of a run have the same damage, of another strength each.

    Args:
        seed: of the clip; >= 0.
        fraction: of the frames that are spoilt in the long run.

    ValueError if more would be spoilt than runs with one clean frame between them have.
    """

    def __init__(self, seed: int, fraction: float = FRACTION) -> None:
        if not 0 <= fraction <= _LARGEST_FRACTION:
            raise ValueError(
                f"fraction: expected 0..{_LARGEST_FRACTION:.2f} of the frames, got {fraction}"
            )
        self.seed, self.fraction = seed, fraction
        self._rng = np.random.default_rng([seed, 0])
        self._starts: list[int] = []
        """First frame of each run so far, then ..."""
        self._ends: list[int] = []
        self._damages: list[str] = []

    def damage(self, t: int) -> str | None:
        """Name in `DAMAGES` of what spoils frame number t >= 0; None if it is clean."""
        if not self.fraction:
            return None
        while not self._ends or self._ends[-1] <= t:
            self._draw_run()
        run = bisect_right(self._starts, t) - 1
        return self._damages[run] if run >= 0 and t < self._ends[run] else None

    def __call__(self, image: Image, t: int) -> Image:
        """Frame number t >= 0 of the clip, [H, W, 3]: spoilt, or `image` itself if it is clean."""
        damage = self.damage(t)
        if damage is None:
            return image
        return spoil(image, np.random.default_rng([self.seed, 1, t]), (damage,))

    def _draw_run(self) -> None:
        """The next run; always all in order, so it does not matter which frames are asked for."""
        gap = _MEAN_RUN * (1 / self.fraction - 1)
        clean = int(self._rng.geometric(1 / gap))
        # at the start, the clean frames that are always there are not counted
        start = self._ends[-1] + clean if self._ends else FIRST_CLEAN + clean - 1
        length = bisect_right(list(accumulate(RUN_LENGTHS[:-1])), self._rng.random()) + 1
        self._starts.append(start)
        self._ends.append(start + length)
        self._damages.append(list(DAMAGES)[int(self._rng.integers(len(DAMAGES)))])


def _blended(image: Image, colour: NDArray[np.float32], weight: NDArray[np.float32]) -> Image:
    """A colour (3) over the image [H, W, 3], as opaque as `weight` [H, W], 0..1."""
    flat = np.broadcast_to(np.round(colour).astype(np.uint8), image.shape)
    mixed = cv2.blendLinear(image, np.ascontiguousarray(flat), 1 - weight, weight)
    return np.asarray(mixed, np.uint8)
