"""What every reader of a labelled data set gives: videos of frames that are read on access.

    for video in open_dataset("kitti_step", root, "val"):      # see datasets.py
        frame = video[0]                                        # reads two files
        frame.image, frame.semantic, frame.instance

Opening a data set lists folders and reads indices; no image is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..image_files import FrameError, read_image
from ..types import NO_CLASS, SOME_STUFF, ClassKind


class DatasetError(FrameError):
    """A data set that is missing or faulty; the message names the file, what is expected and what
    it got."""


@dataclass(frozen=True)
class InstanceMasks:
    """Instances that may overlap, as YouTube-VIS has them; N in one frame."""

    ids: NDArray[np.int64]
    """[N] track ids."""
    class_ids: NDArray[np.int64]
    """[N]"""
    masks: NDArray[np.bool_]
    """[N, H, W], each with at least one pixel."""


@dataclass(frozen=True)
class BoxLabels:
    """Boxes that were labelled apart from the masks, also around what is hidden; N in one frame."""

    ids: NDArray[np.int64]
    """[N] An object is an id and a class together."""
    class_ids: NDArray[np.int64]
    """[N]"""
    boxes: NDArray[np.float64]
    """[N, 4] x, y, width, height in pixels."""
    ignored: NDArray[np.float64]
    """[K, 4] where things are neither expected nor wrong."""


@dataclass(frozen=True)
class Labels:
    """The annotation of one frame.

    An object is named by its class and its instance id together: KITTI-STEP counts the ids of
    people and of cars apart.
    """

    semantic: NDArray[np.uint8]
    """[H, W] class ids of the model configuration of the data set, `NO_CLASS` = ignore."""
    instance: NDArray[np.int64]
    """[H, W] ids of the data set, the same for one object in all frames; 0 = none or a crowd."""
    masks: InstanceMasks | None = None
    """Only where instances may overlap; `semantic` and `instance` then show the smaller on top."""
    empty: tuple[int, ...] = ()
    """Ids that the index lists for this frame and that have no pixel in it."""
    raw: NDArray[np.uint8] | None = None
    """[H, W] the values as stored, where they have more: VSPW has two kinds of `NO_CLASS`, 0 =
    others and 255 = void, and class ids + 1."""
    boxes: BoxLabels | None = None
    """Only where boxes have labels of their own."""
    depth: None = None
    """No data set has it; that of the synthetic street is exact."""


@dataclass(frozen=True, kw_only=True)
class LabelledFrame(Labels):
    """One frame with its labels, all of one size H x W."""

    video: str
    name: str
    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""


@dataclass(frozen=True)
class FrameFiles:
    """Where one frame lies; None = a file that should be there and is not.

    Plain strings, since a data set has hundreds of thousands of them.
    """

    name: str
    image: str | None
    labels: str | None = None
    """A label image, or the index that has the labels."""


LabelReader = Callable[[str, int], Labels]
"""Reads the labels of one frame, given `FrameFiles.labels` and its position in the video;
DatasetError if they are not what the data set promises."""


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of one sequence, in order; `video[i]` reads frame i."""

    name: str
    frames: Sequence[FrameFiles]
    read: LabelReader | None = field(default=None, repr=False)
    """None where the split is published without labels: everything is `NO_CLASS` then."""

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; DatasetError if a file is missing or unreadable, its values are none of
        the data set's, or labels and image differ in size."""
        name, image = self.frames[index].name, self.image(index)
        labels = self._labels(index, image.shape[:2])
        if labels.semantic.shape != image.shape[:2]:
            raise DatasetError(
                f"{self.name}/{name}: labels are {labels.semantic.shape}, "
                f"the image is {image.shape[:2]}"
            )
        return LabelledFrame(**vars(labels), video=self.name, name=name, image=image)

    def __iter__(self) -> Iterator[LabelledFrame]:
        return (self[index] for index in range(len(self)))

    def part(self, positions: Sequence[int]) -> Video:
        """The frames at `positions` alone, with their labels."""
        read = self.read and partial(_read_at, self.read, tuple(positions))
        return Video(self.name, [self.frames[position] for position in positions], read)

    def image(self, index: int) -> NDArray[np.uint8]:
        """[H, W, 3] RGB of one frame, without its labels."""
        frame = self.frames[index]
        if frame.image is None or not os.path.isfile(frame.image):
            raise DatasetError(
                f"{self.name}/{frame.name}: has no image {frame.image or ''}".strip()
            )
        return read_image(Path(frame.image))

    def _labels(self, index: int, shape: tuple[int, ...]) -> Labels:
        if self.read is None:
            return Labels(np.full(shape, NO_CLASS, np.uint8), np.zeros(shape, np.int64))
        frame = self.frames[index]
        if frame.labels is None:
            raise DatasetError(f"the image {frame.image} has no label image")
        return self.read(frame.labels, index)


def _read_at(read: LabelReader, positions: Sequence[int], path: str, position: int) -> Labels:
    return read(path, positions[position])


def _read_things(
    read: LabelReader, things: Collection[int], rest: int, path: str, position: int
) -> Labels:
    labels = read(path, position)
    kept = np.isin(labels.semantic, [*things, NO_CLASS])
    semantic = np.where(kept, labels.semantic, np.uint8(rest))
    return replace(labels, semantic=semantic, instance=np.where(kept, labels.instance, 0))


@dataclass(frozen=True, eq=False)
class VideoDataset:
    """A split of a data set: a sequence of videos, and what their labels mean."""

    name: str
    """As `open_dataset` takes it."""
    kinds: tuple[ClassKind, ...] = field(repr=False)
    """Name of each class, and whether its pixels may have an instance."""
    videos: Sequence[Video] = field(repr=False)
    consecutive: bool = False
    """Whether frames are numbered without gaps, so that a gap is a missing frame."""

    @property
    def class_count(self) -> int:
        """Class ids are 0 .. this - 1."""
        return len(self.kinds)

    @cached_property
    def things(self) -> frozenset[int]:
        """Class ids whose pixels may have an instance."""
        return frozenset(i for i, (_, is_thing) in enumerate(self.kinds) if is_thing)

    @property
    def is_labelled(self) -> bool:
        """Whether the split is published with labels."""
        return all(video.read is not None for video in self)

    def without(self, names: Collection[str]) -> VideoDataset:
        """Without the frames that `names` lists as VIDEO/FRAME, and videos that have no others;
        DatasetError for a name that it does not have, or if nothing is left."""
        left_out, known, videos = set(names), set[str](), []
        for video in self:
            own = [f"{video.name}/{frame.name}" for frame in video.frames]
            known.update(own)
            kept = [position for position, name in enumerate(own) if name not in left_out]
            if kept:
                videos.append(video.part(kept))
        if strange := sorted(left_out - known):
            raise DatasetError(
                f"{self.name}: expected names of its frames, as {min(known, default='none')!r}, "
                f"got {strange[0]!r}"
            )
        return replace(self, videos=videos)

    def without_stuff(self, rest: int = NO_CLASS) -> VideoDataset:
        """With the labels of things alone: stuff is `rest`, `NO_CLASS` or `SOME_STUFF`.

        DatasetError without things or without stuff, or if a class has the value `SOME_STUFF`.
        """
        if not 0 < len(self.things) < self.class_count:
            kind = "things" if self.things else "stuff"
            raise DatasetError(
                f"{self.name}: expected classes of things and stuff, got {kind} alone"
            )
        if self.class_count > SOME_STUFF:
            raise DatasetError(
                f"{self.name}: expected at most {SOME_STUFF} classes, so that {SOME_STUFF} can be "
                f"stuff of an unknown one, got {self.class_count}"
            )
        videos = [
            replace(video, read=video.read and partial(_read_things, video.read, self.things, rest))
            for video in self
        ]
        return replace(self, videos=videos)

    def single_images(self) -> VideoDataset:
        """Every frame as a video of its own."""
        videos = [video.part([position]) for video in self for position in range(len(video))]
        return replace(self, videos=videos)

    def hold_out(self, every: int) -> tuple[VideoDataset, VideoDataset]:
        """Two data sets: one to learn from, and one of the videos number `every`, 2 * `every`, ...

        Of a single video the last part is held out, one frame of `every`, since neighbouring frames
        are alike. DatasetError if there is nothing to hold out, or nothing else.
        """
        if len(self) > 1:
            numbered = list(enumerate(self, start=1))
            parts = [[v for n, v in numbered if bool(n % every) == rest] for rest in (True, False)]
        else:
            (video,) = self
            first = len(video) - max(1, len(video) // every)
            sides = range(first), range(first, len(video))
            parts = [[video.part(side)] if side else [] for side in sides]
        if not all(parts):
            raise DatasetError(
                f"{self.name}: hold_out: expected enough videos or frames to hold out one of "
                f"{every}, got {len(self)} videos, the first with {len(self[0])} frames"
            )
        learned, held_out = (replace(self, videos=part) for part in parts)
        return learned, held_out

    def __post_init__(self) -> None:
        if len(self.kinds) > NO_CLASS:
            raise DatasetError(
                f"{self.name}: expected at most {NO_CLASS} classes, got {len(self.kinds)}"
            )
        if not self.videos:
            raise DatasetError(f"{self.name}: the split is empty, expected at least one video")

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int, /) -> Video:
        return self.videos[index]

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)


def class_kinds(names: Sequence[str], things: Collection[int]) -> tuple[ClassKind, ...]:
    """The classes called `names`; those at `things` are things."""
    return tuple((name, number in things) for number, name in enumerate(names))
