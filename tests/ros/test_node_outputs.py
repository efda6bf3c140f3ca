"""What the camera node publishes, over DDS, with painted images whose segments are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import (
    CAR,
    CLASSES,
    HEIGHT,
    PERSON,
    RELIABLE,
    ROAD,
    TRUCK,
    WIDTH,
    image_message,
    stamps,
    street,
)
from rclpy.clock import Clock
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from video_knet_ros.msg import TrackedInstance, TrackedInstanceArray

from video_knet_core.messages.result_messages import mask_from_rle
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.tasks import TASKS
from video_knet_ros.outputs import CONVERSIONS, has_type


@pytest.fixture
def camera(world):
    return world.camera_node()


def collect_all(world) -> dict[str, list]:
    """Messages of each output of a frame in the image, by name."""
    outputs = {name: OUTPUTS[name] for name in TASKS["panoptic"].outputs}
    return {
        name: world.collect(CONVERSIONS.find(output.type), output.topic)
        for name, output in outputs.items()
        if has_type(output.type) and not output.spatial
    }


def pixels(message: Image) -> np.ndarray:
    kind = {"16UC1": "<u2", "32SC1": "<i4", "mono8": "u1", "rgb8": "u1"}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width, -1).squeeze()


def test_every_output_carries_the_header_of_its_image(world, camera):
    got = collect_all(world)
    camera_topic = world.publisher()
    sent = []
    for i in range(5):
        message, _ = world.send(camera_topic, got["instances"], street(i))
        sent.append(message.header)
    world.wait(lambda: all(len(messages) == 5 for messages in got.values()), "all outputs")
    for messages in got.values():
        assert [m.header for m in messages] == sent
    assert [m.sequence for m in got["instances"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("scale", [1, 3])
def test_labels_and_table_agree_with_the_pixels(world, camera, scale):
    got = collect_all(world)
    camera_topic = world.publisher()
    for i, things in enumerate([(PERSON, CAR), (PERSON, CAR, TRUCK), (CAR,), ()]):
        world.send(camera_topic, got["instances"], street(i, scale, things))
        world.wait(lambda i=i: all(len(m) == i + 1 for m in got.values()), "all outputs")
        table, labels = got["instances"][-1], pixels(got["panoptic"][-1])
        visible = [row for row in table.instances if row.label]
        assert [row.label for row in visible] == sorted(set(np.unique(labels)) - {0})
        assert len(visible) == 2 + len(things)
        assert (table.height, table.width) == labels.shape == (HEIGHT * scale, WIDTH * scale)
        semantic = pixels(got["semantic"][-1])
        for row in visible:
            check_row(row, labels == row.label, semantic)
        assert (semantic[labels == 0] == 255).all() and (labels == 0).any()


def check_row(row: TrackedInstance, mask: np.ndarray, semantic: np.ndarray) -> None:
    """Area, box, centroid, class and truncation, recomputed from the pixels."""
    ys, xs = np.nonzero(mask)
    box = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
    assert (row.roi.x_offset, row.roi.y_offset, row.roi.width, row.roi.height) == box
    assert row.area == mask.sum()
    assert row.centroid_x == pytest.approx(xs.mean()) and row.centroid_y == pytest.approx(ys.mean())
    assert (semantic[mask] == row.class_id).all()
    assert row.class_name == CLASSES[row.class_id].name
    assert row.is_thing == CLASSES[row.class_id].is_thing == (row.track_id > 0)
    height, width = mask.shape
    at_border = not (xs.min() and ys.min() and xs.max() < width - 1 and ys.max() < height - 1)
    assert row.truncated == at_border


def test_an_object_keeps_its_id_and_its_velocity_is_in_pixels_per_second(world, camera):
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(4):
        world.send(camera_topic, tables, street(i), step=0.1)
    cars = [[r for r in t.instances if r.class_name == "vehicle"] for t in tables]
    assert all(len(rows) == 1 for rows in cars)
    assert len({rows[0].track_id for rows in cars}) == 1
    assert [rows[0].age for rows in cars] == [1, 2, 3, 4]
    assert math.isnan(cars[0][0].velocity_x)
    assert cars[3][0].velocity_x == pytest.approx(20.0, rel=1e-3)  # 2 px in 0.1 s
    assert cars[3][0].state == TrackedInstance.CONFIRMED


def test_a_vanished_object_coasts_without_pixels(world, camera):
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(3):
        world.send(camera_topic, tables, street(i, things=(CAR,)))
    _, table = world.send(camera_topic, tables, street(3, things=()))
    (row,) = [r for r in table.instances if r.is_thing]
    assert (row.state, row.label, row.area) == (TrackedInstance.COASTED, 0, 0)


def test_a_message_is_made_only_while_somebody_listens_to_it(world, camera):
    camera_topic = world.publisher()
    names = ("instances", "panoptic", "semantic", "overlay")

    def run(number: int) -> dict[str, int]:
        """Messages made of one image."""
        before = camera.outputs.published
        camera_topic.publish(image_message(street(number), 100.0 + number))
        world.wait(lambda: camera.counts.processed == number, "inference and outputs")
        return {name: camera.outputs.published[name] - before[name] for name in names}

    assert run(1) == dict.fromkeys(names, 0)
    for number, name in enumerate(names, start=2):
        topic = name if name == "instances" else f"{name}/image"
        kind = TrackedInstanceArray if name == "instances" else Image
        full = f"/video_knet/{topic}"
        reader = world.tester.create_subscription(kind, full, lambda message: None, RELIABLE)
        world.wait(lambda topic=topic: world.subscribers(topic), "the reader")
        assert run(number) == {**dict.fromkeys(names, 0), name: 1}
        world.tester.destroy_subscription(reader)
        world.wait(lambda topic=topic: not world.subscribers(topic), "the subscriber to be gone")
    assert run(6) == dict.fromkeys(names, 0)
    _, _, values = world.report(lambda v: v["processed"] == "6")
    assert all(values[f"published {name}"] == "1" for name in names)


def test_masks_come_as_run_lengths_on_request(world, camera):
    got = collect_all(world)
    camera_topic = world.publisher()
    _, table = world.send(camera_topic, got["instances"], street(0))
    assert all(not row.rle for row in table.instances)
    assert world.set_parameter("rle", True).successful
    _, table = world.send(camera_topic, got["instances"], street(1))
    labels = pixels(world.wait(lambda: len(got["panoptic"]) == 2 and got["panoptic"], "labels")[-1])
    for row in table.instances:
        roi = row.roi
        y, x = roi.y_offset, roi.x_offset
        inside = labels[y : y + roi.height, x : x + roi.width] == row.label
        assert np.array_equal(mask_from_rle(row), inside & row.is_thing)


def test_the_opacity_of_the_overlay_follows_its_parameter(world, camera):
    tables, overlays = world.tables(), world.collect(Image, "overlay/image")
    camera_topic = world.publisher()
    image = street(2)
    for number, opacity in enumerate((0.0, 1.0), start=1):
        assert world.set_parameter("overlay_opacity", opacity).successful
        world.send(camera_topic, tables, image)
        world.wait(lambda number=number: len(overlays) == number, "an overlay")
    clear, opaque = map(pixels, overlays)
    road = (image[..., 0] == ROAD) & (np.arange(HEIGHT)[:, None] > 44)  # far from all contours
    assert np.array_equal(clear[road], image[road])
    assert (opaque[road] == CLASSES[0].color).all()


def test_messages_that_are_filled_again_do_not_change_what_was_sent(world, camera):
    got = collect_all(world)
    camera_topic = world.publisher()
    for i, scale in enumerate((1, 1, 2, 2)):
        world.send(camera_topic, got["instances"], street(2 * i, scale))
    world.wait(lambda: all(len(messages) == 4 for messages in got.values()), "all outputs")
    for name in ("panoptic", "semantic", "overlay"):
        one, two, three, four = map(pixels, got[name])
        assert one.shape == two.shape and three.shape == four.shape != two.shape
        assert not np.array_equal(one, two) and not np.array_equal(three, four)


def test_tracking_continues_without_subscribers(world, camera):
    camera_topic = world.publisher()
    for i in range(3):
        camera_topic.publish(image_message(street(i), 50 + 0.1 * i))
        world.wait(lambda i=i: camera.counts.processed > i, "inference")
    tables = world.tables()
    camera_topic.publish(image_message(street(3), 50.3))
    (table,) = world.wait(lambda: tables, "a table")
    assert table.sequence == 3
    assert {r.age for r in table.instances if r.is_thing} == {4}


def test_latency_is_from_stamp_to_publishing(world, camera):
    tables = world.tables()
    camera_topic = world.publisher()
    message = image_message(street())
    sent = Clock().now()
    message.header.stamp = sent.to_msg()
    camera_topic.publish(message)
    (table,) = world.wait(lambda: tables, "a table")
    elapsed_ms = (Clock().now() - sent).nanoseconds / 1e6
    assert 0 < table.inference_ms <= table.latency_ms <= elapsed_ms


def test_an_image_without_a_stamp_has_no_latency_but_is_tracked(world, camera):
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(3):
        camera_topic.publish(image_message(street(i), 0.0))
        world.wait(lambda i=i: len(tables) > i, "a table")
    assert all(math.isnan(t.latency_ms) for t in tables)
    assert stamps(tables) == [0, 0, 0]
    assert {r.age for r in tables[-1].instances if r.is_thing} == {3}


def test_detections_and_their_labels_come_where_vision_msgs_is_installed(world, camera):
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs is not installed")
    tables, found = world.tables(), world.collect(vision.Detection2DArray, "detections")
    message, table = world.send(world.publisher(), tables, street(1))
    (detections,) = world.wait(lambda: found, "detections")
    assert detections.header == message.header
    things = [row for row in table.instances if row.is_thing and row.label]
    names = [f"{table.tracker_epoch}/{row.track_id}" for row in things]
    assert [d.id for d in detections.detections] == names
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    labels = world.collect(vision.LabelInfo, "label_info", latched)
    (info,) = world.wait(lambda: labels, "the labels")
    assert [c.class_name for c in info.class_map] == [c.name for c in CLASSES]
