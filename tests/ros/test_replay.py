"""A replay against the live node: what one writes into a bag is what the other sends."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mcap", reason="replays need it: pip install 'video_knet_ros[replay]'")

from harness import PaintedRuntime, image_message, street
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image
from video_knet_ros.msg import ClassMap, TrackedInstanceArray, TrackedObjectArray

from video_knet_core.bags.definitions import read_cdr, ros2_types
from video_knet_core.bags.making import FORMATS, BagFormat, make_bag, make_depth_bag
from video_knet_core.bags.opening import open_bag
from video_knet_core.data.frame_source import Frame, FrameSource, Intrinsics, View
from video_knet_core.engine.selector import open_runtime
from video_knet_core.messages.result_messages import CLASS_MAP, INSTANCES, nanoseconds
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.tasks import TASKS
from video_knet_ros.outputs import CONVERSIONS, LATCHED, has_type

FRAMES = 120


def types_of(task: str, spatial: bool = False) -> dict[str, str]:
    """Topic -> type of message of each output in the image, or in space.

    Without those that are not installed.
    """
    outputs = [OUTPUTS[name] for name in TASKS[task].outputs]
    return {o.topic: o.type for o in outputs if has_type(o.type) and o.spatial == spatial}


SPATIAL = types_of("panoptic", spatial=True)
NAMES = types_of("panoptic") | SPATIAL | {"class_map": CLASS_MAP}
KINDS = {t: CONVERSIONS.find(kind) for t, kind in types_of("panoptic").items()}
INPUTS = {
    "/camera/camera_info": ("camera_info", CameraInfo),
    "/camera/depth/image_raw": ("depth", Image),
    "/odometry": ("odometry", Odometry),
}
"""Topic of a bag -> input of the node, and its type."""


class DepthVideo(FrameSource):
    """Painted frames before a wall, seen by a camera that drives."""

    fps = 10.0
    intrinsics = Intrinsics(90.0, 90.0, 47.5, 23.5)

    def __iter__(self) -> Iterator[Frame]:
        return ((view.image, view.stamp) for view in self.views())

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        for number in range(12):
            image, pose = street(number), np.eye(4)
            depth = np.where(image[..., 0] > 2, 6.0 - 0.1 * number, 9.0).astype(np.float32)
            pose[:3, :3], pose[0, 3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], 0.1 * number
            yield View(image, number * 100_000_000, depth, pose)


def drive() -> list[tuple[np.ndarray, int]]:
    """Painted frames: things come, go and stand still; twice the stamps jump far."""
    frames = []
    for number in range(FRAMES):
        things = ((3, 4), (3, 4, 5), (4,), (), (5, 3))[number // 8 % 5]
        stamp = number * 100_000_000 + (20_000_000_000 if 50 <= number < 80 else 0)
        frames.append((street(number, things=things), stamp))
    return frames


def bag_of(frames, folder: Path, form: BagFormat) -> Path:
    path = folder / ("in.bag" if form.format == "ros1" else "in")
    make_bag({"/camera/image_raw": frames}, path, form)
    return path


def replayed(path: Path, out: Path, runtime=None, **settings) -> dict[str, list[bytes]]:
    """Output topic below the node's name -> messages as they are in the new bag."""
    runtime = runtime or PaintedRuntime()
    topics = types_of(runtime.info.task)
    outputs = tuple(n for n in TASKS[runtime.info.task].outputs if OUTPUTS[n].topic in topics)
    replay(path, runtime, out, ReplaySettings(outputs=outputs, **settings))
    bag = open_bag(out / "bag")
    found: dict[str, list[bytes]] = {}
    for message in bag.messages({topic.name for topic in bag.contents().topics}):
        name = message.topic.name.removeprefix("/video_knet/")
        found.setdefault(name, []).append(bytes(message.data))
    return found


def untimed(message, kind: str) -> bytes:
    """CDR of a message without the two times that no two runs have in common.

    Written by rclpy and again by rosbags: rclpy leaves what was in memory between the fields and
    after the last one.
    """
    if kind == INSTANCES:
        message.latency_ms = message.inference_ms = math.nan
    return bytes(ros2_types().serialize_cdr(read_cdr(serialize_message(message), kind), kind))


@pytest.fixture
def same_epochs(monkeypatch):
    """Lets a live node begin with the epoch of a replay, which is otherwise random."""

    def begin_as(found) -> None:
        first = deserialize_message(found["instances"][0], TrackedInstanceArray).tracker_epoch
        monkeypatch.setattr("video_knet_ros.node.new_epoch", lambda: first)

    return begin_as


def sent_live(world, path: Path, topics) -> dict[str, list]:
    """What a live node sends when it is given the images of a bag, one after the other."""
    classes = world.collect(ClassMap, "class_map", LATCHED)
    live = {name: world.collect(KINDS[name], name) for name in topics}
    publisher = world.publisher()
    for number, message in enumerate(open_bag(path).messages({"/camera/image_raw"}), start=1):
        publisher.publish(deserialize_message(bytes(message.data), Image))
        world.wait(lambda n=number: all(len(got) == n for got in live.values()), "all outputs")
    world.wait(lambda: classes, "the class map")
    return live | {"class_map": classes}


def assert_same(found: dict[str, list[bytes]], live: dict[str, list]) -> None:
    """All topics of a replay and all messages of each are those of the live node."""
    assert set(found) - {"label_info"} == set(live)  # whose stamp is when the node was activated
    for name, messages in live.items():
        assert len(found[name]) == len(messages)
        for number, message in enumerate(messages):
            kind = NAMES[name]
            assert found[name][number] == untimed(message, kind), (name, number)


def test_a_replay_writes_what_the_live_node_sends(world, tmp_path, same_epochs):
    path = bag_of(drive(), tmp_path, BagFormat())
    found = replayed(path, tmp_path / "out", rle=True, split_frames=50)
    same_epochs(found)
    world.camera_node(rle=True)
    live = sent_live(world, path, KINDS)
    assert [len(found[name]) for name in KINDS] == [FRAMES] * len(KINDS)
    assert_same(found, live)
    epochs = [message.tracker_epoch for message in live["instances"]]
    assert [epochs[n] - epochs[0] for n in (0, 49, 50, 80)] == [0, 0, 1, 2]


def test_a_replay_in_metres_writes_what_the_live_node_sends(world, tmp_path, monkeypatch):
    path, out = tmp_path / "in", tmp_path / "out"
    make_depth_bag(DepthVideo(), "/camera/image_raw", path)
    settings = {"target_frame": "odom", "follow_track": 1, "point_stride": 3}
    names = tuple(name for name, o in OUTPUTS.items() if o.topic in SPATIAL)
    replay(
        path, PaintedRuntime(), out, ReplaySettings(outputs=names, odometry="/odometry", **settings)
    )
    found: dict[str, list[bytes]] = {}
    bag = open_bag(out / "bag")
    for message in bag.messages({f"/video_knet/{topic}" for topic in SPATIAL}):
        found.setdefault(message.topic.name[12:], []).append(bytes(message.data))
    table = deserialize_message(found["objects"][0], TrackedObjectArray)
    monkeypatch.setattr("video_knet_ros.node.new_epoch", lambda: table.tracker_epoch)
    node, taken = world.camera_node(**settings), []
    on_input = node._spatial_subscriptions._on_input
    node._spatial_subscriptions._on_input = lambda: (taken.append(1), on_input())
    live = {t: world.collect(CONVERSIONS.find(kind), t) for t, kind in SPATIAL.items()}
    camera = world.publisher()
    inputs = {
        topic: world.publisher(topic=name, kind=kind) for topic, (name, kind) in INPUTS.items()
    }
    publishers = {"/camera/image_raw": (camera, Image)} | {
        topic: (inputs[topic], kind) for topic, (_, kind) in INPUTS.items()
    }
    for message in open_bag(path).messages(set(publishers)):
        publisher, kind = publishers[message.topic.name]
        arrived = live["objects"] if publisher is camera else taken
        expected = 1 + len(arrived)
        publisher.publish(deserialize_message(bytes(message.data), kind))
        world.wait(lambda n=expected, got=arrived: len(got) == n, message.topic.name)
    for topic in SPATIAL:
        world.wait(lambda t=topic: len(live[t]) == len(found[t]), topic)
    assert len(found["objects"]) == 12 and len(table.objects) == 2
    assert_same(found, live)


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_a_replay_of_another_task_has_its_topics_and_what_the_live_node_sends(
    world, tmp_path, task, same_epochs
):
    pytest.importorskip("onnx", reason="the model of this test is made with onnx")
    from bag_fixtures import block
    from tiny_onnx import write_tiny_model

    model = write_tiny_model(tmp_path / "tiny.onnx", task)
    path = bag_of([(block(n), n * 100_000_000) for n in range(12)], tmp_path, BagFormat())
    runtime = open_runtime(model, "onnxruntime-cpu", threads=1)
    found = replayed(path, tmp_path / "out", runtime, rle=True)
    if task == "instance":
        same_epochs(found)
    world.camera_node(open_runtime=lambda *_, **__: runtime, rle=True)
    topics = list(types_of(task))
    live = sent_live(world, path, topics)
    assert len(live[topics[0]]) == 12
    assert_same(found, live)


@pytest.mark.parametrize("form", FORMATS)
def test_rclpy_reads_every_message_and_headers_are_those_of_the_images(form, tmp_path):
    path = bag_of(drive()[:12], tmp_path, BagFormat(form))
    found = replayed(path, tmp_path / "out")
    for name, kind in KINDS.items():
        messages = [deserialize_message(data, kind) for data in found[name]]
        headers = [message.header for message in messages]
        assert [h.frame_id for h in headers] == ["camera_image_raw"] * 12
        stamps = [nanoseconds(h.stamp) for h in headers]
        assert [stamp - stamps[0] for stamp in stamps] == [n * 100_000_000 for n in range(12)]
    tables = [deserialize_message(data, TrackedInstanceArray) for data in found["instances"]]
    assert [table.sequence for table in tables] == list(range(12))
    assert all(math.isnan(t.latency_ms) and math.isnan(t.inference_ms) for t in tables)
    assert tables[5].instances[2].class_name == "person"


def test_the_embedded_definitions_have_the_hashes_of_the_built_ones():
    prefixes = os.environ["AMENT_PREFIX_PATH"].split(os.pathsep)
    for name in (file.stem for file in (Path(__file__).parents[2] / "msg").glob("*.msg")):
        described = f"share/video_knet_ros/msg/{name}.json"
        found = next((p for p in (Path(x) / described for x in prefixes) if p.is_file()), None)
        if found is None:
            pytest.skip("the package is not built with colcon here")
        rows = json.loads(found.read_text())["type_hashes"]
        hashes = {row["type_name"]: row["hash_string"] for row in rows}
        kind = f"video_knet_ros/msg/{name}"
        assert ros2_types().hash_rihs01(kind) == hashes[kind]


def test_copied_messages_of_ros_1_decode_with_rclpy(tmp_path):
    path = bag_of([(street(1), 0)], tmp_path, BagFormat("ros1"))
    found = replayed(path, tmp_path / "out", include_input_topics=True)
    (data,) = found["/camera/image_raw"]
    copy, expected = deserialize_message(data, Image), image_message(street(1))
    assert (copy.height, copy.width, copy.step) == (expected.height, expected.width, expected.step)
    assert copy.data == expected.data and copy.header.frame_id == "camera_image_raw"
