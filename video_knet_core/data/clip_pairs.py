"""Training pairs from any labelled data set: two frames of a video, or one image moved a little."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .pairs import CropRange, FramePair, Rng, pseudo_motion, warp, warp_masks
from .video import DatasetError, InstanceMasks, LabelledFrame, Video, VideoDataset

TWO_SIDED = (-2, -1, 1, 2)
"""Where the authors' code takes the reference frame, relative to the key frame."""
CAUSAL = (-2, -1)
"""Only before it, as a running camera has it."""
MAX_TRIES = 20


class _DatasetPairs:
    """Every frame that can be a key frame is equally likely to be one."""

    def __init__(self, dataset: VideoDataset, crop: CropRange | None) -> None:
        self.dataset, self.crop = dataset, crop or CropRange()
        self._ends = np.cumsum([len(self._keys(len(video))) for video in dataset])
        """How many key frames there are up to and with each video."""

    def _keys(self, length: int) -> list[int]:
        """Frames of a video of `length` that can be key frames."""
        return list(range(length))

    def _draw_key(self, rng: Rng) -> tuple[Video, int]:
        position = int(rng.integers(self._ends[-1]))
        number = int(np.searchsorted(self._ends, position, side="right"))
        video = self.dataset[number]
        keys = self._keys(len(video))
        return video, keys[position - int(self._ends[number]) + len(keys)]


class ClipPairs(_DatasetPairs):
    """A `PairSource` of frames of one video.

    The offset is drawn anew for every pair (the authors' code draws it once and keeps it), from
    those that stay inside the video. Crop, scale and mirror are one draw for both frames; the
    trainer adds its `photometric` to the pair.

    Args:
        dataset: where the frames are from; every frame is equally likely to be the key frame.
        offsets: positions of the reference frame relative to the key frame, not 0.
        crop: how crops are drawn.
        tracked: draw again, `MAX_TRIES` times at most, until an object is in both crops.

    Raises:
        ValueError: no offset, or one of 0.
        DatasetError: a video without frames, or no video that is long enough for an offset.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        offsets: Sequence[int] = TWO_SIDED,
        crop: CropRange | None = None,
        tracked: bool = False,
    ) -> None:
        if not offsets or 0 in offsets:
            raise ValueError(f"expected offsets other than 0, got {list(offsets)}")
        empty = [video.name for video in dataset if not len(video)]
        if empty:
            raise DatasetError(f"{dataset.name}: the video {empty[0]!r} has no frames")
        self.offsets, self.tracked = tuple(offsets), tracked
        super().__init__(dataset, crop)
        if not self._ends[-1]:
            raise DatasetError(f"{dataset.name}: no video has two frames {list(offsets)} apart")

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random pair of `height` x `width` pixels; DatasetError if a frame is faulty."""
        for _ in range(MAX_TRIES if self.tracked else 1):
            pair = self._draw(rng, height, width)
            if np.intersect1d(*pair.instance).any():  # 0 is no object
                break
        return pair

    def _draw(self, rng: Rng, height: int, width: int) -> FramePair:
        video, key = self._draw_key(rng)
        reference = key + int(rng.choice(self._inside(key, len(video))))
        frames = [video[key], video[reference]]
        to_crop = self.crop.draw(rng, frames[0].image.shape, height, width)
        return _cropped(_renumbered(frames), [to_crop, to_crop], height, width)

    def _inside(self, key: int, length: int) -> list[int]:
        return [offset for offset in self.offsets if 0 <= key + offset < length]

    def _keys(self, length: int) -> list[int]:
        return [key for key in range(length) if self._inside(key, length)]


class ImagePairs(_DatasetPairs):
    """A `PairSource` of pseudo-video pairs: the second frame is the first one, moved a little.

    For data sets of images, such as Cityscapes in the form of KITTI-STEP, whose neighbouring frames
    show different places. An image network's tracking starts from them, as the authors' does.

    Args:
        dataset: where the frames are from; every frame is equally likely.
        crop: how crops are drawn.

    Raises:
        DatasetError: there is no frame.
    """

    def __init__(self, dataset: VideoDataset, crop: CropRange | None = None) -> None:
        super().__init__(dataset, crop)
        if not self._ends[-1]:
            raise DatasetError(f"{dataset.name}: there is no frame")

    def sample(self, rng: Rng, height: int, width: int) -> FramePair:
        """A random pair of `height` x `width` pixels; DatasetError if the frame is faulty."""
        video, key = self._draw_key(rng)
        (frame,) = _renumbered([video[key]])
        to_crop = self.crop.draw(rng, frame.image.shape, height, width)
        _, moved = pseudo_motion(rng, to_crop, height, width)
        return _cropped([frame, frame], [to_crop, moved], height, width)


def _cropped(
    frames: Sequence[LabelledFrame], matrices: Sequence[NDArray], height: int, width: int
) -> FramePair:
    """Each frame mapped by a 2x3 matrix of its own to `height` x `width` pixels."""
    size, together = (height, width), list(zip(frames, matrices, strict=True))
    warped = [warp(f.image, f.semantic, f.instance, matrix, *size) for f, matrix in together]
    images, semantics, maps = (np.stack(part) for part in zip(*warped, strict=True))
    masks = [None if f.masks is None else warp_masks(f.masks, m, *size) for f, m in together]
    whole = tuple(found for found in masks if found is not None)
    return FramePair(images, semantics, maps, whole if len(whole) == len(masks) else None)


def _renumbered(frames: Iterable[LabelledFrame]) -> list[LabelledFrame]:
    """The frames with instance ids 1, 2, ... in place of the data set's.

    An object is a class and an id together; ids may be too large for the float map of a warp.
    """
    numbers: dict[int, int] = {}

    def numbered(objects: NDArray) -> NDArray[np.int64]:
        found, positions = np.unique(objects, return_inverse=True)
        ids = [numbers.setdefault(k, len(numbers) + 1) if k else 0 for k in found.tolist()]
        return np.array(ids, np.int64)[positions].reshape(objects.shape)

    out = []
    for frame in frames:
        objects = np.where(frame.instance > 0, frame.instance * 256 + frame.semantic, 0)
        instance, masks = numbered(objects), frame.masks
        if masks is not None:
            ids = numbered(masks.ids * 256 + masks.class_ids)
            masks = InstanceMasks(ids, masks.class_ids, masks.masks)
        out.append(replace(frame, labels=replace(frame.labels, instance=instance, masks=masks)))
    return out
