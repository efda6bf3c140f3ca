"""Training pairs and longer clips from any labelled data set: of frames of a video, or of one image
moved a little."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .pairs import CropRange, FramePair, Rng, continued, pseudo_motion, warped_pair
from .pasting import Paster
from .video import DatasetError, InstanceMasks, LabelledFrame, VideoDataset

TWO_SIDED = (-2, -1, 1, 2)
"""Where the authors' code takes the reference frame, relative to the key frame."""
_MAX_TRIES = 20


class ClipPairs:
    """A `PairSource` of frames of one video.

    The offset is drawn anew for every pair (the authors' code draws it once and keeps it), from
    those that stay inside the video. Crop, scale and mirror are one draw for both frames; the
    trainer adds its `photometric` to the pair.

    Args:
        dataset: where the frames are from; every frame is equally likely to be the key frame.
        offsets: positions of the reference frame relative to the key frame, not 0.
        crop: how crops are drawn.
        tracked: draw again, `_MAX_TRIES` times at most, until an object is in the crops of the key
            frame and of another.
        frames: of a clip. Each further one is another draw of the `offsets` away, in the direction
            of the first: gaps in time differ within a clip.
        paster: objects on top; they move as if the camera stood, since its motion is unknown.

    DatasetError for a video without frames, or if none is long enough for an offset.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        offsets: Sequence[int] = TWO_SIDED,
        crop: CropRange | None = None,
        tracked: bool = False,
        frames: int = 2,
        paster: Paster | None = None,
    ) -> None:
        if not offsets or 0 in offsets:
            raise ValueError(f"expected offsets other than 0, got {list(offsets)}")
        empty = [video.name for video in dataset if not len(video)]
        if empty:
            raise DatasetError(f"{dataset.name}: the video {empty[0]!r} has no frames")
        self.dataset, self.crop, self.paster = dataset, crop or CropRange(), paster or Paster()
        self.offsets, self.tracked, self.frames = tuple(offsets), tracked, frames
        keys = _key_frames(dataset)
        self._keys = [key for key in keys if self._inside(*key, self.offsets, frames - 1)]
        if not self._keys:
            raise DatasetError(
                f"{dataset.name}: no video has {frames} frames {list(offsets)} apart"
            )

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random pair of `height` x `width` pixels; DatasetError if a frame is faulty."""
        for _ in range(_MAX_TRIES if self.tracked else 1):
            pair = self._draw(rng, height, width)
            if np.intersect1d(pair.instance[0], pair.instance[1:]).any():  # 0 is no object
                break
        return self.paster.paste(pair, np.eye(3), rng)

    def _draw(self, rng: Rng, height: int, width: int) -> FramePair:
        number, key = self._keys[int(rng.integers(len(self._keys)))]
        video, at, offsets = self.dataset[number], [key], self.offsets
        for missing in range(self.frames - 1, 0, -1):
            step = int(rng.choice(self._inside(number, at[-1], offsets, missing)))
            at.append(at[-1] + step)
            offsets = tuple(_of_direction(offsets, step))
        frames = [video[t] for t in at]
        to_crop = self.crop.draw(rng, frames[0].image.shape, height, width)
        return warped_pair(_renumbered(frames), [to_crop] * len(frames), height, width)

    def _inside(self, number: int, at: int, offsets: Sequence[int], missing: int) -> list[int]:
        """The `offsets` from frame `at` after which the rest of so many missing frames fits into
        the video too."""
        length, found = len(self.dataset[number]), []
        for offset in offsets:
            nearest = min(_of_direction(offsets, offset), key=abs)
            if 0 <= at + offset + (missing - 1) * nearest < length:
                found.append(offset)
        return found


class ImagePairs:
    """A `PairSource` of pseudo-video pairs: the second frame is the first one, moved a little.

    For data sets of images, such as Cityscapes in the form of KITTI-STEP, whose neighbouring frames
    show different places. An image network's tracking starts from them, as the authors' does. Every
    frame is equally likely; DatasetError if there is none. In clips of more `frames` the motion
    continues. What a `paster` puts on top moves with it.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        crop: CropRange | None = None,
        frames: int = 2,
        paster: Paster | None = None,
    ) -> None:
        self.dataset, self.crop, self.frames = dataset, crop or CropRange(), frames
        self.paster = paster or Paster()
        self._keys = _key_frames(dataset)
        if not self._keys:
            raise DatasetError(f"{dataset.name}: there is no frame")

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random pair of `height` x `width` pixels; DatasetError if the frame is faulty."""
        number, key = self._keys[int(rng.integers(len(self._keys)))]
        (frame,) = _renumbered([self.dataset[number][key]])
        to_crop = self.crop.draw(rng, frame.image.shape, height, width)
        motion = pseudo_motion(rng, height, width)
        maps = continued(motion, to_crop, self.frames)
        pair = warped_pair([frame] * self.frames, maps, height, width)
        return self.paster.paste(pair, motion, rng)


def _of_direction(offsets: Sequence[int], offset: int) -> list[int]:
    """Those into the same direction of time as `offset`."""
    return [other for other in offsets if (other > 0) == (offset > 0)]


def _key_frames(dataset: VideoDataset) -> list[tuple[int, int]]:
    """Number of the video and position in it of all frames."""
    return [(number, key) for number, video in enumerate(dataset) for key in range(len(video))]


def _renumbered(frames: Iterable[LabelledFrame]) -> list[LabelledFrame]:
    """The frames with instance ids 1, 2, ... in place of the data set's.

    An object is a class and an id together; ids may be too large for the float map of a warp.
    """
    numbers = {0: 0}

    def numbered(objects: NDArray) -> NDArray[np.int64]:
        found, positions = np.unique(objects, return_inverse=True)
        ids = [numbers.setdefault(name, len(numbers)) for name in found.tolist()]
        return np.array(ids, np.int64)[positions].reshape(objects.shape)

    out = []
    for frame in frames:
        objects = np.where(frame.instance > 0, frame.instance * 256 + frame.semantic, 0)
        instance, masks = numbered(objects), frame.masks
        if masks is not None:
            ids = numbered(masks.ids * 256 + masks.class_ids)
            masks = InstanceMasks(ids, masks.class_ids, masks.masks)
        out.append(replace(frame, instance=instance, masks=masks))
    return out
