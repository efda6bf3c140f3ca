"""Custom data: folders of images, 16-bit label images, and a table of classes.

    classes.yaml, SPLIT/images/VIDEO/NAME.jpg (or .png, ...), SPLIT/panoptic/VIDEO/NAME.png

A single video may lie in SPLIT/images and SPLIT/panoptic themselves. A label is class id *
label_divisor + instance id, with instance 0 for stuff and crowds, and 65535 for "not labelled".
Predictions have the code of KITTI-STEP.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from ..config_io import Classes, ConfigError, expect, load_yaml, settings_class
from ..natural_order import is_hidden, natural_order
from ..types import NO_CLASS
from .dataset_format import DatasetFormat
from .folders import first_folder, folder_video, list_folders, list_images
from .kitti_step import STEP_PREDICTIONS
from .label_png import read_values
from .video import DatasetError, Labels, VideoDataset

VOID = 65535
"""Label of pixels to ignore."""


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


def _open(root: Path, split: str) -> VideoDataset:
    try:
        classes = load_yaml(_Classes, root / "classes.yaml")
    except ConfigError as error:
        raise DatasetError(str(error)) from None
    images, panoptic = first_folder(root / split / "images"), root / split / "panoptic"
    labelled = split != "test" or panoptic.is_dir()
    if labelled:
        first_folder(panoptic)
    names = _videos(images)
    if labelled and names != ["."]:  # a video without images is named when it is read
        names = natural_order({*names, *_filled_folders(panoptic)})
    read = partial(_read, classes)
    videos = [
        folder_video(
            split if name == "." else name,
            images / name,
            panoptic / name if labelled else None,
            read,
        )
        for name in names
    ]
    return VideoDataset("custom", classes.classes.kinds, videos)


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


def _read(classes: _Classes, path: str, _: int) -> Labels:
    values = read_values(path)
    if values.dtype != np.uint16:
        raise DatasetError(f"{path}: expected an image of 16 bit, got 8 bit")
    void, count = values == VOID, len(classes.classes)
    semantic = values // classes.label_divisor
    beyond = ~void & (semantic >= count)
    if beyond.any():
        raise DatasetError(
            f"{path}: expected class ids 0..{count - 1} or the label {VOID}, got the label "
            f"{values[beyond][0]} of class {semantic[beyond][0]}"
        )
    instance = np.where(void, 0, values % classes.label_divisor).astype(np.int64)
    return Labels(np.where(void, NO_CLASS, semantic).astype(np.uint8), instance)


CUSTOM = DatasetFormat("custom", "panoptic", _open, ("{}/images",), predictions=STEP_PREDICTIONS)
