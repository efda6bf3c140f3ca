"""What is wrong with a data set: every fault by name, found by reading all of it once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..image_files import FrameError
from ..types import NO_CLASS
from .datasets import open_dataset
from .video import DatasetError, LabelledFrame, Video, VideoDataset


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    where: str
    """Video, or video/frame."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def validate(name: str, root: Path, split: str) -> Iterator[Fault]:
    """The faults of one split; an index that cannot be used is one too. See `_find_faults`."""
    try:
        dataset = open_dataset(name, root, split)
    except DatasetError as error:
        yield Fault(split, str(error))
        return
    yield from _find_faults(dataset)


def _find_faults(dataset: VideoDataset) -> Iterator[Fault]:
    """Read every frame; gives the faults as they are found.

    Missing frames, images or labels; unreadable files; sizes that differ within a frame or a video;
    class and segment ids that the table or the index has not; instances of stuff classes; listed
    masks without pixels, and frames without labels.
    """
    if not len(dataset):
        yield Fault(dataset.name, "has no videos")
    for video in dataset:
        yield from _faults_of_video(video, dataset)


def _faults_of_video(video: Video, dataset: VideoDataset) -> Iterator[Fault]:
    if not len(video):
        yield Fault(video.name, "has no frames")
    if dataset.consecutive:
        yield from _gaps(video)
    first: tuple[str, tuple[int, ...]] | None = None
    for index, files in enumerate(video.frames):
        where = f"{video.name}/{files.name}"
        try:
            frame = video[index]
        except FrameError as error:
            yield Fault(where, str(error).removeprefix(f"{where}: "))
            continue
        size = frame.semantic.shape
        first = first or (files.name, size)
        if size != first[1]:
            yield Fault(where, f"is {size}, but frame {first[0]} is {first[1]}")
        if video.read is not None:
            yield from _faults_of_labels(where, frame, dataset.things)


def _gaps(video: Video) -> Iterator[Fault]:
    """Numbers that are missing between the first and the last frame."""
    numbers = {int(f.name): len(f.name) for f in video.frames if f.name.isdecimal()}
    for number in range(min(numbers, default=0), max(numbers, default=0)):
        if number not in numbers:
            digits = max(numbers.values())
            yield Fault(f"{video.name}/{number:0{digits}d}", "the frame is missing")


def _faults_of_labels(where: str, frame: LabelledFrame, things: frozenset[int]) -> Iterator[Fault]:
    for segment in frame.labels.empty:
        yield Fault(where, f"the mask of {segment} is empty")
    if frame.masks is None and (frame.semantic == NO_CLASS).all():
        yield Fault(where, "no pixel is labelled")
    classes = np.unique(frame.semantic[frame.instance > 0])
    for class_id in sorted(set(classes.tolist()) - things):
        ids = np.unique(frame.instance[frame.semantic == class_id])
        kind = "unlabelled pixels" if class_id == NO_CLASS else f"the stuff class {class_id}"
        yield Fault(where, f"expected instance id 0 of {kind}, got {ids[-1]}")
