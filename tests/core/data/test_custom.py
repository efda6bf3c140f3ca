"""Custom data: its class table and its 16-bit labels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from dataset_fixtures import opened, put

from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.video import DatasetError


def test_one_video_of_ones_own_needs_no_folder_of_its_own(copy):
    root = copy("custom")
    for kind in ("images", "panoptic"):
        (root / "val" / kind / "drive_5").rename(root / kind)
        shutil.rmtree(root / "val" / kind)
        (root / kind).rename(root / "val" / kind)
    (video,) = opened("custom", root)
    assert video.name == "val" and len(video) == 3 and (video[0].instance > 0).any()


@pytest.mark.parametrize("count", [11, 254, 255])
@pytest.mark.parametrize("class_id", [0, 10, 11, 253, 254, 255, 256, 321])
def test_own_labels_are_classes_of_the_table_or_an_error(count, class_id, tmp_path):
    """A divisor of 200 leaves room for class ids up to 327 in 16 bits; 255 is none of them."""
    rows = [{"name": f"part {i}", "is_thing": True, "color": [0, 0, 0]} for i in range(count)]
    table = {"label_divisor": 200, "classes": rows}
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(table))
    label = np.full((48, 64), class_id * 200 + 1, np.uint16)
    label[:8] = 65535
    put(tmp_path / "val/panoptic/0.png", label)
    put(tmp_path / "val/images/0.png", np.zeros((48, 64, 3), np.uint8))
    video = open_dataset("custom", tmp_path, "val")[0]
    if class_id < count:
        frame = video[0]
        assert np.unique(frame.semantic).tolist() == sorted({class_id, 255})
        assert np.unique(frame.instance).tolist() == [0, 1]
    else:
        with pytest.raises(
            DatasetError, match=rf"0\.png: .*{class_id * 200 + 1} of class {class_id}"
        ):
            video[0]


@pytest.mark.parametrize("count", [256, 300, 1203])
def test_a_table_of_more_classes_than_8_bits_hold_is_rejected(count, tmp_path):
    rows = [{"name": f"part {i}", "is_thing": True, "color": [0, 0, 0]} for i in range(count)]
    text = json.dumps({"label_divisor": 1, "classes": rows})  # JSON is YAML, and much faster
    (tmp_path / "classes.yaml").write_text(text)
    (tmp_path / "val/images").mkdir(parents=True)
    message = rf"classes\.yaml: classes: expected at most 255 classes .*, got {count}: 'part 255'"
    with pytest.raises(DatasetError, match=message):
        open_dataset("custom", tmp_path, "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: []", "classes: expected a list of classes"),
        ("label_divisor: 10", "classes"),
        (
            "classes: [{name: a, is_thing: true, color: [0, 0, 0]}]\nlabel_divisor: 70000",
            "1..65535",
        ),
    ],
)
def test_unusable_classes_of_ones_own(text, message, copy):
    root = copy("custom")
    (root / "classes.yaml").write_text(text)
    with pytest.raises(DatasetError, match=rf"classes\.yaml: .*{message}"):
        opened("custom", root)


def test_labels_of_eight_bit_are_not_ones_own_code(copy):
    root = copy("custom")
    put(root / "val/panoptic/drive_5/0.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(DatasetError, match=r"0\.png: .* 16 bit, got 8 bit"):
        opened("custom", root)[0][0]


def test_a_video_of_custom_data_without_images_is_not_left_out(copy):
    root = copy("custom")
    shutil.rmtree(root / "val/images/drive_6")
    (video,) = (video for video in opened("custom", root).videos if video.name == "drive_6")
    assert len(video)
    with pytest.raises(DatasetError, match="has no image"):
        video[0]
