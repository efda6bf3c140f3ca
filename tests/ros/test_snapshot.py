"""Snapshots: one processed frame on disk."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import street
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from video_knet_ros import snapshot


def save(world) -> Trigger.Response:
    return world.call(Trigger, "save_snapshot", Trigger.Request())


def read(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return pixels


def test_a_snapshot_holds_the_image_and_what_was_published_of_it(world, tmp_path):
    world.camera_node(snapshot_folder=str(tmp_path / "new" / "folder"))
    tables, panoptic = world.tables(), world.collect(Image, "panoptic/image")
    image = street(1)
    message, table = world.send(world.publisher(), tables, image)
    world.wait(lambda: panoptic, "the panoptic image")
    answer = save(world)
    assert answer.success, answer.message
    folder = Path(answer.message)
    assert folder.parent == tmp_path / "new" / "folder" and folder.name == "100.100000000"
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


def test_the_folder_may_be_named_by_the_home_folder_and_the_environment(
    world, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROBOT", "r2")
    world.camera_node(snapshot_folder="~/snapshots/$ROBOT")
    world.send(world.publisher(), world.tables(), street())
    assert Path(save(world).message).parent == tmp_path / "snapshots" / "r2"


def test_without_an_image_there_is_none(world):
    world.camera_node()
    answer = save(world)
    assert (answer.success, answer.message) == (False, "no image has been processed yet")


def test_a_full_disk_is_told_and_leaves_nothing(world, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/folder"])
def test_a_folder_that_cannot_be_made_is_named(world, folder):
    world.camera_node(snapshot_folder=folder)
    tables = world.tables()
    world.send(world.publisher(), tables, street())
    answer = save(world)
    assert not answer.success and answer.message.startswith(f"cannot save into {folder}: ")
