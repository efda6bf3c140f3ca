"""Indices of data sets with any value in any place: a fault that is named, never a traceback."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_fixtures import change, opened, write_cityscapes_vps, write_youtube_vis

from video_knet_core.data.cityscapes_vps import KINDS as CITYSCAPES_KINDS
from video_knet_core.data.dataset_validation import validate
from video_knet_core.data.video import DatasetError

VALUES = (None, True, -1, 1.5, 1 << 40, 1 << 70, math.nan, math.inf, "", "x", "\0", [], {}, [[]])


def write_coco(root: Path, kind: str, count: int, annotation: dict) -> None:
    categories = [{"id": i + 1, "name": f"kind {i}", "isthing": 1} for i in range(count)]
    images = [{"id": 1, "file_name": "a.png", "height": 8, "width": 10}]
    content = {"images": images, "categories": categories, "annotations": [annotation]}
    for folder in ("annotations/panoptic_val2017", "val2017"):
        (root / folder).mkdir(parents=True)
        cv2.imwrite(str(root / folder / "a.png"), np.full((8, 10, 3), (0, 0, 5), np.uint8))
    (root / f"annotations/{kind}_val2017.json").write_text(json.dumps(content))


def write_polygon(root: Path) -> None:
    polygon = [1, 1, 5, 1, 5, 5]
    row = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": [polygon]}
    write_coco(root, "instances", 80, row)


def write_segments(root: Path) -> None:
    segment = {"id": 5, "category_id": 1, "iscrowd": 0}
    write_coco(
        root, "panoptic", 133, {"image_id": 1, "file_name": "a.png", "segments_info": [segment]}
    )


INDICES = {
    "cityscapes_vps": (write_cityscapes_vps, "panoptic_gt_val_city_vps.json", "val"),
    "youtube_vis_2019": (write_youtube_vis, "annotations/valid.json", "valid"),
    "coco_instances": (write_polygon, "annotations/instances_val2017.json", "val2017"),
    "coco_panoptic": (write_segments, "annotations/panoptic_val2017.json", "val2017"),
}


def places(node, path=()):
    """Paths to every key and to the first entry of every list."""
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list) and node:
        yield from places(node[0], (*path, 0))


def with_value(text: str, path: tuple, value):
    if not path:
        return value
    content = node = json.loads(text)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return content


@pytest.mark.parametrize("name", INDICES)
def test_no_value_of_an_index_ends_in_a_traceback(name, tmp_path):
    write, file, split = INDICES[name]
    write(tmp_path)
    index = tmp_path / file
    text = index.read_text()
    assert not list(validate(name, tmp_path, split))
    for path in places(json.loads(text)):
        for value in VALUES:
            index.write_text(json.dumps(with_value(text, path, value)))
            assert all(map(all, validate(name, tmp_path, split)))


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("text", ["null", '"x"', "[]", "[" * 100_000, "\ufeff{", "{"])
def test_an_index_that_is_no_object_is_named(name, text, tmp_path):
    write, file, split = INDICES[name]
    write(tmp_path)
    (tmp_path / file).write_text(text)
    ((_, fault),) = validate(name, tmp_path, split)
    assert file in fault
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    ((_, fault),) = validate(name, tmp_path, split)
    assert file in fault


def test_run_lengths_beyond_32_bits_are_not_taken_modulo(tmp_path):
    write_polygon(tmp_path)
    index = tmp_path / "annotations/instances_val2017.json"
    runs = {"size": [8, 10], "counts": [10, (1 << 32) + 20, 50]}
    path = ("annotations", 0, "segmentation")
    index.write_text(json.dumps(with_value(index.read_text(), path, runs)))
    ((_, fault),) = validate("coco_instances", tmp_path, "val2017")
    assert "add up to 80" in fault


@pytest.mark.parametrize(
    ("name", "entry", "key", "where"),
    [
        ("cityscapes_vps", lambda i: i, "annotations", "json"),
        ("cityscapes_vps", lambda i: i["annotations"][4]["segments_info"][1], "id", "info.1"),
        ("youtube_vis_2019", lambda i: i["annotations"][0], "segmentations", "annotations.0"),
    ],
)
def test_a_json_with_a_missing_key(name, entry, key, where, copy):
    root = copy(name)
    change(root / INDICES[name][1], lambda index: entry(index).pop(key))
    with pytest.raises(DatasetError, match=rf"{where}: expected the key '{key}', got \["):
        opened(name, root)


def test_a_segment_id_that_no_png_can_hold(copy):
    root = copy("cityscapes_vps")
    path = root / "panoptic_gt_val_city_vps.json"
    change(path, lambda i: i["annotations"][0]["segments_info"][0].update(id=1 << 70))
    with pytest.raises(DatasetError, match="annotations\\.0\\.segments_info\\.0\\.id: .*16777216"):
        opened("cityscapes_vps", root)


def test_the_categories_of_cityscapes_are_checked_where_the_index_lists_them(copy):
    root = copy("cityscapes_vps")
    path = root / "panoptic_gt_val_city_vps.json"
    index = json.loads(path.read_text())
    index["categories"] = [{"id": i, "name": n} for i, (n, _) in enumerate(CITYSCAPES_KINDS)]
    path.write_text(json.dumps(index))
    assert opened("cityscapes_vps", root).kinds == CITYSCAPES_KINDS
    index["categories"][3]["name"] = "guard rail"
    path.write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="class 3: expected 'wall' .*, got 'guard rail'"):
        opened("cityscapes_vps", root)
