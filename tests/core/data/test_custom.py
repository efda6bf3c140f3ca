"""Custom data: its class table and its 16-bit labels."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from dataset_fixtures import opened, palette_png, put

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


def write_boxes(root, frames):
    (root / "tracks.json").write_text(json.dumps({"frames": frames}))


def row(number, name, *box):
    return {"id": number, "class": name, "box": box}


def listed(rows, videos=("drive_5", "drive_6")):
    """The same boxes for all frames of the videos."""
    return {f"{video}/{t}": rows for video in videos for t in range(3)}


def test_boxes_may_be_labelled_beside_the_masks(copy):
    root = copy("custom")
    rows = [
        row(3, "person", 1, 2, 5, 12.5),
        row(4, "Van", 0, 0, 9, 9),
        row(-1, "DontCare", 7, 7, 8, 9),
    ]
    write_boxes(root, listed(rows, ["drive_5"]))
    first, second = opened("custom", root)
    boxes = first[1].boxes
    assert boxes.ids.tolist() == [3, 4] and boxes.class_ids.tolist() == [8, 10]
    assert boxes.boxes.tolist() == [[1, 2, 4, 10.5], [0, 0, 9, 9]]
    assert boxes.ignored.tolist() == [[7, 7, 1, 2]]
    assert second[0].boxes is None


def test_a_single_video_may_name_its_frames_alone(copy):
    root = copy("custom")
    for kind in ("images", "panoptic"):
        shutil.rmtree(root / "val" / kind / "drive_6")
    for prefix in ("", "drive_5/"):
        write_boxes(root, {f"{prefix}{t}": [row(t, "person", 0, 0, 1, 1)] for t in range(3)})
        (video,) = opened("custom", root)
        assert [frame.boxes.ids.tolist() for frame in video] == [[0], [1], [2]]


@pytest.mark.parametrize("prefix", ["", "val/"])
def test_a_video_without_a_folder_has_the_name_of_its_split(prefix, copy):
    root = copy("custom")
    for kind in ("images", "panoptic"):
        (root / "val" / kind / "drive_5").rename(root / kind)
        shutil.rmtree(root / "val" / kind)
        (root / kind).rename(root / "val" / kind)
    write_boxes(root, {f"{prefix}{t}": [row(t, "person", 0, 0, 1, 1)] for t in range(3)})
    (video,) = opened("custom", root)
    assert [frame.boxes.ids.tolist() for frame in video] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, "person", 5, 0, 4, 9)], "expected box x0 <= x1"),
        ([row(1, "person", 0, 0, 4)], "box"),
        ([row(1, "person", 0, 0, 4, float("nan"))], "finite"),
        ([row("1", "person", 0, 0, 4, 4)], "id"),
        (2 * [row(1, "person", 0, 0, 4, 4)], "expected ids that differ"),
        ([{"id": 1, "box": [0, 0, 1, 1]}], "class"),
        ([row(1 << 62, "person", 0, 0, 4, 4)], "id"),
        ([row(1, "DontCare", -1e308, 0, 1e308, 4)], "box"),
        ([row(1, "road", 0, 0, 4, 4)], "expected classes of things, got road"),
    ],
)
def test_unusable_boxes_name_the_frame(rows, message, copy):
    root = copy("custom")
    write_boxes(root, listed(rows))
    with pytest.raises(DatasetError, match=rf"tracks\.json: frames\.drive_5/0.*{message}"):
        opened("custom", root)


def test_a_video_whose_boxes_are_not_all_there_is_rejected(copy):
    root = copy("custom")
    write_boxes(root, {"drive_6/0": [], "drive_6/2": []})
    with pytest.raises(DatasetError, match="all frames of drive_6, or of none, got none of 1"):
        opened("custom", root)


@pytest.mark.parametrize("palette", [False, True])
def test_class_ids_may_have_eight_bits_where_there_are_no_instances(palette, copy):
    root = copy("custom")
    table = yaml.safe_load((root / "classes.yaml").read_text()) | {"label_divisor": 1}
    (root / "classes.yaml").write_text(yaml.safe_dump(table))
    values = np.zeros((48, 64), np.uint8)
    values[:8], values[8:16] = 255, 10
    path = root / "val/panoptic/drive_5/0.png"
    put(path, values)
    if palette:
        rows = np.insert(values, 0, 0, axis=1).tobytes()
        path.write_bytes(palette_png(64, 48, bytes(range(255, -1, -1)) * 3, rows))
    frame = opened("custom", root)[0][0]
    assert frame.semantic[::8, 0].tolist() == [255, 10, 0, 0, 0, 0]
    assert not frame.instance.any()
    values[:8] = 11
    put(path, values)
    with pytest.raises(DatasetError, match="class ids 0..10 or the label 255, got the label 11"):
        opened("custom", root)[0][0]
