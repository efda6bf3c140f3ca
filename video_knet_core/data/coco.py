"""COCO 2017 (Lin et al., "Microsoft COCO", 2014; Kirillov et al., "Panoptic Segmentation", 2019).

    annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/*.png     coco_panoptic
    annotations/instances_SPLIT.json                                      coco_instances
    SPLIT/*.jpg                                                           (train2017, val2017)

Pictures, not videos: each is a video of one frame, for image networks, and for pretended clips to
start a video network from. Class ids are the data set's categories by ascending id, without gaps:
80 things, then in `coco_panoptic` 53 kinds of stuff. Their names are those of the index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run_lengths import RunLengths
from .dataset_format import DatasetFormat
from .folders import first_folder
from .instance_labels import ObjectMask, compact, labels_of, run_lengths
from .json_index import load_index, need, need_id, need_size, read_categories
from .label_png import label_file
from .panoptic_json import Segments, keep_segment, parse_segments, read_segments
from .video import DatasetError, FrameFiles, Labels, Video, VideoDataset

THING_COUNT, STUFF_COUNT = 80, 53


def open_coco_panoptic(root: Path, split: str) -> VideoDataset:
    """Open a split; its PNGs may also lie in ROOT/panoptic_SPLIT.

    Raises:
        DatasetError: a folder, the index or a key in it is missing, or there is no picture.
    """
    index = root / "annotations" / f"panoptic_{split}.json"
    images = first_folder(root / split)
    masks = first_folder(index.with_suffix(""), root / f"panoptic_{split}")
    content = load_index(index, keep_segment)
    categories = _categories(content, THING_COUNT + STUFF_COUNT, index)
    kinds = tuple(
        (entry["name"], _is_thing(entry, i)) for i, entry in enumerate(categories.values())
    )
    classes = {category: number for number, category in enumerate(categories)}
    pictures = _pictures(content, index)
    videos: list[Video] = []
    segments: list[Segments] = []
    things = frozenset(i for i, (_, is_thing) in enumerate(kinds) if is_thing)
    read = partial(_read_panoptic, segments, things)
    for number, annotation in enumerate(need(content, "annotations", list, str(index))):
        where = f"{index}: annotation {number}"
        picture = _picture_of(annotation, pictures, where)
        png = f"{masks}/{need(annotation, 'file_name', str, where)}"
        segments.append(parse_segments(annotation, classes, where))
        videos.append(_video(picture, images, read, png, number))
    return VideoDataset("coco_panoptic", kinds, videos)


def open_coco_instances(root: Path, split: str) -> VideoDataset:
    """Open a split. Pictures without objects are kept: all of them is background.

    Raises:
        DatasetError: a folder, the index or a key in it is missing, or there is no picture.
    """
    index = root / "annotations" / f"instances_{split}.json"
    images = first_folder(root / split)
    content = load_index(index, _keep)
    categories = _categories(content, THING_COUNT, index)
    kinds = tuple((entry["name"], True) for entry in categories.values())
    classes = {category: number for number, category in enumerate(categories)}
    pictures = _pictures(content, index)
    objects: dict[int, list[_Object]] = {image_id: [] for image_id in pictures}
    for number, annotation in enumerate(need(content, "annotations", list, str(index))):
        where = f"{index}: annotation {number}"
        picture = _picture_of(annotation, pictures, where)
        objects[picture.id].append(_parse_object(annotation, classes, where))
    videos = [
        _video(picture, images, partial(_read_objects, objects[picture.id], picture.size))
        for picture in pictures.values()
    ]
    return VideoDataset("coco_instances", kinds, videos)


@dataclass(frozen=True)
class _Picture:
    id: int
    file_name: str
    size: tuple[int, int]
    """Height and width in pixels."""


@dataclass(frozen=True)
class _Object:
    id: int
    class_id: int
    crowd: bool
    segmentation: Sequence[NDArray] | dict
    """Polygons [V, 2], or run lengths."""
    where: str

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        if isinstance(self.segmentation, dict):
            runs = run_lengths(self.segmentation, size, self.where)
            assert runs is not None
            return runs.mask()
        try:
            return RunLengths.from_polygons(self.segmentation, size).mask()
        except ValueError as error:
            raise DatasetError(f"{self.where}: {error}") from None


def _pictures(content: Any, index: Path) -> dict[int, _Picture]:
    """By id, in the order of the index."""
    found = {}
    for number, entry in enumerate(need(content, "images", list, str(index))):
        where = f"{index}: image {number}"
        size = need_size(entry, where)
        picture = _Picture(need_id(entry, where), need(entry, "file_name", str, where), size)
        found[picture.id] = picture
    return found


def _picture_of(annotation: Any, pictures: Mapping[int, _Picture], where: str) -> _Picture:
    image_id = need(annotation, "image_id", int, where)
    if image_id not in pictures:
        raise DatasetError(f"{where}: image_id must be one of `images`, found {image_id}")
    return pictures[image_id]


def _video(
    picture: _Picture, images: Path, read: Any, labels: str | None = None, number: int = 0
) -> Video:
    stem = Path(picture.file_name).stem
    frame = FrameFiles(stem, f"{images}/{picture.file_name}", labels, number)
    return Video(stem, (frame,), read)


def _categories(content: Any, count: int, index: Path) -> dict[int, dict]:
    """The categories by ascending id; DatasetError if there are not `count`."""
    found = read_categories(content, str(index))
    if len(found) != count:
        raise DatasetError(f"{index}: expected {count} categories, got {len(found)}")
    return found


def _is_thing(category: dict, class_id: int) -> bool:
    """Whether a category has instances: the first 80, if the index does not state it."""
    return bool(category.get("isthing", class_id < THING_COUNT))


def _keep(entry: dict) -> dict:
    """Without what is not needed, and numbers as arrays: a tenth of the memory of lists."""
    for key in ("bbox", "area", "license", "flickr_url", "coco_url", "date_captured"):
        entry.pop(key, None)
    if isinstance(entry.get("counts"), list):
        entry["counts"] = compact(entry["counts"])
    if isinstance(entry.get("segmentation"), list):
        entry["segmentation"] = [_compact_polygon(part) for part in entry["segmentation"]]
    return entry


def _compact_polygon(part: Any) -> Any:
    """[V, 2] float32, or as it was if it is no polygon."""
    try:
        return np.array(part, np.float32).reshape(-1, 2)
    except (ValueError, TypeError):
        return part


def _parse_object(annotation: dict, classes: Mapping[int, int], where: str) -> _Object:
    category = need(annotation, "category_id", int, where)
    if category not in classes:
        raise DatasetError(f"{where}: category_id must be one of `categories`, found {category}")
    segmentation = need(annotation, "segmentation", (list, dict), where)
    for part in segmentation if isinstance(segmentation, list) else ():
        if not isinstance(part, np.ndarray) or not np.isfinite(part).all():
            raise DatasetError(f"{where}: a polygon must be x, y, x, y, ..., found {part!r:.80}")
    return _Object(
        need_id(annotation, where),
        classes[category],
        bool(annotation.get("iscrowd", 0)),
        segmentation,
        where,
    )


def _read_panoptic(
    segments: Sequence[Segments], things: frozenset[int], frame: FrameFiles
) -> Labels:
    return read_segments(label_file(frame), segments[frame.index], things)


def _read_objects(objects: Sequence[_Object], size: tuple[int, int], frame: FrameFiles) -> Labels:
    found = [ObjectMask(item.id, item.class_id, item.crowd, item.mask(size)) for item in objects]
    return labels_of(found, size)


_SPLITS = ("train2017", "val2017")
COCO_PANOPTIC = DatasetFormat(
    "coco_panoptic", "panoptic", open_coco_panoptic, ("annotations/panoptic_{}.json",), _SPLITS
)
COCO_INSTANCES = DatasetFormat(
    "coco_instances", "instance", open_coco_instances, ("annotations/instances_{}.json",), _SPLITS
)
