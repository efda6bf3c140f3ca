"""Pseudo-video pairs: a small camera motion, and moving cut-out objects pasted on top.

An image with semantic labels gives a pair with exact tracks, because both frames are the same scene
seen through two maps. Objects come from sequences of cut-outs (an image and a mask per frame), so a
pasted object moves and deforms as it did in its own video; or from the images themselves, where
there are many more, which move as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .pairs import CropRange, FramePair, Rng, continued, pseudo_motion, warp
from .sprites import Sprite, blend, placement, repainted
from .video import Video

_MIN_INSTANCE_PIXELS = 60
_MAX_ASPECT = 1.5  # width over height of a region that may be one object: a car from behind
_MIN_FILL = 0.65  # fraction of its box that one object fills, ...
_MIN_FILL_UPRIGHT, _UPRIGHT_ASPECT = 0.35, 0.7  # ... and one that stands on legs or wheels
_MIN_CUTOUT_PIXELS = 300  # most of a smaller object is edge: it is not cut out
_CUTOUT_METRES = 1.6  # height of any object that is cut out of an image
_BESIDE = 0.6  # fraction of a crowd's objects that are put next to the one before, ...
_BESIDE_WIDTHS = 0.12  # ... this far off (standard deviation), in widths of the image
_CUTOUT_STEP = 0.06  # how far a cut-out moves between the frames, in its own sizes, and grows


class CopyPaste:
    """A `PairSource` of real images with pasted sprites.

    Args:
        images: labelled real frames.
        sprites: what is pasted; may be empty.
        things: class ids whose connected regions in the images become instances.
        max_sprites: most objects pasted into one pair.
        crowd: half of what is pasted is a single cut-out, of `sprites` or of the images themselves;
            most of it stands beside or in front of what was pasted before, and all is recoloured.
            Sequences of cut-outs are few, and a network that gets each of them a thousand times
            overfits to them.
        frames: of a clip; camera and objects go on as from the first to the second.
    """

    def __init__(
        self,
        images: Video,
        sprites: Sequence[Sprite],
        things: Sequence[int],
        max_sprites: int = 4,
        crop: CropRange | None = None,
        causal: bool = False,
        crowd: bool = False,
        frames: int = 2,
    ) -> None:
        self.causal, self.crowd, self.frames = causal, crowd, frames
        self.images = images
        self.sprites = sprites
        self.singles: list[Sprite] = []
        if crowd:
            self.sprites = [sprite for sprite in sprites if len(sprite.cutouts) > 1]
            self.singles = [sprite for sprite in sprites if len(sprite.cutouts) == 1]
            self.singles += _cut_out(images, things)
        self.things = tuple(things)
        self.max_sprites = max_sprites
        self.crop = crop or CropRange()

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        frame = self.images[int(rng.integers(len(self.images)))]
        frame = replace(frame, instance=_instances_of_regions(frame.semantic, self.things))
        to_crop = self.crop.draw(rng, frame.image.shape, height, width)
        motion = pseudo_motion(rng, height, width)
        maps = continued(motion, to_crop, self.frames)
        frames = [warp(frame, matrix, height, width) for matrix in maps]
        if self.sprites or self.singles:
            first = int(frame.instance.max()) + 1
            for track, foot in enumerate(self._feet(rng, height, width), first):
                self._paste(frames, track, foot, motion, rng)
        images, semantics, instances = (np.stack(part) for part in zip(*frames, strict=True))
        return FramePair(images, semantics, instances)

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


def _cut_out(images: Video, things: Sequence[int]) -> list[Sprite]:
    """The single objects of the images that are seen whole, as sprites of one cut-out each."""
    sprites = []
    for frame in images:
        image, semantic = frame.image, frame.semantic
        instance = _instances_of_regions(semantic, things)
        for number in range(1, int(instance.max()) + 1):
            mask = instance == number
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            whole = x > 0 and y > 0 and x + width < mask.shape[1] and y + height < mask.shape[0]
            if whole and mask.sum() >= _MIN_CUTOUT_PIXELS:
                box = slice(y, y + height), slice(x, x + width)
                sprites.append(
                    Sprite(
                        class_id=int(semantic[mask][0]),
                        cutouts=((image[box].copy(), mask[box].astype(np.uint8)),),
                        centres=np.array([[width / 2, height / 2]]),
                        scales=np.ones(1),
                        whole=np.ones(1, bool),
                        metres=_CUTOUT_METRES,
                    )
                )
    return sprites


def _instances_of_regions(semantic: NDArray, things: Sequence[int]) -> NDArray[np.int64]:
    """Connected regions of each thing class as instances 1, 2, ...

    Semantic labels do not part objects that touch. A region that is small, wide or ragged is more
    likely several objects or a part of one, and stays 0 (no identity): taken as one instance, a row
    of parked cars would teach the network to join cars.
    """
    instance = np.zeros(semantic.shape, np.int64)
    count = 0
    for class_id in things:
        _, regions, stats, _ = cv2.connectedComponentsWithStats(
            (semantic == class_id).astype(np.uint8), connectivity=4
        )
        for region, (_, _, width, height, area) in enumerate(stats[1:], start=1):
            fill = _MIN_FILL_UPRIGHT if width <= _UPRIGHT_ASPECT * height else _MIN_FILL
            large, full = area >= _MIN_INSTANCE_PIXELS, area >= fill * width * height
            if large and full and width <= _MAX_ASPECT * height:
                count += 1
                instance[regions == region] = count
    return instance
