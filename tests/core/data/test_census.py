"""What a data set has to learn from."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from dataset_fixtures import CYCLIST, PERSON, VEHICLE, opened, put, street

from video_knet_core.data.census import take_census
from video_knet_core.data.datasets import open_dataset


@pytest.mark.parametrize("layout", ["custom", "youtube_vis_2019"])
def test_frames_classes_and_objects_are_counted(layout, written, expected_frames):
    dataset = opened(layout, written[layout])
    census, frames = take_census(dataset), [frame for video in dataset for frame in video]
    assert (census.frames, census.total, census.size) == (6, 6, (48, 64))
    assert not census.faults and not census.unusable
    for class_id in range(dataset.class_count):
        there = [(frame.semantic == class_id).any() for frame in frames]
        assert census.frames_of[class_id] == sum(there)
    things = sum(len(np.unique(frame.instance[frame.instance > 0])) for frame in frames)
    assert census.objects_of.sum() == things > 0
    assert census.is_followed


def test_equal_ids_in_unrelated_images_are_not_the_same_object(tmp_path):
    rows = [{"name": name, "is_thing": True, "color": [0, 0, 0]} for name in ("cup", "plate")]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({"classes": rows}))
    places = np.random.default_rng(0)
    for n in range(8):
        labels = np.full((48, 64), 65535, np.uint16)
        y, x = places.integers(0, (36, 52))
        labels[y : y + 12, x : x + 12] = 1001
        put(tmp_path / f"train/panoptic/{n}.png", labels)
        put(tmp_path / f"train/images/{n}.png", np.zeros((48, 64, 3), np.uint8))
    census = take_census(open_dataset("custom", tmp_path, "train"))
    assert census.overlaps and not census.is_followed
    assert census.frames_of.tolist() == census.objects_of.tolist() == [0, 8]


def test_frames_that_cannot_be_used_are_listed(copy):
    root = copy("custom")
    (root / "val/images/drive_5/1.png").unlink()
    put(root / "val/panoptic/drive_6/2.png", np.full((48, 64), 65535, np.uint16))
    census = take_census(opened("custom", root))
    assert census.unusable == ["drive_5/1", "drive_6/2"]
    assert (census.frames, census.total) == (4, 6)
    assert [where for where, _ in census.faults] == census.unusable


def test_things_without_an_instance_id_are_no_objects(copy):
    root = copy("custom")
    table = yaml.safe_load((root / "classes.yaml").read_text())["classes"]
    (root / "classes.yaml").write_text(yaml.safe_dump({"label_divisor": 1, "classes": table}))
    for seed in (5, 6):
        for t, frame in enumerate(street(seed)):
            put(root / f"val/panoptic/drive_{seed}/{t}.png", frame.semantic)
    census = take_census(opened("custom", root))
    assert census.frames == 6 and not census.objects_of.any()
    assert census.frames_of[[PERSON, CYCLIST, VEHICLE]].sum() > 0
