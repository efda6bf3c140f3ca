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


# --- custom data ---------------------------------------------------------------------------------

BOX = [8.0, 4.0, 30.0, 4.0, 30.0, 28.0, 8.0, 28.0]
"""22 x 24 pixels."""
EXPORTS = {
    "cvat": ("annotations/instances_default.json", "{}.png", "images/{}.png"),
    "cvat with a subset": ("annotations/instances_Train.json", "{}.png", "images/Train/{}.png"),
    "label studio": ("result.json", "images\\{}.png", "images/{}.png"),
    "of a server": ("result.json", "..\\media\\upload\\4\\{}.png", "images/{}.png"),
    "roboflow": ("train/_annotations.coco.json", "{}.png", "train/{}.png"),
}
"""Program -> index, `file_name` in it, and file of the image."""


def brush(is_crowd: bool) -> dict:
    """A mask as CVAT writes one: it marks all that a brush has drawn as a crowd."""
    mask = np.zeros(SIZE, np.uint8)
    mask[30:34, :10] = 1
    runs = {"size": list(SIZE), "counts": run_lengths(mask)}
    return {"segmentation": runs, "iscrowd": 1, "attributes": {"is_crowd": is_crowd}}


def custom_index(file_name: str, *objects: dict, stuff: tuple[str, ...] = ()) -> dict:
    """Categories without gaps in their meaning: one is never annotated, and ids begin at 0."""
    names = ("forklift", "pallet", "floor")
    rows = [{"image_id": 0, "category_id": 7, "id": 0, **row} for row in objects]
    return {
        "images": [
            {"id": n, "file_name": file_name.format(n), "height": HEIGHT, "width": WIDTH}
            for n in range(2)
        ],
        "categories": [
            {"id": 7 + i, "name": name} | ({"isthing": 0} if name in stuff else {})
            for i, name in enumerate(names)
        ],
        "annotations": rows,
    }


def write_custom_coco(
    root: Path, program: str, *objects: dict, stuff: tuple[str, ...] = ()
) -> Path:
    """The export of a program; returns its index."""
    index, name, image = EXPORTS[program]
    for n in range(2):
        stored(root / image.format(n), grey(50 + n))
    (root / index).parent.mkdir(parents=True, exist_ok=True)
    (root / index).write_text(json.dumps(custom_index(name, *objects, stuff=stuff)))
    return root / index


@pytest.mark.parametrize("program", EXPORTS)
def test_the_export_of_a_program_is_found_with_its_images(program, tmp_path):
    polygon = {"segmentation": [BOX], "iscrowd": 0}
    index = write_custom_coco(tmp_path, program, polygon, brush(False) | {"category_id": 8})
    for root in (tmp_path, index):
        dataset = open_dataset("custom_coco", root, "train")
        assert dataset.kinds == (("forklift", True), ("pallet", True), ("floor", True))
        first, second = (video[0] for video in dataset)
        assert first.image[0, 0].tolist() == [50, 50, 50]
        assert first.masks.class_ids.tolist() == [0, 1] and 0 not in first.masks.ids
        assert [int(mask.sum()) for mask in first.masks.masks] == [22 * 24, 40]
        assert (second.semantic == 255).all() and not len(second.masks.ids)


def test_a_crowd_is_what_a_person_has_marked_as_one(tmp_path):
    write_custom_coco(tmp_path, "cvat", brush(False), brush(True))
    frame = open_dataset("custom_coco", tmp_path, "train")[0][0]
    assert len(frame.masks.ids) == 1
    path = write_custom_coco(tmp_path, "cvat", brush(True))
    change(path, lambda index: index["annotations"][0].pop("attributes"))
    frame = open_dataset("custom_coco", tmp_path, "train")[0][0]
    assert not len(frame.masks.ids) and (frame.semantic[31, 2], frame.instance[31, 2]) == (0, 0)


def test_stuff_of_an_index_makes_the_rest_background(tmp_path):
    floor = {"category_id": 9, "segmentation": [[0, 20, 48, 20, 48, 36, 0, 36]]}
    write_custom_coco(tmp_path, "cvat", {"segmentation": [BOX]}, floor, stuff=("floor",))
    dataset = open_dataset("custom_coco", tmp_path, "train")
    assert dataset.kinds[2:] == (("floor", False), ("background", False))
    frame = dataset[0][0]
    assert frame.masks is None
    assert frame.semantic[[0, 10, 24, 35], [0, 10, 10, 0]].tolist() == [3, 0, 0, 2]
    assert (frame.instance > 0).sum() == 22 * 24


def test_a_box_alone_is_no_mask(tmp_path, capsys):
    write_custom_coco(tmp_path, "label studio", {"segmentation": [], "bbox": [1, 2, 3, 4]}, {})
    assert main(["validate-data", "custom_coco", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("is empty" in line for line in lines[:2])


def test_splits_are_those_of_the_indices(tmp_path):
    for split in ("train", "valid"):
        index = custom_index("{}.png", {"segmentation": [BOX]})
        for n in range(2):
            stored(tmp_path / split / f"{n}.png", grey(n))
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(index))
    assert len(open_dataset("custom_coco", tmp_path, "val")) == 2
    with pytest.raises(DatasetError, match=r"expected the split 'test' .* got train, valid"):
        open_dataset("custom_coco", tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"result\.json: expected an object, got \[\]"),
        ({"images": [], "categories": [], "annotations": []}, "categories: expected at least one"),
        ({"images": []}, "expected the key 'categories'"),
        (
            {
                "images": [{"id": 1, "file_name": "/", "height": 8, "width": 8}],
                "categories": [{"id": 1, "name": "floor"}],
                "annotations": [],
            },
            "file_name: expected a name, got '/'",
        ),
    ],
)
def test_what_is_no_index_of_coco_is_named(content, message, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message):
        open_dataset("custom_coco", tmp_path, "train")


def test_an_image_that_is_missing_is_named(tmp_path):
    write_custom_coco(tmp_path, "cvat", {"segmentation": [BOX]})
    (tmp_path / "images/0.png").unlink()
    with pytest.raises(DatasetError, match="0: has no image .*0.png"):
        open_dataset("custom_coco", tmp_path, "train")[0][0]
