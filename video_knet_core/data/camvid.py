"""CamVid with its 11 usual classes: `images/NAME.jpg|png` and `labels/NAME.png` side by side.

`CamVid` is one folder of them; `open_camvid` is the data set, a folder for each split.

Brostow et al., "Semantic object classes in video: A high-definition ground truth database", 2009.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image_files import read_pixels
from ..natural_order import natural_order
from ..types import NO_CLASS
from .dataset_format import DatasetFormat
from .folders import list_images, match_frames
from .frames import FrameError, is_image, read_image
from .label_png import label_file
from .street_frame import STREET_CLASSES
from .video import DatasetError, FrameFiles, Labels, Video, VideoDataset, class_kinds

UNLABELLED = 11
"""Label value of pixels without a class."""
STREET_IDS = np.array([7, 2, 4, 0, 1, 6, 5, 3, 10, 8, 9, NO_CLASS], np.uint8)
"""Class id of the street model for each label value: sky, building, pole, road, sidewalk,
vegetation, sign, fence, car, pedestrian, cyclist, unlabelled."""


class CamVid:
    """Pairs of image (RGB uint8 [H, W, 3]) and labels (street class ids uint8 [H, W], 255 = none).

    Args:
        root: the folder that holds `images` and `labels`.
        ids: other class ids to use instead of the street's, see `street_ids`.

    Raises:
        FrameError: a folder or a label image is missing; also on iteration, for unreadable files.
    """

    def __init__(self, root: str | Path, ids: NDArray[np.uint8] | None = None) -> None:
        root, self.ids = Path(root), ids
        for folder in (root / "images", root / "labels"):
            if not folder.is_dir():
                raise FrameError(f"CamVid needs the folder {folder}")
        self.images = natural_order(p for p in (root / "images").iterdir() if is_image(p.name))
        if not self.images:
            raise FrameError(f"{root / 'images'} holds no images")
        self.labels = [root / "labels" / f"{image.stem}.png" for image in self.images]
        for label in self.labels:
            if not label.is_file():
                raise FrameError(f"CamVid has no label image {label}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image, labels = read_image(self.images[index]), _read_labels(self.labels[index])
        if image.shape[:2] != labels.shape:
            raise FrameError(
                f"{self.labels[index]} is {labels.shape}, its image is {image.shape[:2]}"
            )
        return image, labels if self.ids is None else self.ids[labels]

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        return (self[index] for index in range(len(self)))


def open_camvid(root: Path, split: str) -> VideoDataset:
    """The frames of SPLIT/images and SPLIT/labels as one video; there are no instances.

    Raises:
        DatasetError: the split has no images.
    """
    images = list_images(root / split / "images")
    if not images:
        raise DatasetError(f"{root / split / 'images'} holds no images")
    frames = match_frames(images, list_images(root / split / "labels"))
    return VideoDataset(
        "camvid", class_kinds(STREET_CLASSES, ()), [Video(split, frames, _read_frame)]
    )


def _read_frame(frame: FrameFiles) -> Labels:
    try:
        semantic = _read_labels(Path(label_file(frame)))
    except FrameError as error:
        raise DatasetError(str(error)) from None
    return Labels(semantic, np.zeros(semantic.shape, np.int64))


def _read_labels(path: Path) -> NDArray[np.uint8]:
    values = read_pixels(path, cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype != np.uint8:
        raise FrameError(f"{path} is not an 8-bit label image")
    if values.max() > UNLABELLED:
        raise FrameError(f"{path}: labels must be 0..{UNLABELLED}, found {values.max()}")
    return STREET_IDS[values]


CAMVID = DatasetFormat(
    "camvid", "semantic", open_camvid, ("{}/labels",), splits=("train", "val_clip")
)
