"""Moving cut-out objects, pasted into the frames of a pair or of a longer clip.

Objects come from sequences of cut-outs (an image and a mask per frame), so a pasted object moves
and deforms as it did in its own video; or from single images, which move as a whole. Their masks
and tracks are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .pairs import FramePair, Rng
from .sprites import Sprite, blend, placement, repainted

_BESIDE = 0.6  # fraction of a crowd's objects that are put next to the one before, ...
_BESIDE_WIDTHS = 0.12  # ... this far off (standard deviation), in widths of the image
_CUTOUT_STEP = 0.06  # how far a cut-out moves between the frames, in its own sizes, and grows


class Paster:
    """Pastes a random number of objects.

    Args:
        sprites: what is pasted; if there are none, pairs stay as they are.
        max_sprites: most objects pasted into one pair.
        causal: the key frame is the later one of a pair.
        crowd: half of what is pasted is a single cut-out; most of it stands beside or in front of
            what was pasted before, and all is recoloured. Sequences of cut-outs are few, and a
            network that gets each of them a thousand times overfits to them.
    """

    def __init__(
        self,
        sprites: Sequence[Sprite] = (),
        max_sprites: int = 4,
        causal: bool = False,
        crowd: bool = False,
    ) -> None:
        self.max_sprites, self.causal, self.crowd = max_sprites, causal, crowd
        self.sprites, self.singles = sprites, list[Sprite]()
        if crowd:
            self.sprites = [sprite for sprite in sprites if len(sprite.cutouts) > 1]
            self.singles = [sprite for sprite in sprites if len(sprite.cutouts) == 1]

    def paste(self, pair: FramePair, motion: NDArray, rng: Rng) -> FramePair:
        """The pair with objects of new ids on top, drawn in place.

        `motion` [3, 3] is that of the camera from one frame to the next. The maps show what is in
        front; whole masks are left out.
        """
        if not (self.sprites or self.singles):
            return pair
        first = int(pair.instance.max()) + 1
        frames = list(zip(pair.images, pair.semantic, pair.instance, strict=True))
        for track, foot in enumerate(self._feet(rng, *pair.semantic.shape[1:]), first):
            self._paste(frames, track, foot, motion, rng)
        return replace(pair, masks=None)

    def _feet(self, rng: Rng, height: int, width: int) -> Iterator[NDArray]:
        """Where pasted objects stand (x, y), the farthest first."""
        count = int(rng.integers(self.max_sprites + 1))
        x = 0.0
        for number, y in enumerate(np.sort(rng.uniform(0.5, 1.1, count)) * height):
            if self.crowd and number and rng.random() < _BESIDE:
                x += rng.normal(0, _BESIDE_WIDTHS) * width
            else:
                x = rng.uniform(-0.05, 1.05) * width
            yield np.array([x, y])

    def _paste(self, frames: list, track: int, foot: NDArray, motion: NDArray, rng: Rng) -> None:
        """Put one sprite into all frames, in place; it stands on the ground, nearer = larger."""
        sprite = self._choose(rng)
        first = int(rng.integers(len(sprite.cutouts)))
        later = rng.integers(-3, 4)
        later = -abs(later) if self.causal else later
        height = len(frames[0][1])
        tall = np.clip(foot[1] / height - 0.35, 0.1, None) * height * rng.uniform(0.5, 1.2)
        scale = min(tall / sprite.cutouts[first][0].shape[0], 1.5)
        mirror = rng.random() < 0.5
        brightness = rng.uniform(0.6, 1.3)
        hue, saturation = 0, 1.0
        if self.crowd:
            hue, saturation = int(rng.integers(-20, 21)), float(rng.uniform(0.3, 1.7))
        drift, growth = np.zeros(2), 0.0
        if len(sprite.cutouts) == 1:
            shape = sprite.cutouts[0][0].shape
            drift = rng.normal(0, _CUTOUT_STEP, 2) * shape[1::-1] * scale
            growth = float(rng.normal(0, _CUTOUT_STEP))
        for t, frame in enumerate(frames):
            index = int(np.clip(first + t * later, 0, len(sprite.cutouts) - 1))
            cutout, mask = sprite.cutouts[index]
            step = (sprite.centres[index] - sprite.centres[first]) * scale
            moved = np.linalg.matrix_power(motion, t)
            place = moved[:2, :2] @ (foot + step * (-1 if mirror else 1, 1)) + moved[:2, 2]
            place = place + t * drift
            size = scale * float(np.hypot(*moved[:2, 0])) * float(np.exp(t * growth))
            matrix = placement(cutout.shape, size, place, mirror)
            painted = repainted(cutout, hue, saturation) if self.crowd else cutout
            blend(frame, painted, mask, matrix, brightness, sprite.class_id, track)

    def _choose(self, rng: Rng) -> Sprite:
        """A sprite, in a crowd as often one of the images as one that moves."""
        single = self.singles and (not self.sprites or rng.random() < 0.5)
        sprites = self.singles if single else self.sprites
        return sprites[int(rng.integers(len(sprites)))]
