"""Custom data: folders of images, 16-bit label images, and a table of classes.

    classes.yaml, SPLIT/images/VIDEO/NAME.jpg (or .png, ...), SPLIT/panoptic/VIDEO/NAME.png,
    tracks.json (if boxes are labelled too)

A single video may lie in SPLIT/images and SPLIT/panoptic themselves. A label is class id *
label_divisor + instance id, with instance 0 for stuff and crowds, and 65535 for "not labelled".
With a label_divisor of 1 a label is a class id, and images may have 8 bits, or a palette, with 255
for "not labelled". Predictions have the code of KITTI-STEP.

tracks.json has {"frames": {"VIDEO/NAME": [{"id": 3, "class": "person", "box": [x0, y0, x1, y1]}]}},
and a single video may have NAME alone. A class is one of classes.yaml or of KITTI's tracking data;
what has another one, as KITTI's DontCare, is neither expected nor wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat
from pydantic.dataclasses import dataclass

from ..config_io import Classes, ConfigError, expect, load_yaml, settings_class
from ..natural_order import is_hidden, natural_order
from ..types import NO_CLASS, ClassTable
from .dataset_format import DatasetFormat
from .folders import first_folder, folder_video, list_folders, list_images
from .json_index import ROW, Text, load_index
from .kitti_step import STEP_PREDICTIONS
from .label_png import read_values
from .video import BoxLabels, DatasetError, Labels, Video, VideoDataset

CLASSES_FILE, TRACKS_FILE = "classes.yaml", "tracks.json"
VOID = 65535
"""Label of pixels to ignore."""
KITTI_THINGS = {
    **dict.fromkeys(("Car", "Van", "Truck"), "vehicle"),
    **dict.fromkeys(("Pedestrian", "Person", "Person_sitting"), "person"),
    "Cyclist": "cyclist",
}
"""Class of the street model by that of KITTI's tracking data."""


@settings_class
class _Classes:
    """The content of classes.yaml; `classes` has the rows of a model configuration."""

    classes: Classes
    label_divisor: int = 1000
    """Instance ids of one video are below this."""

    def __post_init__(self) -> None:
        largest = VOID // len(self.classes)
        expected = f"1..{largest} for {len(self.classes)} classes in 16 bits"
        expect(1 <= self.label_divisor <= largest, "label_divisor", expected, self.label_divisor)


_Pixels = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]


@dataclass(frozen=True, slots=True, config=ROW)
class _BoxRow:
    id: Annotated[int, Field(strict=True, ge=-(1 << 31), lt=1 << 31)]
    name: Annotated[Text, Field(alias="class")]
    box: tuple[_Pixels, _Pixels, _Pixels, _Pixels]
    """x0, y0, x1, y1"""

    def __post_init__(self) -> None:
        if self.box[0] > self.box[2] or self.box[1] > self.box[3]:
            raise ValueError(f"expected box x0 <= x1 and y0 <= y1, got {list(self.box)}")


@dataclass(frozen=True, slots=True, config=ROW)
class _BoxIndex:
    """The content of tracks.json."""

    frames: dict[str, list[_BoxRow]]


def custom_classes(root: Path) -> ClassTable:
    """The class table of custom data; DatasetError if `classes.yaml` is missing or unusable."""
    return _load_classes(root).classes


def label_encoder(root: Path) -> Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray]:
    """Makes label images [H, W] u16 of the data set `root` from its class and instance ids [H, W].

    DatasetError if `classes.yaml` is missing or unusable.
    """
    divisor = _load_classes(root).label_divisor

    def encode(semantic: NDArray[np.uint8], instance: NDArray[np.int64]) -> NDArray:
        values = semantic.astype(np.int64) * divisor + instance
        return np.where(semantic == NO_CLASS, VOID, values).astype(np.uint16)

    return encode


def _load_classes(root: Path) -> _Classes:
    try:
        return load_yaml(_Classes, root / CLASSES_FILE)
    except ConfigError as error:
        raise DatasetError(str(error)) from None


def _open(root: Path, split: str) -> VideoDataset:
    classes = _load_classes(root)
    images, panoptic = first_folder(root / split / "images"), root / split / "panoptic"
    labelled = split != "test" or panoptic.is_dir()
    if labelled:
        first_folder(panoptic)
    names = _videos(images)
    if labelled and names != ["."]:  # a video without images is named when it is read
        names = natural_order({*names, *_filled_folders(panoptic)})
    boxes = _read_boxes(root / TRACKS_FILE, classes) if labelled else {}
    videos = [
        folder_video(
            video,
            images / name,
            panoptic / name if labelled else None,
            partial(_read, classes, _boxes_of(boxes, video, len(names) == 1)),
        )
        for name in names
        for video in [split if name == "." else name]
    ]
    _check_boxes(root / TRACKS_FILE, boxes, videos)
    return VideoDataset("custom", classes.classes.kinds, videos)


def _read_boxes(path: Path, classes: _Classes) -> dict[str, BoxLabels]:
    """The boxes by the key of their frame; none without the file."""
    if not path.exists():
        return {}
    ids = {info.name: info.id for info in classes.classes}
    ids = {kitti: ids[name] for kitti, name in KITTI_THINGS.items() if name in ids} | ids
    boxes = {}
    for key, rows in load_index(path, _BoxIndex).frames.items():
        known = [row for row in rows if row.name in ids]
        objects = [(row.id, ids[row.name]) for row in known]
        if len(set(objects)) != len(objects):
            raise DatasetError(f"{path}: frames.{key}: expected ids that differ, got {objects}")
        if stuff := [row.name for row in known if not classes.classes[ids[row.name]].is_thing]:
            raise DatasetError(f"{path}: frames.{key}: expected classes of things, got {stuff[0]}")
        numbers = np.array(objects, np.int64).reshape(-1, 2)
        others = [row for row in rows if row.name not in ids]
        boxes[key] = BoxLabels(numbers[:, 0], numbers[:, 1], _corners(known), _corners(others))
    return boxes


def _corners(rows: Sequence[_BoxRow]) -> NDArray[np.float64]:
    """[N, 4] x, y, width, height"""
    x0, y0, x1, y1 = np.array([row.box for row in rows], np.float64).reshape(-1, 4).T
    return np.stack([x0, y0, x1 - x0, y1 - y0], axis=1)


def _boxes_of(boxes: Mapping[str, BoxLabels], video: str, single: bool) -> dict[str, BoxLabels]:
    """Those of one video by the name of the frame."""
    prefix = f"{video}/"
    own = {key.removeprefix(prefix): rows for key, rows in boxes.items() if key.startswith(prefix)}
    return own or (dict(boxes) if single else {})


def _check_boxes(path: Path, boxes: Mapping[str, BoxLabels], videos: Sequence[Video]) -> None:
    """DatasetError if some frames of a video have boxes and others have none."""
    for video in videos:
        own = _boxes_of(boxes, video.name, len(videos) == 1)
        missing = [frame.name for frame in video.frames if frame.name not in own]
        if missing and len(missing) < len(video):
            raise DatasetError(
                f"{path}: expected boxes of all frames of {video.name}, or of none, "
                f"got none of {missing[0]}"
            )


def _videos(images: Path) -> list[str]:
    """Names of the folders, or "." for images that lie in `images` itself.

    DatasetError if there are images both in `images` and in a folder below it.
    """
    if not (single := list_images(images)):
        return list_folders(images)
    if folders := _filled_folders(images):
        raise DatasetError(
            f"expected either images or folders of images in {images}, "
            f"got {min(single.values())} and {images / min(folders)}"
        )
    return ["."]


def _filled_folders(folder: Path) -> list[str]:
    names = (name for name in os.listdir(folder) if not is_hidden(name))
    return [name for name in names if list_images(folder / name)]


def _read(classes: _Classes, boxes: Mapping[str, BoxLabels], path: str, _: int) -> Labels:
    values = read_values(path)
    if values.dtype != np.uint16 and classes.label_divisor != 1:
        raise DatasetError(
            f"{path}: expected an image of 16 bit, got 8 bit; class ids in 8 bits need "
            f"label_divisor: 1 in {CLASSES_FILE}"
        )
    unlabelled = VOID if values.dtype == np.uint16 else NO_CLASS
    void, count = values == unlabelled, len(classes.classes)
    semantic = values // classes.label_divisor
    beyond = ~void & (semantic >= count)
    if beyond.any():
        raise DatasetError(
            f"{path}: expected class ids 0..{count - 1} or the label {unlabelled}, got the label "
            f"{values[beyond][0]} of class {semantic[beyond][0]}"
        )
    instance = np.where(void, 0, values % classes.label_divisor).astype(np.int64)
    return Labels(
        np.where(void, NO_CLASS, semantic).astype(np.uint8),
        instance,
        boxes=boxes.get(Path(path).stem),
    )


CUSTOM = DatasetFormat("custom", "panoptic", _open, ("{}/images",), predictions=STEP_PREDICTIONS)
