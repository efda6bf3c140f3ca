"""Cityscapes-VPS (Kim et al., "Video Panoptic Segmentation", 2020): six labelled frames a video.

    panoptic_gt_SPLIT_city_vps.json, SPLIT/img/*.png, SPLIT/panoptic_video/*.png

The index and `panoptic_video` are made by the authors' prepare_data/create_panoptic_video_labels.py
(`--mode val`, or train). The order of the annotations in the index is the order of the frames; the
first four characters of an image id name the video.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from ..types import first_difference
from .dataset_format import DatasetFormat, PanopticRules
from .folders import first_folder, list_images, match_frames
from .json_index import load_index, need, read_categories
from .label_png import label_file
from .panoptic_json import (
    PanopticPredictions,
    Segments,
    keep_segment,
    parse_segments,
    read_segments,
)
from .video import DatasetError, FrameFiles, Labels, Video, VideoDataset, class_kinds

# fmt: off
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)
# fmt: on
"""Of the 19 classes of Cityscapes by train id."""
KINDS = class_kinds(NAMES, range(11, 19))
THINGS = frozenset(range(11, 19))
AUTHORS_THINGS = tuple(range(11, 19))
"""The authors of Video K-Net track all things of Cityscapes in STQ, on KITTI-STEP too."""
LABELLED_EVERY = 5
"""Frames; of 30 in a video, the 5th, 10th .. 30th are labelled, and only those are submitted."""


def open_cityscapes_vps(root: Path, split: str) -> VideoDataset:
    """Open the labelled frames of a split, or all images of `test`, whose labels are not published.

    Raises:
        DatasetError: a folder, the index or a key in it is missing, or the split is empty.
    """
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
    content, classes = load_index(index, keep_segment), {i: i for i in range(len(NAMES))}
    _check_categories(content, index)
    names = _image_names(need(content, "images", list, str(index)), index)
    videos: dict[str, list[FrameFiles]] = {}
    segments: list[Segments] = []
    for number, annotation in enumerate(need(content, "annotations", list, str(index))):
        where = f"{index}: annotation {number}"
        image_id = need(annotation, "image_id", str, where)
        if image_id not in names:
            raise DatasetError(f"{where}: image_id must be one of `images`, found {image_id!r}")
        png = f"{labels}/{need(annotation, 'file_name', str, where)}"
        frame = FrameFiles(image_id, f"{images}/{names[image_id]}", png, number)
        videos.setdefault(image_id[:4], []).append(frame)
        segments.append(parse_segments(annotation, classes, where))
    read = partial(_read, segments)
    return [Video(name, tuple(frames), read) for name, frames in videos.items()]


def _check_categories(content: dict, index: Path) -> None:
    """DatasetError if the index has a list of categories and it is another than that of `NAMES`."""
    if not content.get("categories"):
        return
    found = read_categories(content, str(index))
    kinds = [(entry["name"], bool(entry.get("isthing", i in THINGS))) for i, entry in found.items()]
    difference = first_difference(KINDS, kinds)
    if difference or list(found) != list(range(len(NAMES))):
        raise DatasetError(
            f"{index}: expected the categories 0..{len(NAMES) - 1} of Cityscapes, "
            f"got {difference or list(found)}"
        )


def _image_names(entries: list, index: Path) -> dict[str, str]:
    """Image id -> file name."""
    where = [f"{index}: image {number}" for number in range(len(entries))]
    return {
        need(entry, "id", str, here): need(entry, "file_name", str, here)
        for entry, here in zip(entries, where, strict=True)
    }


def _read(segments: list[Segments], frame: FrameFiles) -> Labels:
    return read_segments(label_file(frame), segments[frame.index], THINGS)


def _image_id(frame: str) -> str:
    return frame.removesuffix("_newImg8bit").removesuffix("_leftImg8bit")


CITYSCAPES_VPS = DatasetFormat(
    "cityscapes_vps",
    "panoptic",
    open_cityscapes_vps,
    ("{}/img", "{}/img_all"),
    predictions=PanopticPredictions(
        np.arange(len(NAMES)), image_id=_image_id, every=LABELLED_EVERY
    ),
    rules=PanopticRules(authors_things=AUTHORS_THINGS),
)
