"""Cityscapes-VPS (Kim et al., "Video Panoptic Segmentation", 2020): six labelled frames a video.

    panoptic_gt_SPLIT_city_vps.json, SPLIT/img/*.png, SPLIT/panoptic_video/*.png

The index and `panoptic_video` are made by the authors' prepare_data/create_panoptic_video_labels.py
(`--mode val`, or train). The order of the annotations in the index is the order of the frames; the
first four characters of an image id name the video.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np

from ..types import first_difference
from .dataset_format import DatasetFormat, PanopticRules
from .folders import first_folder, list_images, match_frames
from .json_index import Category, categories_by_id
from .panoptic_json import PanopticFiles, annotated_frames, load_panoptic_index
from .video import DatasetError, FrameFiles, Video, VideoDataset, class_kinds

# fmt: off
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)
# fmt: on
"""Of the 19 classes of Cityscapes by train id."""
KINDS = class_kinds(NAMES, range(11, 19))
CITYSCAPES_RULES = PanopticRules(authors_things=tuple(range(11, 19)))
"""The authors of Video K-Net track all things of Cityscapes in STQ, on KITTI-STEP too."""
_LABELLED_EVERY = 5
"""Frames; of 30 in a video, the 5th, 10th .. 30th are labelled, and only those are submitted."""


def _open(root: Path, split: str) -> VideoDataset:
    """The labelled frames of a split, or all images of `test`, whose labels are not published."""
    images = first_folder(root / split / "img", root / split / "img_all")
    index = root / f"panoptic_gt_{split}_city_vps.json"
    if split == "test" and not index.is_file():
        videos = _unlabelled(images)
    else:
        videos = _labelled(images, root / split / "panoptic_video", index)
    return VideoDataset("cityscapes_vps", KINDS, videos)


def _unlabelled(images: Path) -> list[Video]:
    groups = groupby(list_images(images).items(), key=lambda item: item[0][:4])
    return [Video(name, match_frames(dict(items), None)) for name, items in groups]


def _labelled(images: Path, labels: Path, index: Path) -> list[Video]:
    content = load_panoptic_index(index)
    if content.categories:
        _check_categories(content.categories, index)
    classes = {i: i for i in range(len(NAMES))}
    files = {image.id: (str(image.id), f"{images}/{image.file_name}") for image in content.images}
    frames, read = annotated_frames(content, files, labels, classes, KINDS, index)
    videos: dict[str, list[FrameFiles]] = {}
    for frame in frames:
        videos.setdefault(frame.name[:4], []).append(frame)
    return [Video(name, of_video, read) for name, of_video in videos.items()]


def _check_categories(categories: list[Category], index: Path) -> None:
    """DatasetError if the categories are others than those of `NAMES`."""
    found = categories_by_id(categories, index)
    if list(found) != list(range(len(NAMES))):
        raise DatasetError(
            f"{index}: expected the categories 0..{len(NAMES) - 1} of Cityscapes, got {list(found)}"
        )
    kinds = [(c.name, KINDS[i][1] if c.isthing is None else c.isthing) for i, c in found.items()]
    if difference := first_difference(KINDS, kinds):
        raise DatasetError(f"{index}: expected the categories of Cityscapes, got {difference}")


CITYSCAPES_VPS = DatasetFormat(
    "cityscapes_vps",
    "panoptic",
    _open,
    ("{}/img", "{}/img_all"),
    predictions=PanopticFiles(
        np.arange(len(NAMES)), ("_newImg8bit", "_leftImg8bit"), every=_LABELLED_EVERY
    ).form(),
    rules=CITYSCAPES_RULES,
)
