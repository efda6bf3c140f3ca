"""What is wrong with a data set: every fault by name, found by reading all of it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..image_files import FrameError
from ..types import NO_CLASS
from .datasets import open_dataset
from .video import DatasetError, LabelledFrame, Video, VideoDataset

_Fault = tuple[str, str]
"""Where (split, video or video/frame), and what is wrong."""


def validate(name: str, root: Path, split: str) -> Iterator[_Fault]:
    """The faults of one split as they are found; every frame is read.

    An unusable index; missing frames, images or labels; unreadable files; sizes that differ within
    a frame or a video; class and segment ids that the table or the index has not; instances of
    stuff classes; listed masks without pixels, and frames without labels.
    """
    try:
        dataset = open_dataset(name, root, split)
    except DatasetError as error:
        yield split, str(error)
        return
    for video in dataset:
        yield from faults_of_video(video, dataset)


def faults_of_video(
    video: Video, dataset: VideoDataset, visit: Callable[[LabelledFrame], object] | None = None
) -> Iterator[_Fault]:
    """The faults of one video of `dataset`; `visit` is called with each frame that can be read."""
    if not len(video):
        yield video.name, "has no frames"
    if dataset.consecutive:
        yield from _gaps(video)
    first: tuple[str, tuple[int, ...]] | None = None
    for index, files in enumerate(video.frames):
        where = f"{video.name}/{files.name}"
        try:
            frame = video[index]
        except FrameError as error:
            yield where, str(error).removeprefix(f"{where}: ")
            continue
        if visit is not None:
            visit(frame)
        size = frame.semantic.shape
        first = first or (files.name, size)
        if size != first[1]:
            yield where, f"is {size}, but frame {first[0]} is {first[1]}"
        if video.read is not None:
            yield from _faults_of_labels(where, frame, dataset.things)


def _gaps(video: Video) -> Iterator[_Fault]:
    """Numbers that are missing between the first and the last frame."""
    numbers = {int(f.name): len(f.name) for f in video.frames if f.name.isdecimal()}
    for number in range(min(numbers, default=0), max(numbers, default=0)):
        if number not in numbers:
            digits = max(numbers.values())
            yield f"{video.name}/{number:0{digits}d}", "the frame is missing"


def _faults_of_labels(where: str, frame: LabelledFrame, things: frozenset[int]) -> Iterator[_Fault]:
    for segment in frame.empty:
        yield where, f"the mask of {segment} is empty"
    if frame.masks is None and (frame.semantic == NO_CLASS).all():
        yield where, "no pixel is labelled"
    classes = np.unique(frame.semantic[frame.instance > 0])
    for class_id in sorted(set(classes.tolist()) - things):
        ids = np.unique(frame.instance[frame.semantic == class_id])
        kind = "unlabelled pixels" if class_id == NO_CLASS else f"the stuff class {class_id}"
        yield where, f"expected instance id 0 of {kind}, got {ids[-1]}"
