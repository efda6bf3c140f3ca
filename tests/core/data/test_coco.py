"""COCO's two kinds of labels on pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_fixtures import change, put, run_lengths, stored

from video_knet_core.cli import main
from video_knet_core.data.clip_pairs import ImagePairs
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.pairs import CropRange, KeyFrames
from video_knet_core.data.video import DatasetError
from video_knet_core.evaluate.dataset_evaluation import evaluate_predictions

SIZE = HEIGHT, WIDTH = 36, 48


def grey(level: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def entries(count: int) -> dict[str, list]:
    """`images` of the index, and categories whose ids have gaps (1..10, 21, 22, ...)."""
    ids = [number + (1 if number < 10 else 11) for number in range(count)]
    names = [{"id": 7 * n, "file_name": f"{n:012d}.png", "height": HEIGHT} for n in (3, 1)]
    return {
        "images": [{**entry, "width": WIDTH} for entry in names],
        "categories": [{"id": i, "name": f"kind {i}"} for i in ids],
    }


def write(root: Path, kind: str, index: dict) -> None:
    for n in (1, 3):
        stored(root / f"val2017/{n:012d}.png", grey(50 * n))
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/{kind}_val2017.json").write_text(json.dumps(index))


@pytest.fixture
def instances(tmp_path):
    """A polygon of two parts over another object, a crowd, and a picture without objects."""
    crowd = np.zeros(SIZE, np.uint8)
    crowd[:10, 30:] = 1
    box = [8.0, 4.0, 30.0, 4.0, 30.0, 28.0, 8.0, 28.0]
    parts = [[10.0, 10.0, 16.0, 10.0, 16.0, 16.0, 10.0, 16.0], [20.0, 10.0, 40.0, 10.0, 40.0, 14.0]]
    runs = {"size": list(SIZE), "counts": run_lengths(crowd)}
    rows = [(5, 1, 0, [box]), (900, 21, 0, parts), (6, 2, 1, runs)]
    annotations = [
        {"id": i, "image_id": 21, "category_id": c, "iscrowd": crowd, "segmentation": s, "bbox": []}
        for i, c, crowd, s in rows
    ]
    write(tmp_path, "instances", entries(80) | {"annotations": annotations})
    return tmp_path


def test_instances_are_whole_where_they_overlap(instances):
    dataset = open_dataset("coco_instances", instances, "val2017")
    assert (dataset.class_count, sorted(dataset.things)) == (80, list(range(80)))
    assert [video.name for video in dataset] == ["000000000003", "000000000001"]
    frame = dataset[0][0]
    assert frame.image[0, 0].tolist() == [150, 150, 150]
    assert frame.masks.ids.tolist() == [5, 900]
    assert frame.masks.class_ids.tolist() == [0, 10], "category 21 is the eleventh"
    assert frame.masks.masks[0].sum() == 22 * 24
    assert frame.masks.masks[1][10:16, 10:16].all()
    assert (frame.instance[12, 12], frame.instance[20, 12]) == (900, 5), "the smaller is on top"
    assert frame.masks.masks[0][12, 12], "and what is below is whole"
    assert (frame.semantic[3, 45], frame.instance[3, 45]) == (1, 0), "a crowd is no instance"
    assert frame.semantic[35, 47] == 255
    empty = dataset[1][0]
    assert not len(empty.masks.ids) and (empty.semantic == 255).all()


def test_pictures_make_pairs_whose_masks_stay_whole(instances):
    source = ImagePairs(open_dataset("coco_instances", instances, "val2017"), CropRange((1, 1)))
    pairs = [source.sample(np.random.default_rng(seed), 64, 64) for seed in range(8)]
    full = [pair for pair in pairs if all(len(masks.ids) == 2 for masks in pair.masks)]
    assert full
    for masks, instance in zip(full[0].masks, full[0].instance, strict=True):
        assert masks.ids.tolist() == [1, 2]
        below, above = masks.masks
        assert (below & above).any()
        assert (instance[below & above] == 2).all(), "map and masks have the same ids"


def test_a_picture_alone_is_a_pair_of_one(instances):
    dataset = open_dataset("coco_instances", instances, "val2017")
    pair = KeyFrames(ImagePairs(dataset)).sample(np.random.default_rng(0), 64, 64)
    assert len(pair.images) == len(pair.semantic) == len(pair.instance) == len(pair.masks) == 1


@pytest.fixture
def panoptic(tmp_path):
    ids = np.zeros(SIZE, np.int64)
    ids[:12], ids[12:24], ids[24:30] = 70_000, 8_405_000, 300
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    put(tmp_path / "annotations/panoptic_val2017/000000000003.png", rgb)
    segments = [(70_000, 21, 0), (8_405_000, 143, 0), (300, 1, 1)]
    rows = [{"id": i, "category_id": c, "iscrowd": crowd} for i, c, crowd in segments]
    annotation = {"image_id": 21, "file_name": "000000000003.png", "segments_info": rows}
    write(tmp_path, "panoptic", entries(133) | {"annotations": [annotation]})
    return tmp_path


def test_panoptic_segments(panoptic):
    dataset = open_dataset("coco_panoptic", panoptic, "val2017")
    assert (dataset.class_count, sorted(dataset.things)) == (133, list(range(80)))
    assert dataset.kinds[79:81] == (("kind 90", True), ("kind 91", False))
    frame = dataset[0][0]
    assert frame.semantic[[0, 12, 24, 30], 0].tolist() == [10, 132, 0, 255]
    assert frame.instance[[0, 12, 24, 30], 0].tolist() == [70_000, 0, 0, 0], (
        "neither stuff nor crowd"
    )


def test_a_check_finds_nothing_in_them(instances, panoptic, capsys):
    for name in ("coco_instances", "coco_panoptic"):
        assert main(["validate-data", name, str(instances)]) == 0
        assert capsys.readouterr().out == "val2017: 0 faults\n"


def test_it_is_not_scored_by_itself(instances):
    dataset = open_dataset("coco_instances", instances, "val2017")
    with pytest.raises(DatasetError, match="coco_instances is for training and its validation"):
        evaluate_predictions(dataset, instances)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"category_id": 15}, "annotations.0.category_id: .*15"),
        ({"image_id": 4}, "annotations.0.image_id: .*4"),
        ({"segmentation": [[1, 2, 3]]}, r"annotations.0.segmentation: .*\[1, 2, 3\]"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"\(36, 48\).*\(9, 9\)"),
    ],
)
def test_what_is_wrong_in_the_index_is_named(instances, wrong, message):
    path = instances / "annotations/instances_val2017.json"
    change(path, lambda index: index["annotations"][0].update(wrong))
    with pytest.raises(DatasetError, match=message):
        open_dataset("coco_instances", instances, "val2017")[0][0]


def test_names_and_kinds_of_another_release_are_those_of_its_index(panoptic):
    path = panoptic / "annotations/panoptic_val2017.json"
    index = json.loads(path.read_text())
    for entry in index["categories"]:
        entry |= {"name": f"other {entry['id']}", "isthing": int(entry["id"] > 3)}
    path.write_text(json.dumps(index))
    kinds = open_dataset("coco_panoptic", panoptic, "val2017").kinds
    assert kinds[:4] == (
        *(("other 1", False), ("other 2", False), ("other 3", False)),
        ("other 4", True),
    )


def test_the_other_index_is_rejected(panoptic):
    (panoptic / "annotations/instances_val2017.json").write_text(
        json.dumps(entries(133) | {"annotations": []})
    )
    with pytest.raises(DatasetError, match="expected 80 categories, got 133"):
        open_dataset("coco_instances", panoptic, "val2017")
