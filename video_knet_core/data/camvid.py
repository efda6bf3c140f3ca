"""CamVid with its 11 usual classes: `images/NAME.jpg|png` and `labels/NAME.png` side by side.

The data set has a folder for each split; `camvid_clip` reads one such folder.

Brostow et al., "Semantic object classes in video: A high-definition ground truth database", 2009.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError
from ..types import NO_CLASS, ClassTable, plain_name
from .dataset_format import DatasetFormat
from .folders import first_folder, folder_video
from .label_png import look_up, read_values
from .street_frame import STREET_CLASSES, STREET_THINGS
from .video import DatasetError, Labels, Video, VideoDataset, class_kinds

_STREET_IDS = np.array([7, 2, 4, 0, 1, 6, 5, 3, 10, 8, 9, NO_CLASS])
"""Class id of the street model for each label value: sky, building, pole, road, sidewalk,
vegetation, sign, fence, car, pedestrian, cyclist, unlabelled."""


def _open(root: Path, split: str) -> VideoDataset:
    """The frames of SPLIT/images and SPLIT/labels as one video; there are no instances."""
    kinds = class_kinds(STREET_CLASSES, ())
    return VideoDataset("camvid", kinds, [_clip(root / split, _STREET_IDS)])


def camvid_clip(folder: Path, ids: NDArray[np.uint8] | None = None) -> Video:
    """The frames of FOLDER/images and FOLDER/labels; `ids` replace the street's, see `street_ids`.

    DatasetError if a folder, an image or a label image is missing.
    """
    clip = _clip(folder, _STREET_IDS if ids is None else ids[_STREET_IDS])
    for frame in clip.frames:
        if frame.image is None or frame.labels is None:
            kind = "image" if frame.image is None else "label image"
            raise DatasetError(f"{folder}: the frame {frame.name} has no {kind}")
    return clip


def _clip(folder: Path, class_of_value: NDArray) -> Video:
    images, labels = (first_folder(folder / name) for name in ("images", "labels"))
    clip = folder_video(folder.name, images, labels, partial(_read_frame, class_of_value))
    if not any(frame.image for frame in clip.frames):
        raise DatasetError(f"{images} holds no images")
    return clip


def _read_frame(class_of_value: NDArray, path: str, _: int) -> Labels:
    semantic = look_up(read_values(path), class_of_value, path).astype(np.uint8)
    return Labels(semantic, np.zeros(semantic.shape, np.int64))


def street_ids(classes: ClassTable, asked_by: str) -> NDArray[np.uint8]:
    """[256] class id in `classes` of each street class of the same name, `NO_CLASS` of others.

    ConfigError names `asked_by` if the street has not all of `classes`, or one is a thing here and
    stuff there (where all are stuff, as in task semantic, kinds do not count).
    """
    unknown = [info.name for info in classes if plain_name(info.name) not in STREET_CLASSES]
    if unknown:
        raise ConfigError(f"{asked_by}: expected classes of {STREET_CLASSES}, got {unknown}")
    ids = np.full(NO_CLASS + 1, NO_CLASS, np.uint8)
    for info in classes:
        name = plain_name(info.name)
        if classes.things and info.is_thing != (name in STREET_THINGS):
            expected = "stuff" if info.is_thing else "a thing"
            raise ConfigError(f"{asked_by}: {info.name!r}: expected {expected}, as in the street")
        ids[STREET_CLASSES.index(name)] = info.id
    return ids


CAMVID = DatasetFormat("camvid", "semantic", _open, ("{}/labels",), splits=("train", "val_clip"))
