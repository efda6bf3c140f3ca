"""Custom data in any form, and what it has to learn from: classes, sizes, objects and faults."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..natural_order import natural_order
from ..progress import progress_bar
from ..types import ClassInfo, ClassTable, plain_name
from ..visualize import track_color
from .coco import CUSTOM_COCO
from .custom import CLASSES_FILE, CUSTOM, custom_classes
from .dataset_format import DatasetFormat
from .dataset_validation import faults_of_video
from .video import DatasetError, LabelledFrame, VideoDataset

_log = logging.getLogger(__name__)
_SHOWN_FAULTS = 5

FOLLOWED_OVERLAP = 0.25
"""IoU of an object in two neighbouring frames, in the median, from which on its id is taken for
that of one object. In unrelated images equal ids are at the same place by chance alone."""


@dataclass(frozen=True)
class CustomData:
    """Where custom data is, as a training configuration names it."""

    form: DatasetFormat
    root: Path
    """The data root of the run ..."""
    path: str
    """... and the data set below it."""

    @classmethod
    def find(cls, data: Path) -> CustomData:
        """A folder with `classes.yaml` or with indices of COCO, or one such index; DatasetError if
        it is none of these."""
        if data.is_file():
            return cls(CUSTOM_COCO, data.parent, data.name)
        if (data / CLASSES_FILE).is_file():
            return cls(CUSTOM, data, ".")
        if CUSTOM_COCO.available_splits(data):
            return cls(CUSTOM_COCO, data, ".")
        content = "no such folder"
        if data.is_dir():
            names = natural_order(path.name for path in data.iterdir())
            content = ", ".join(names[:10]) or "an empty folder"
        raise DatasetError(
            f"{data}: expected a folder with {CLASSES_FILE} (layout custom) or with an index of "
            f"COCO, as annotations/instances_default.json or result.json, got {content}"
        )

    @property
    def place(self) -> Path:
        """The folder or the index."""
        return self.root / self.path

    def open(self, split: str) -> VideoDataset:
        """One split; DatasetError if it is missing or faulty."""
        return self.form.open(self.place, split)

    def has(self, split: str) -> bool:
        """Whether there is such a split."""
        return split in self.form.available_splits(self.place)

    def classes(self, dataset: VideoDataset, known: ClassTable) -> ClassTable:
        """The class table of a split. An index has no colours: those of `known` classes, else
        generated ones.

        DatasetError if a name is missing, or two are the same.
        """
        if self.form is CUSTOM:
            return custom_classes(self.place)
        colors = {plain_name(row.name): row.color for row in known}
        try:
            return ClassTable(
                ClassInfo(i, name, thing, colors.get(plain_name(name), track_color(i + 1)))
                for i, (name, thing) in enumerate(dataset.kinds)
            )
        except ValueError as error:
            raise DatasetError(f"{self.place}: categories: {error}") from None

    def census(self, dataset: VideoDataset, split: str) -> Census:
        """Read all of a split, with warnings of what is wrong with it.

        DatasetError if no frame can be used, or there is no object of any thing.
        """
        census, where = take_census(dataset, f"read {split}"), f"{self.place}, {split}"
        first = f", as {': '.join(census.faults[0])}" if census.faults else ""
        if not census.frames:
            raise DatasetError(
                f"{where}: expected frames with labels, got {census.total} of which none can be "
                f"used{first}"
            )
        if dataset.things and not census.objects_of.any():
            names = ", ".join(dataset.kinds[i][0] for i in sorted(dataset.things))
            kind = "an instance id above 0" if self.form is CUSTOM else "a mask (a box is none)"
            raise DatasetError(f"{where}: expected objects of {names}, got none with {kind}{first}")
        for warning in self._warnings(dataset, census):
            _log.warning("%s: %s", split, warning)
        return census

    def _warnings(self, dataset: VideoDataset, census: Census) -> list[str]:
        found = [": ".join(fault) for fault in census.faults[:_SHOWN_FAULTS]]
        if more := len(census.faults) - len(found):
            check = ["video-knet", "validate-data", self.form.name, str(self.place)]
            found.append(f"{more} more faults, all by: {shlex.join(check)}")
        if census.unusable:
            number = len(census.unusable)
            found.append(f"{number} of {census.total} frames cannot be used and are left out")
        found += [
            f"{dataset.kinds[i][0]} is a thing, but no pixel has an instance id: it is not learned"
            for i in sorted(dataset.things)
            if census.frames_of[i] and not census.objects_of[i]
        ]
        if census.without_objects:
            number = len(census.without_objects)
            found.append(
                f"{number} of {census.frames} images have no object and count as background; if "
                "they are not labelled yet, leave them out (--skip-empty)"
            )
        return found


@dataclass
class Census:
    """Counts over the frames of a data set that can be used; K classes."""

    dataset: VideoDataset
    frames: int = 0
    """Those that can be read and have labels."""
    total: int = 0
    frames_of: NDArray[np.int64] = field(init=False)
    """[K] frames with a pixel of each class."""
    objects_of: NDArray[np.int64] = field(init=False)
    """[K] objects of each class, counted in every frame."""
    without_objects: list[str] = field(default_factory=list)
    """VIDEO/FRAME of those without an object, of data sets that have objects alone."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Height and width of each frame."""
    overlaps: list[float] = field(default_factory=list)
    """IoU of each object with that of the same id in the frame before it."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Where, and what; also of frames that can be used."""
    unusable: list[str] = field(default_factory=list)
    """VIDEO/FRAME of those that cannot be read or have no label."""

    def __post_init__(self) -> None:
        self.frames_of, self.objects_of = np.zeros((2, self.dataset.class_count), np.int64)

    @property
    def size(self) -> tuple[int, int]:
        """Median height and width of the frames in pixels."""
        height, width = np.median(np.array(self.sizes), axis=0).round().astype(int).tolist()
        return height, width

    @property
    def is_followed(self) -> bool:
        """Whether frames are those of a video in which each object keeps its id."""
        return bool(self.overlaps) and float(np.median(self.overlaps)) >= FOLLOWED_OVERLAP


def take_census(dataset: VideoDataset, description: str | None = None) -> Census:
    """Read every frame of `dataset`, with a progress bar of that `description`; faults are counted,
    and none is raised."""
    census = Census(dataset)
    total = sum(len(video) for video in dataset)
    with progress_bar(None, description, total=total, leave=False) as bar:
        for video in dataset:
            visitor = _Visitor(census)
            census.faults += faults_of_video(video, dataset, visitor)
            names = [f"{video.name}/{frame.name}" for frame in video.frames]
            census.unusable += [name for name in names if name not in visitor.used]
            census.total += len(names)
            bar.update(len(names))
    return census


class _Visitor:
    """Counts the frames of one video."""

    def __init__(self, census: Census) -> None:
        self._census, self._classes = census, census.dataset.class_count
        self._before: NDArray[np.int64] | None = None
        self.used: set[str] = set()

    def __call__(self, frame: LabelledFrame) -> None:
        census = self._census
        present = np.bincount(frame.semantic.ravel(), minlength=256)[: self._classes] > 0
        objects, name = _objects(frame), f"{frame.video}/{frame.name}"
        if frame.masks is not None:
            found = frame.masks.class_ids
            present[found] = True
            if not present.any():
                census.without_objects.append(name)
        elif not present.any():
            return
        else:
            found = np.unique(objects[objects > 0]) % 256
        census.objects_of += np.bincount(found, minlength=self._classes)[: self._classes]
        census.frames_of += present
        census.frames += 1
        height, width = frame.image.shape[:2]
        census.sizes.append((height, width))
        self.used.add(name)
        if self._before is not None and self._before.shape == objects.shape:
            census.overlaps += _overlaps(self._before, objects)
        self._before = objects


def _objects(frame: LabelledFrame) -> NDArray[np.int64]:
    """[H, W] instance id * 256 + class id, 0 where there is no object."""
    return np.where(frame.instance > 0, frame.instance * 256 + frame.semantic, 0)


def _overlaps(before: NDArray[np.int64], after: NDArray[np.int64]) -> list[float]:
    """IoU of each object that is in both maps."""
    areas = [
        dict(zip(*np.unique(m[m > 0], return_counts=True), strict=True)) for m in (before, after)
    ]
    both = before[(before == after) & (before > 0)]
    shared = dict(zip(*np.unique(both, return_counts=True), strict=True))
    return [
        float(shared.get(name, 0) / (area + areas[1][name] - shared.get(name, 0)))
        for name, area in areas[0].items()
        if name in areas[1]
    ]
