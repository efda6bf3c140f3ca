"""Snapshots: one processed frame on disk."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import CLASSES, HEIGHT, WIDTH, PaintedRuntime, image_message, street
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.predictor import VideoPredictor
from video_knet_ros import snapshot
from video_knet_ros.snapshot import save_snapshot


def save(world) -> Trigger.Response:
    return world.call(Trigger, "save_snapshot", Trigger.Request())


def read(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


def test_a_snapshot_holds_the_image_and_what_was_published_of_it(world, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROBOT", "folder")
    world.camera_node(snapshot_folder="~/new/$ROBOT")
    tables, panoptic = world.tables(), world.collect(Image, "panoptic/image")
    image = street(1)
    message, table = world.send(world.publisher(), tables, image)
    world.wait(lambda: panoptic, "the panoptic image")
    answer = save(world)
    assert answer.success, answer.message
    folder = Path(answer.message)
    assert folder.parent == tmp_path / "new" / "folder" and folder.name == "100.100000000"
    assert world.set_parameter("snapshot_folder", f"{tmp_path}/$ROBOT").successful
    assert Path(save(world).message).parent == tmp_path / "$ROBOT"  # set over the network
    assert np.array_equal(read(folder / "image.png")[..., ::-1], image)
    labels = read(folder / "labels.png")
    assert labels.dtype == np.uint16 and labels.tobytes() == panoptic[0].data.tobytes()
    assert read(folder / "overlay.png").shape == image.shape
    saved = json.loads((folder / "table.json").read_text())
    assert saved["frame_id"] == message.header.frame_id and saved["stamp"] == 100_100_000_000
    assert saved["epoch"] == table.tracker_epoch
    assert [(r["label"], r["track_id"], r["class_name"], r["area"]) for r in saved["tracks"]] == [
        (r.label, r.track_id, r.class_name, r.area) for r in table.instances
    ]


def test_a_second_snapshot_of_the_same_stamp_replaces_nothing(world, tmp_path):
    world.camera_node(snapshot_folder=str(tmp_path))
    tables = world.tables()
    world.send(world.publisher(), tables, street())
    names = [Path(save(world).message).name for _ in range(2)]
    assert names == ["100.100000000", "100.100000000-2"]


def test_two_cameras_may_save_the_same_stamp_at_the_same_time(tmp_path):
    def result_of(red: int) -> FrameToPublish:
        pixels = np.full((HEIGHT, WIDTH, 3), red, np.uint8)
        runtime = PaintedRuntime()
        frame = VideoPredictor(runtime).step(pixels, 10**9)
        return FrameToPublish(image_message(pixels).header, pixels, frame, CLASSES, 0, 0)

    results = [result_of(red) for red in (1, 2, 3, 4)]
    with ThreadPoolExecutor(len(results)) as threads:
        saved = list(threads.map(lambda result: save_snapshot(result, tmp_path), results))
    assert {path.name for path in saved} == {
        "1.000000000",
        *(f"1.000000000-{n}" for n in (2, 3, 4)),
    }
    reds = [read(path / "image.png")[0, 0, 2] for path in saved]
    assert reds == [1, 2, 3, 4]


def test_a_picture_that_cannot_be_encoded_is_an_error_and_leaves_nothing(
    world, tmp_path, monkeypatch
):
    world.camera_node(snapshot_folder=str(tmp_path))
    world.send(world.publisher(), world.tables(), street(1))
    monkeypatch.setattr(snapshot.cv2, "imencode", lambda *a: (False, np.zeros(0, np.uint8)))
    answer = save(world)
    assert not answer.success and "image.png" in answer.message
    assert not list(tmp_path.iterdir())


def test_without_an_image_there_is_none(world):
    world.camera_node()
    answer = save(world)
    assert (answer.success, answer.message) == (False, "no image has been processed yet")


def test_a_full_disk_is_reported_and_leaves_nothing(world, tmp_path, monkeypatch):
    world.camera_node(snapshot_folder=str(tmp_path))
    tables = world.tables()
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street(1))
    written = []

    def full(path: Path, data: bytes) -> int:
        written.append(path.name)
        if path.name == "labels.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return len(data)

    monkeypatch.setattr(snapshot.Path, "write_bytes", full)
    answer = save(world)
    assert not answer.success and "No space left on device" in answer.message
    assert written == ["image.png", "labels.png"] and not list(tmp_path.iterdir())
    world.send(camera_topic, tables, street(2))


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/folder", "~no_such_user/folder"])
def test_a_folder_that_cannot_be_made_is_named(world, folder):
    world.camera_node(snapshot_folder=folder)
    world.send(world.publisher(), world.tables(), street())
    answer = save(world)
    assert not answer.success and folder in answer.message
    assert not Path("~no_such_user").exists()
