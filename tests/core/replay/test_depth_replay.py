"""Replays in metres: what is in the bag is what the locator gives, the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_fixtures import PERIOD, TOPIC, block, read_all, write_mcap
from replay_results import digests, string

from video_knet_core.bags.definitions import IMAGE, conversions, read_cdr, ros2_types
from video_knet_core.bags.making import (
    DELAY,
    FIRST_STAMP,
    BagFormat,
    TypedBag,
    make_depth_bag,
)
from video_knet_core.data.frame_source import Frame, FrameSource, Intrinsics, View
from video_knet_core.messages import view_messages
from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.predictor import VideoPredictor
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.spatial.locator import ObjectLocator
from video_knet_core.spatial.objects import RangeSource
from video_knet_core.spatial.settings import SpatialSettings

FRAMES = 8
INTRINSICS = Intrinsics(60.0, 60.0, 34.5, 24.5)
SPATIAL = tuple(name for name, output in OUTPUTS.items() if output.spatial)
DEPTH, INFO = "/camera/depth/image_raw", "/camera/camera_info"


class Drive(FrameSource):
    """The block of the tiny model, 6 m before a camera that drives at 1 m/s, on a wall at 9 m."""

    fps = 10.0
    intrinsics = INTRINSICS

    def __iter__(self) -> Iterator[Frame]:
        return ((view.image, view.stamp) for view in self.views())

    def views(self, with_depth=lambda: True) -> Iterator[View]:
        for number in range(FRAMES):
            image, pose = block(number), np.eye(4)
            pose[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
            pose[:3, 3] = 0.1 * number, 0, 1.5
            depth = np.where(image[..., 0] > 0, 6, 9).astype(np.float32) - np.float32(0.1 * number)
            yield View(image, number * PERIOD, depth, pose)


def depth_bag(folder: Path) -> Path:
    make_depth_bag(Drive(), TOPIC, folder / "in")
    return folder / "in"


def settings(**changes: Any) -> ReplaySettings:
    usual = {"target_frame": "odom", "odometry": "/odometry", "outputs": SPATIAL, "report": False}
    return ReplaySettings(**{**usual, "follow_track": 1, **changes})


def messages(out: Path) -> dict[str, list[Any]]:
    """Output -> its messages, as they were serialised."""
    found: dict[str, list[Any]] = {}
    for message in read_all(out / "bag"):
        name = message.topic.name.removeprefix("/video_knet/")
        found.setdefault(name, []).append(read_cdr(message.data, message.topic.type))
    return found


def test_two_replays_give_the_same_bytes_in_every_file(runtime, tmp_path):
    path = depth_bag(tmp_path)
    for name in ("first", "second"):
        options = settings(split_frames=3, mask_classes="vehicle", semantic_size="cloud")
        replay(path, runtime, tmp_path / name, options)
    found = digests(tmp_path / "first")
    assert found == digests(tmp_path / "second")
    assert {"objects", "points", "mask/vehicle/image"} <= set(messages(tmp_path / "first"))


def test_objects_are_found_in_metres(runtime, tmp_path):
    replay(depth_bag(tmp_path), runtime, tmp_path / "out", settings())
    arrays = messages(tmp_path / "out")["objects"]
    assert len(arrays) == FRAMES
    for number, array in enumerate(arrays):
        (found,) = array.objects
        assert array.header.frame_id == "odom"
        assert (found.class_name, found.source) == ("vehicle", RangeSource.DEPTH)
        assert found.range == pytest.approx(6 - 0.1 * number, abs=1)
        assert found.position.x == pytest.approx(6, abs=0.05)
    assert np.isnan(arrays[0].objects[0].velocity.x)
    assert arrays[-1].objects[0].velocity.x == pytest.approx(0, abs=0.1)


def test_the_messages_are_what_the_locator_gives(runtime, tmp_path):
    """With the predictor and the inputs filled by hand."""
    replay(depth_bag(tmp_path), runtime, tmp_path / "out", settings())
    found = messages(tmp_path / "out")
    predictor, convert = VideoPredictor(runtime), conversions()
    locator = ObjectLocator(predictor.classes, SpatialSettings(target_frame="odom", follow_track=1))
    header_of, inputs = convert.find("std_msgs/msg/Header"), locator.inputs
    predictor.reset(found["objects"][0].tracker_epoch)
    last = None
    for number, view in enumerate(Drive().views()):
        stamp = FIRST_STAMP + view.stamp
        header = header_of(stamp=convert.time_message(stamp), frame_id="camera")
        info = view_messages.camera_info(convert, header, INTRINSICS, view.image.shape[:2])
        inputs.add_camera_info(info)
        inputs.add_odometry(view_messages.view_odometry(convert, header, view, last))
        assert view.depth is not None
        inputs.add_depth(view_messages.depth_image(convert, header, view.depth))
        frame = predictor.step(view.image, stamp)
        result = FrameToPublish(
            header, view.image, frame, predictor.classes, number, 0,
            spatial=locator.locate(frame, view.image, "camera", stamp),
        )  # fmt: skip
        for name in SPATIAL:
            output = OUTPUTS[name]
            expected = output.make(convert, result)
            data = [
                bytes(ros2_types().serialize_cdr(message, output.type))
                for message in (expected, found[output.topic][number])
            ]
            assert data[0] == data[1], (name, number)
        last = view


def ros1_bag(path: Path) -> Path:
    """The same without odometry; the fields of a CameraInfo of ROS 1 are capital letters."""
    types = {TOPIC: IMAGE, DEPTH: IMAGE, INFO: view_messages.CAMERA_INFO}
    with closing(TypedBag(path, types, BagFormat("ros1"))) as bag:
        for view in Drive().views():
            header = bag.header(FIRST_STAMP + view.stamp, "camera")
            modern = view_messages.camera_info(conversions(), header, INTRINSICS, (50, 70))
            names = ("height", "width", "distortion_model", "binning_x", "binning_y")
            info = bag.convert.find(view_messages.CAMERA_INFO)(
                header=header,
                roi=bag.convert.find("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False),
                **{name: getattr(modern, name) for name in names},
                **{name.upper(): getattr(modern, name) for name in "dkrp"},
            )
            assert view.depth is not None
            depth = view_messages.depth_image(bag.convert, header, view.depth)
            image = bag.convert.image_message(header, "rgb8", view.image)
            for topic, message in ((INFO, info), (DEPTH, depth), (TOPIC, image)):
                bag.write(topic, FIRST_STAMP + DELAY + view.stamp, message)
    return path


def test_bags_of_ros_1_give_the_same_objects_and_points(runtime, tmp_path):
    paths = {"two": depth_bag(tmp_path), "one": ros1_bag(tmp_path / "in.bag")}
    options = settings(odometry="", target_frame="", mask_classes="vehicle")
    for name, path in paths.items():
        replay(path, runtime, tmp_path / name, options)
    one, two = (messages(tmp_path / name) for name in ("one", "two"))
    assert {name: len(found) for name, found in one.items()} == {
        name: len(found) for name, found in two.items()
    }
    for a, b in zip(one["objects"], two["objects"], strict=True):
        assert repr(a.objects) == repr(b.objects)
    for name in ("points", "obstacles", "free_space"):
        for a, b in zip(one[name], two[name], strict=True):
            assert a.data.tobytes() == b.data.tobytes()
    assert one["mask/vehicle/camera_info"][0].k[0] == INTRINSICS.fx


def test_the_odometry_has_to_be_named(runtime, tmp_path, caplog):
    """Without it the target frame is unknown: points are there, objects are not."""
    replay(depth_bag(tmp_path), runtime, tmp_path / "out", settings(odometry=""))
    found = messages(tmp_path / "out")
    assert "objects" not in found and len(found["points"]) == FRAMES
    (warning,) = (record.getMessage() for record in caplog.records)
    assert "objects of frame 0" in warning and "'odom'" in warning


def test_in_the_frame_of_the_camera_no_odometry_is_needed(runtime, tmp_path):
    replay(depth_bag(tmp_path), runtime, tmp_path / "out", settings(odometry="", target_frame=""))
    array = messages(tmp_path / "out")["objects"][-1]
    assert array.header.frame_id == "camera"
    assert array.objects[0].velocity.z == pytest.approx(-1, abs=0.1)


def test_depth_that_comes_after_its_image_is_used(runtime, tmp_path):
    """Of a camera at 30 Hz whose depth takes 40 ms more than the image."""
    convert = conversions()
    types = {TOPIC: IMAGE, DEPTH: IMAGE, INFO: view_messages.CAMERA_INFO}
    rows: list[tuple[int, str, Any]] = []
    with closing(TypedBag(tmp_path / "in", types)) as bag:
        for view in Drive().views():
            header = bag.header(FIRST_STAMP + view.stamp, "camera")
            info = view_messages.camera_info(convert, header, INTRINSICS, view.image.shape[:2])
            image = convert.image_message(header, "rgb8", view.image)
            rows += [(view.stamp, INFO, info), (view.stamp, TOPIC, image)]
            for more in (0, 33_000_000, 66_000_000):
                header = bag.header(FIRST_STAMP + view.stamp + more, "camera")
                depth = view_messages.depth_image(convert, header, view.depth)
                rows.append((view.stamp + more + 40_000_000, DEPTH, depth))
        for time, topic, message in sorted(rows, key=lambda row: row[0]):
            bag.write(topic, FIRST_STAMP + DELAY + time, message)
    options = settings(odometry="", target_frame="")
    replay(tmp_path / "in", runtime, tmp_path / "out", options)
    arrays = messages(tmp_path / "out")["objects"]
    sources = [row.source for array in arrays for row in array.objects]
    assert sources == [RangeSource.DEPTH] * FRAMES


def test_messages_of_other_types_on_the_topics_are_left_out(runtime, tmp_path):
    """A topic may have messages of several types; that of the camera info has texts here."""
    rows = [
        (message.topic.name, message.topic.type, message.time, bytes(message.data))
        for message in read_all(depth_bag(tmp_path))
    ]
    data = bytes(ros2_types().serialize_cdr(string("x"), "std_msgs/msg/String"))
    mixed = []
    for row in rows:
        mixed.append(row)
        if row[0] == INFO:
            mixed.append((INFO, "std_msgs/msg/String", row[2], data))
    path = write_mcap(tmp_path / "mixed.mcap", mixed)
    assert replay(path, runtime, tmp_path / "out", settings()).frames == FRAMES
    assert len(messages(tmp_path / "out")["objects"]) == FRAMES
