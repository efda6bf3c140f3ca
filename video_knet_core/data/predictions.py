"""Predictions on disk, in the files that a data set's evaluation server or program reads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool
from pydantic.dataclasses import dataclass as row_class

from ..output_files import inside, make_folder, write_text
from ..run_lengths import RunLengths
from ..types import first_difference
from .json_index import ROW, Text, load_index
from .label_png import write_png
from .video import DatasetError, LabelledFrame, Video, VideoDataset

P = TypeVar("P")
"""The prediction of one frame: `PanopticMaps`, `ClassMap` or `Instances`."""
PanopticMaps = tuple[NDArray[np.integer], NDArray[np.integer]]
"""Class ids [H, W] and track ids [H, W] of one frame; 255 and 0 = none."""
ClassMap = NDArray[np.integer]
"""Class ids [H, W] of one frame."""


@dataclass(frozen=True)
class Instance:
    """One track in one frame."""

    track_id: int
    class_id: int
    score: float
    """0..1, in this frame."""
    mask: RunLengths | None
    """None where it has no pixels."""


Instances = Sequence[Instance]
"""The tracks of one frame."""
PredictionReader = Callable[[Video], Callable[[LabelledFrame], P]]
"""Starts a video; what it returns is called with its frames in order. No image is read before:
what is wrong with one is a DatasetError when its frame comes."""
_CLASSES_FILE = "video_knet_classes.json"
"""Beside predictions: the classes they are of. No server or program of a data set reads it."""


class PredictionWriter(ABC, Generic[P]):
    """Writes predictions below the folder `out`, frame after frame and video after video."""

    def __init__(self, out: Path) -> None:
        self.out = out

    @abstractmethod
    def update(self, video: Video, frame: LabelledFrame, prediction: P) -> None:
        """Add the next frame; ValueError if its values do not fit the files."""

    def end_video(self, video: Video) -> None:
        """The last frame of `video` was added."""

    def close(self) -> Path:
        """Finish the files; returns where they are."""
        return self.out


@dataclass(frozen=True)
class PredictionFormat(Generic[P]):
    """How the predictions of a data set are stored."""

    writer: Callable[[Path], PredictionWriter[P]]
    """A writer into a folder."""
    read: Callable[[Path, VideoDataset], PredictionReader[P]]
    """Reads what it writes; DatasetError if an index among the files is unusable."""


def png_predictions(
    encode: Callable[[P], NDArray], decode: Callable[[Path, VideoDataset], P]
) -> PredictionFormat[P]:
    """The form OUT/VIDEO/FRAME.png.

    Args:
        encode: values of the PNG; ValueError if they do not fit.
        decode: reads one; DatasetError if it is faulty.
    """

    def read(path: Path, dataset: VideoDataset) -> PredictionReader[P]:
        return lambda video: lambda frame: decode(path / video.name / f"{frame.name}.png", dataset)

    return PredictionFormat(lambda out: _PngWriter(out, encode), read)


class _PngWriter(PredictionWriter[P]):
    def __init__(self, out: Path, encode: Callable[[P], NDArray]) -> None:
        super().__init__(out)
        self._encode = encode

    def update(self, video: Video, frame: LabelledFrame, prediction: P) -> None:
        path = inside(self.out, Path(video.name, f"{frame.name}.png"))
        write_png(path, self._encode(prediction))


@row_class(frozen=True, config=ROW)
class _Class:
    name: Text
    is_thing: StrictBool


def write_classes(folder: Path, dataset: VideoDataset) -> None:
    """Write the classes of predictions into their folder, which is made."""
    rows = [{"name": name, "is_thing": is_thing} for name, is_thing in dataset.kinds]
    write_json(folder / _CLASSES_FILE, rows, indent=1)


def check_classes(path: Path, dataset: VideoDataset) -> None:
    """DatasetError if predictions were saved with other classes than those of the data set.

    `path` is their folder, or the one file of a form that has one. Predictions of other programs
    come without classes, and are taken as they are.
    """
    file = (path if path.is_dir() else path.parent) / _CLASSES_FILE
    if not file.is_file():
        return
    rows: list[_Class] = load_index(file, list[_Class])
    kinds = [(row.name, row.is_thing) for row in rows]
    if difference := first_difference(dataset.kinds, kinds):
        raise DatasetError(f"{file}: its classes are not those of {dataset.name}: {difference}")


def write_json(path: Path, content: Any, indent: int | None = None) -> Path:
    """Write a file and the folders above it; returns its path."""
    make_folder(path.parent)
    write_text(path, json.dumps(content, ensure_ascii=indent is None, indent=indent) + "\n")
    return path


@dataclass
class _CollectedTrack:
    """One track of a video so far. Run lengths are kept, no masks."""

    masks: list[RunLengths | None]
    """One for every frame so far."""
    score: float = 0.0
    """Mean of its scores in frames."""
    frames: int = 0
    votes: dict[int, float] = field(default_factory=dict)
    """Summed score of each class."""

    @property
    def class_id(self) -> int:
        """The class with the largest sum of scores, of equal ones the first."""
        return max(self.votes, key=lambda class_id: self.votes[class_id])


class TrackCollector:
    """Puts the tracks of one video together, frame after frame."""

    def __init__(self) -> None:
        self.tracks: dict[int, _CollectedTrack] = {}
        """By track id, in the order of their first frames."""
        self._frames = 0

    def add(self, instances: Instances) -> None:
        """Add the next frame; ValueError if a track is there twice."""
        for row in instances:
            track = self.tracks.setdefault(row.track_id, _CollectedTrack([None] * self._frames))
            if len(track.masks) > self._frames:
                raise ValueError(f"expected one mask of the track {row.track_id}, got two")
            track.masks.append(row.mask)
            track.votes[row.class_id] = track.votes.get(row.class_id, 0.0) + row.score
            track.frames += 1
            track.score += (row.score - track.score) / track.frames  # exact for equal scores
        self._frames += 1
        for track in self.tracks.values():
            track.masks += [None] * (self._frames - len(track.masks))
