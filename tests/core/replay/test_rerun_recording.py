"""Replays for the Rerun viewer, read back as the viewer reads them."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fixtures import PERIOD, bag_of, block, depth_bag_of
from tiny_onnx import write_tiny_model

from video_knet_core.bags.making import FIRST_STAMP
from video_knet_core.engine.selector import open_runtime
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.camera import CameraReplay
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.types import NO_CLASS
from video_knet_core.visualize import track_color

TOPICS = ("/front/image_raw", "/rear/image_raw")
FRAMES, PART = 8, 10


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A replay of two cameras in two parts."""
    pytest.importorskip("rerun", reason="needs the extra `rerun`")
    folder = tmp_path_factory.mktemp("rerun")
    runtime = open_runtime(write_tiny_model(folder / "tiny.onnx"))
    settings = ReplaySettings(topics=TOPICS, rerun=True, split_frames=PART)
    path = bag_of(folder, FRAMES, topics=TOPICS)
    replay(path, runtime, folder / "out", settings)
    return folder / "out"


def parts(out: Path) -> list:
    """Readers of the files."""
    chunk = pytest.importorskip("rerun.chunk", reason="needs a newer rerun-sdk to read files back")
    return [chunk.RrdReader(path) for path in sorted((out / "rerun").iterdir())]


def columns_of(out: Path, entity: str) -> dict[str, list]:
    """Column -> values of an entity, from all files."""
    found: dict[str, list] = defaultdict(list)
    for reader in parts(out):
        for chunk in reader.stream().to_chunks():
            batch = chunk.to_record_batch()
            for name in batch.schema.names if chunk.entity_path == entity else ():
                column = batch[name].cast("int64") if name == "stamp" else batch[name]
                found[name] += column.to_pylist() if name != "log_time" else []
    return found


def test_the_parts_are_one_recording(out):
    names = [path.name for path in sorted((out / "rerun").iterdir())]
    assert names == ["0000.rrd", "0001.rrd"] and not (out / "unfinished").exists()
    stores = [reader.recordings() for reader in parts(out)]
    assert [len(found) for found in stores] == [1, 1]
    assert stores[0][0].recording_id == stores[1][0].recording_id
    assert stores[0][0].application_id == "video_knet"


@pytest.mark.parametrize("camera", ["front", "rear"])
def test_every_frame_is_there_once_by_stamp_and_number(out, camera):
    for entity in ("image", "segmentation", "instances"):
        columns = columns_of(out, f"/{camera}/{entity}")
        rows = sorted(zip(columns["frame"], columns["stamp"], strict=True))
        assert rows == [(number, FIRST_STAMP + number * PERIOD) for number in range(FRAMES)]


def test_images_and_segmentations_are_those_of_the_frames(out):
    columns = columns_of(out, "/front/image")
    assert {kind for (kind,) in columns["EncodedImage:media_type"]} == {"image/jpeg"}
    for number, (blob,) in zip(columns["frame"], columns["EncodedImage:blob"], strict=True):
        image = cv2.imdecode(np.array(blob, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        assert np.abs(image - block(number)).mean() < 8
    columns = columns_of(out, "/front/segmentation")
    for number, (buffer,) in zip(
        columns["frame"], columns["SegmentationImage:buffer"], strict=True
    ):
        classes = np.array(buffer, np.uint8).reshape(50, 70)
        vehicle = block(number)[..., 0] > 127
        assert (classes[:25] == 0).all() and set(np.unique(classes)) == {0, 1, NO_CLASS}
        assert ((classes == 1) == vehicle).mean() > 0.98
    (context,) = columns_of(out, "/")["AnnotationContext:context"][0]
    names = [row["class_description"]["info"]["label"] for row in context]
    assert names == ["road", "vehicle", "no class"]


def test_boxes_have_the_id_the_class_and_the_colour_of_their_track(out):
    columns = columns_of(out, "/rear/instances")
    red, green, blue = track_color(1)
    color = (red << 24) + (green << 16) + (blue << 8) + 255
    expected = [
        ("track_id", [1]),
        ("Boxes2D:class_ids", [1]),
        ("Boxes2D:labels", ["vehicle 1"]),
        ("Boxes2D:colors", [color]),
        ("score", [pytest.approx(0.8)]),
    ]
    assert len({epoch for (epoch,) in columns["tracker_epoch"]}) == 1
    for name, value in expected:
        assert columns[name] == [value] * FRAMES, name
    for number, ((x, y),) in zip(columns["frame"], columns["Boxes2D:centers"], strict=True):
        assert x == pytest.approx(5 + number + 10, abs=1.5) and y == pytest.approx(37.5, abs=1)


def objects_of_a_drive(folder: Path) -> dict[str, list]:
    """Columns of the objects of a replay with depth and odometry."""
    pytest.importorskip("rerun", reason="needs the extra `rerun`")
    runtime = open_runtime(write_tiny_model(folder / "tiny.onnx"))
    settings = ReplaySettings(
        topics=("/camera/image_raw",), rerun=True, target_frame="odom", odometry="/odometry"
    )
    replay(depth_bag_of(folder, FRAMES), runtime, folder / "out", settings)
    return columns_of(folder / "out", "/video_knet/objects")


def test_objects_in_space_have_boxes_in_metres(tmp_path):
    columns = objects_of_a_drive(tmp_path)
    expected = [
        ("track_id", [1]),
        ("frame_id", ["odom"]),
        ("Boxes3D:class_ids", [1]),
        ("Boxes3D:labels", ["vehicle 1"]),
    ]
    for name, value in expected:
        assert columns[name] == [value] * FRAMES, name
    for number, ((x, y, z),) in zip(columns["frame"], columns["Boxes3D:centers"], strict=True):
        assert x == pytest.approx(number + 10, abs=0.3)  # 10 m ahead of the camera
        assert y == pytest.approx((34.5 - 15 - number) / 20, abs=0.3)
        assert z == pytest.approx(1 - (37.5 - 24.5) / 20, abs=0.3)


def test_boxes_are_removed_when_the_places_become_unknown(tmp_path, monkeypatch):
    process = CameraReplay.process

    def without_places(*arguments):
        found = process(*arguments)
        return found._replace(objects=None) if found.number >= 3 else found

    monkeypatch.setattr(CameraReplay, "process", without_places)
    columns = objects_of_a_drive(tmp_path)
    assert sorted(columns["frame"]) == [0, 1, 2, 3]
    assert columns["Clear:is_recursive"] == [[False]]


def test_a_camera_without_camera_info_has_no_objects_in_space(out):
    assert not columns_of(out, "/front/objects")


def test_the_viewers_own_program_finds_nothing_wrong(out):
    files = [str(path) for path in sorted((out / "rerun").iterdir())]
    command = [sys.executable, "-m", "rerun", "rrd", "verify", *files]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_without_the_package_it_is_named_before_anything_is_written(tmp_path):
    model, path = write_tiny_model(tmp_path / "tiny.onnx"), bag_of(tmp_path, 2)
    code = (
        "import sys; sys.modules['rerun'] = None;"
        "from video_knet_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    result = subprocess.run(
        [sys.executable, "-c", code, *command, "--rerun"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr.endswith("--rerun needs rerun-sdk: pip install 'video_knet_ros[rerun]'\n")
    assert not (tmp_path / "out").exists()
