"""Pseudo-video pairs of images with semantic labels, with moving cut-out objects pasted on top.

An image gives a pair with exact tracks, because both frames are the same scene seen through two
maps. Objects are cut out of the images too, where there are many more than in sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .pairs import CropRange, FramePair, Rng, continued, pseudo_motion, warped_pair
from .pasting import Paster
from .sprites import Sprite
from .video import Video

_MIN_INSTANCE_PIXELS = 60
_MAX_ASPECT = 1.5  # width over height of a region that may be one object: a car from behind
_MIN_FILL = 0.65  # fraction of its box that one object fills, ...
_MIN_FILL_UPRIGHT, _UPRIGHT_ASPECT = 0.35, 0.7  # ... and one that stands on legs or wheels
_MIN_CUTOUT_PIXELS = 300  # most of a smaller object is edge: it is not cut out
_CUTOUT_METRES = 1.6  # height of any object that is cut out of an image


class CopyPaste:
    """A `PairSource` of real images with pasted sprites; see `Paster` for what is not said here.

    Args:
        images: labelled real frames.
        things: class ids whose connected regions in the images become instances.
        crowd: single cut-outs are those of the images too.
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
        self.images, self.things, self.frames = images, tuple(things), frames
        if crowd:
            sprites = [*sprites, *_cut_out(images, things)]
        self.paster = Paster(sprites, max_sprites, causal, crowd)
        self.crop = crop or CropRange()

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        frame = self.images[int(rng.integers(len(self.images)))]
        frame = replace(frame, instance=_instances_of_regions(frame.semantic, self.things))
        to_crop = self.crop.draw(rng, frame.image.shape, height, width)
        motion = pseudo_motion(rng, height, width)
        maps = continued(motion, to_crop, self.frames)
        pair = warped_pair([frame] * self.frames, maps, height, width)
        return self.paster.paste(pair, motion, rng)


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
