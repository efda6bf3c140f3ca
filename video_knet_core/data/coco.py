"""COCO 2017 (Lin et al., "Microsoft COCO", 2014; Kirillov et al., "Panoptic Segmentation", 2019),
and custom data in the form of its instances, as annotation programs export them.

    annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/*.png     coco_panoptic
    annotations/instances_SPLIT.json                                      coco_instances
    SPLIT/*.jpg                                                           (train2017, val2017)

    annotations/instances_SPLIT.json, images/[SPLIT/]*                    custom_coco, as of CVAT
    result.json, images/*                                                 ... Label Studio
    SPLIT/_annotations.coco.json, SPLIT/*                                 ... Roboflow
    or the index itself in place of the folder

Images, not videos: each is a video of one frame, for image networks, and for pseudo-video pairs to
start a video network from. Class ids are the data set's categories by ascending id, without gaps:
of COCO 2017 80 things, then in `coco_panoptic` 53 kinds of stuff. Their names are those of the
index.

`custom_coco` has any categories. One with `isthing: 0` is stuff; then pixels of no annotation are
the stuff class "background", which is added if it is none of the categories. Without stuff they
have no class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator
from pydantic.dataclasses import dataclass

from ..natural_order import is_hidden
from ..types import NO_CLASS
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
from .video import DatasetError, FrameFiles, Labels, Video, VideoDataset

THING_COUNT, STUFF_COUNT = 80, 53
BACKGROUND = "background"
"""Class of pixels without an annotation in custom data with stuff."""


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


@dataclass(frozen=True, slots=True, config=ROW)
class _CustomObject:
    """A row of `annotations` as programs write it: ids may be missing, or the same twice."""

    image_id: Integer
    category_id: Integer
    segmentation: Annotated[
        Any, BeforeValidator(lambda value: value or []), AfterValidator(_segmentation)
    ] = field(default_factory=list)
    """Empty if there is a box alone."""
    iscrowd: Flag = False
    attributes: Any = None

    @property
    def is_crowd(self) -> bool:
        """CVAT (datumaro) marks everything drawn with a brush as a crowd, and writes `attributes`;
        there `is_crowd` among those is meant by a person."""
        if isinstance(self.attributes, dict):
            return bool(self.attributes.get("is_crowd", False))
        return self.iscrowd


@dataclass(frozen=True, slots=True, config=ROW)
class _CustomIndex:
    images: list[_Image]
    categories: list[Category]
    annotations: list[_CustomObject]


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
    rows = [(item, item.id, item.iscrowd) for item in content.annotations]
    objects = _objects_by_image(content.images, categories, rows, index)
    videos = []
    for image in {image.id: image for image in content.images}.values():
        name = Path(image.file_name).stem
        frame = FrameFiles(name, f"{folder}/{image.file_name}", str(index))
        read = partial(read_objects, objects[image.id], image.size)
        videos.append(Video(name, (frame,), read))
    kinds = tuple((category.name, True) for category in categories.values())
    return VideoDataset("coco_instances", kinds, videos)


def _objects_by_image(
    images: Sequence[_Image],
    categories: Mapping[int, Category],
    rows: Sequence[tuple[_Object | _CustomObject, int, bool]],
    index: Path,
) -> dict[int, list[ObjectTrack]]:
    """The objects of each image by its id; `rows` are annotations with instance id and crowd flag.

    DatasetError names the place in `index` of an unknown image or category.
    """
    classes = {category: number for number, category in enumerate(categories)}
    objects: dict[int, list[ObjectTrack]] = {image.id: [] for image in images}
    for number, (item, instance, crowd) in enumerate(rows):
        where = f"{index}: annotations.{number}"
        class_id = class_of(item.category_id, classes, where)
        if item.image_id not in objects:
            raise DatasetError(f"{where}.image_id: expected one of `images`, got {item.image_id}")
        masks, place = [item.segmentation], f"{where}.segmentation"
        objects[item.image_id].append(ObjectTrack(instance, class_id, crowd, 1.0, masks, place))
    return objects


# --- custom data ---------------------------------------------------------------------------------


def _custom_indices(root: Path) -> dict[str, Path]:
    """Split -> its index. The only one there is, if it is not called otherwise, is "train"."""
    if root.is_file():
        return {"train": root}
    indices = sorted(root.glob("annotations/*.json"))
    if instances := [path for path in indices if path.stem.startswith("instances_")]:
        indices = instances
    named = [(path.stem.removeprefix("instances_"), path) for path in indices]
    named += [(path.parent.name, path) for path in sorted(root.glob(f"*/{_ROBOFLOW}"))]
    named += [(path.stem, path) for path in sorted(root.glob("*.json"))]
    found: dict[str, Path] = {}
    for name, path in named:
        if not is_hidden(path.name):
            found.setdefault(_SPLIT_NAMES.get(name.lower(), name.lower()), path)
    if len(found) == 1 and not found.keys() & {"val", "test"}:
        return {"train": next(iter(found.values()))}
    return found


_ROBOFLOW = "_annotations.coco.json"
_SPLIT_NAMES = {"valid": "val", "validation": "val", "training": "train"}


def _open_custom(root: Path, split: str) -> VideoDataset:
    """Instance ids are the places of the annotations, from 1; those in the index may be 0."""
    index = _custom_indices(root)[split]
    content: _CustomIndex = load_index(index, _CustomIndex, keep_masks)
    categories = categories_by_id(content.categories, index)
    kinds = tuple(
        (category.name, category.isthing is not False) for category in categories.values()
    )
    if not kinds:
        raise DatasetError(f"{index}: categories: expected at least one, got none")
    stuff = {category for category, row in categories.items() if row.isthing is False}
    rows = [
        (item, number, item.is_crowd or item.category_id in stuff)  # neither is an instance
        for number, item in enumerate(content.annotations, start=1)
    ]
    objects = _objects_by_image(content.images, categories, rows, index)
    background = NO_CLASS
    if stuff:
        kinds = kinds if (BACKGROUND, False) in kinds else (*kinds, (BACKGROUND, False))
        background = kinds.index((BACKGROUND, False))
    base = index.parent.parent if index.parent.name == "annotations" else index.parent
    subset = index.stem.removeprefix("instances_")
    folders = (base / "images" / subset, base / "images", base / subset, base)
    videos = []
    for image in {image.id: image for image in content.images}.values():
        image_name = PurePath(image.file_name.replace("\\", "/"))
        if not image_name.name:
            raise DatasetError(
                f"{index}: images: file_name: expected a name, got {str(image_name)!r}"
            )
        path = _image_path(image_name, folders)
        name = str(image_name.with_suffix(""))
        frame = FrameFiles(Path(path).stem, path, str(index))
        read = partial(_read_custom, objects[image.id], image.size, background)
        videos.append(Video(name, (frame,), read))
    return VideoDataset("custom_coco", kinds, videos)


def _image_path(path: PurePath, folders: Sequence[Path]) -> str:
    """Where the image `path` of an index is, also if it has moved: in one of `folders`, with the
    folders in its name or without; the first possible place if it is in none."""
    places = [folder / part for part in (path, path.name) for folder in folders]
    return str(next((place for place in places if place.is_file()), places[0]))


def _read_custom(
    objects: Sequence[ObjectTrack],
    size: tuple[int, int],
    background: int,
    path: str,
    position: int,
) -> Labels:
    """With a `background` other than `NO_CLASS`, labels of things and stuff, of what is seen."""
    labels = read_objects(objects, size, path, position)
    if background == NO_CLASS:
        return labels
    semantic = np.where(labels.semantic == NO_CLASS, background, labels.semantic)
    return Labels(semantic.astype(np.uint8), labels.instance, None, labels.empty)


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
CUSTOM_COCO = DatasetFormat(
    *("custom_coco", "instance", _open_custom),
    (
        *("annotations/instances_{}.json", "annotations/{}.json", "{}.json"),
        *("result.json", "{}/_annotations.coco.json"),
    ),
    find_splits=_custom_indices,
)
