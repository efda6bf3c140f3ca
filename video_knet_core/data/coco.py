"""COCO 2017 (Lin et al., "Microsoft COCO", 2014; Kirillov et al., "Panoptic Segmentation", 2019).

    annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/*.png     coco_panoptic
    annotations/instances_SPLIT.json                                      coco_instances
    SPLIT/*.jpg                                                           (train2017, val2017)

Images, not videos: each is a video of one frame, for image networks, and for pseudo-video pairs to
start a video network from. Class ids are the data set's categories by ascending id, without gaps:
80 things, then in `coco_panoptic` 53 kinds of stuff. Their names are those of the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from .dataset_format import DatasetFormat
from .folders import first_folder
from .instance_labels import ObjectTrack, keep_masks, read_objects
from .json_index import (
    ROW,
    Category,
    Flag,
    ImageSize,
    Integer,
    Text,
    categories_by_id,
    class_of,
    load_index,
)
from .panoptic_json import annotated_frames, load_panoptic_index
from .video import DatasetError, FrameFiles, Video, VideoDataset

THING_COUNT, STUFF_COUNT = 80, 53


def _segmentation(value: Any) -> Any:
    """Polygons [V, 2], or run lengths."""
    if not isinstance(value, list | dict):
        raise ValueError(f"expected polygons or run lengths, got {value!r:.80}")
    for part in value if isinstance(value, list) else ():
        if not isinstance(part, np.ndarray) or not np.isfinite(part).all():
            raise ValueError(f"expected a polygon x, y, x, y, ..., got {part!r:.80}")
    return value


@dataclass(frozen=True, slots=True, config=ROW)
class _Image(ImageSize):
    id: Integer
    file_name: Text


@dataclass(frozen=True, slots=True, config=ROW)
class _Object:
    id: Integer
    image_id: Integer
    category_id: Integer
    segmentation: Annotated[Any, AfterValidator(_segmentation)]
    iscrowd: Flag = False


@dataclass(frozen=True, slots=True, config=ROW)
class _InstancesIndex:
    images: list[_Image]
    categories: list[Category]
    annotations: list[_Object]


def _open_panoptic(root: Path, split: str) -> VideoDataset:
    """The PNGs may also lie in ROOT/panoptic_SPLIT."""
    index = root / "annotations" / f"panoptic_{split}.json"
    folder = first_folder(root / split)
    masks = first_folder(index.with_suffix(""), root / f"panoptic_{split}")
    content = load_panoptic_index(index)
    categories = _categories(content.categories or (), THING_COUNT + STUFF_COUNT, index)
    kinds = tuple(
        (category.name, i < THING_COUNT if category.isthing is None else category.isthing)
        for i, category in enumerate(categories.values())
    )
    classes = {category: number for number, category in enumerate(categories)}
    files = {
        image.id: (Path(image.file_name).stem, f"{folder}/{image.file_name}")
        for image in content.images
    }
    frames, read = annotated_frames(content, files, masks, classes, kinds, index)
    videos = [Video(frame.name, (frame,), read) for frame in frames]
    return VideoDataset("coco_panoptic", kinds, videos)


def _open_instances(root: Path, split: str) -> VideoDataset:
    """Images without objects are kept: all of them is background."""
    index = root / "annotations" / f"instances_{split}.json"
    folder = first_folder(root / split)
    content: _InstancesIndex = load_index(index, _InstancesIndex, keep_masks)
    categories = _categories(content.categories, THING_COUNT, index)
    classes = {category: number for number, category in enumerate(categories)}
    objects: dict[int, list[ObjectTrack]] = {image.id: [] for image in content.images}
    for number, item in enumerate(content.annotations):
        where = f"{index}: annotations.{number}"
        class_id = class_of(item.category_id, classes, where)
        if item.image_id not in objects:
            raise DatasetError(f"{where}.image_id: expected one of `images`, got {item.image_id}")
        masks, place = [item.segmentation], f"{where}.segmentation"
        objects[item.image_id].append(
            ObjectTrack(item.id, class_id, item.iscrowd, 1.0, masks, place)
        )
    videos = []
    for image in {image.id: image for image in content.images}.values():
        name = Path(image.file_name).stem
        frame = FrameFiles(name, f"{folder}/{image.file_name}", str(index))
        read = partial(read_objects, objects[image.id], image.size)
        videos.append(Video(name, (frame,), read))
    kinds = tuple((category.name, True) for category in categories.values())
    return VideoDataset("coco_instances", kinds, videos)


def _categories(categories: Sequence[Category], count: int, index: Path) -> dict[int, Category]:
    """The categories by ascending id; DatasetError if there are not `count`."""
    if len(categories) != count:
        raise DatasetError(f"{index}: expected {count} categories, got {len(categories)}")
    return categories_by_id(categories, index)


_SPLITS = ("train2017", "val2017")
COCO_PANOPTIC = DatasetFormat(
    "coco_panoptic", "panoptic", _open_panoptic, ("annotations/panoptic_{}.json",), _SPLITS
)
COCO_INSTANCES = DatasetFormat(
    "coco_instances", "instance", _open_instances, ("annotations/instances_{}.json",), _SPLITS
)
