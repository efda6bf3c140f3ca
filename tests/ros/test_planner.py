"""The example planner, fed by the camera node over DDS."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import Vector3
from harness import CAR, HEIGHT, PERSON, ROAD, SKY, TIMEOUT_S, WIDTH, street
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header
from video_knet_ros.msg import (
    ClassMap,
    TrackedInstance,
    TrackedInstanceArray,
    TrackedObject,
    TrackedObjectArray,
)

from video_knet_ros.outputs import CONVERSIONS

FILE = Path(__file__).parents[2] / "examples" / "planner.py"
SPEC = importlib.util.spec_from_file_location("planner", FILE)
planner = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(planner)


# --- one pair of messages ------------------------------------------------------------------------


def instance(label: int, name: str, track_id: int = 0, bottom: int = 100) -> TrackedInstance:
    roi = RegionOfInterest(y_offset=bottom - 10, height=10)
    return TrackedInstance(label=label, class_name=name, track_id=track_id, age=4, roi=roi)


def thing(track_id: int, metres: float, *velocity: float) -> TrackedObject:
    x, y, z = velocity or (math.nan,) * 3
    velocity_message = Vector3(x=x, y=y, z=z)
    return TrackedObject(
        track_id=track_id, class_name="person", range=metres, velocity=velocity_message
    )


def described(
    labels: np.ndarray,
    *instances: TrackedInstance,
    padding: int = 0,
    order: str = "<",
    objects: tuple[TrackedObject, ...] = (),
):
    rows = labels.astype(f"{order}u2")
    padded = np.pad(rows.view(np.uint8), ((0, 0), (0, padding)), constant_values=1)
    image = Image(
        height=labels.shape[0],
        width=labels.shape[1],
        encoding="16UC1",
        is_bigendian=int(order == ">"),
        step=padded.shape[1],
        data=padded.tobytes(),
    )
    places = TrackedObjectArray(objects=objects) if objects else None
    return planner.describe(TrackedInstanceArray(instances=instances), image, places)


def road_with(*rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """100 x 100 labels of road (1) with rectangles of label, x, y, width, height."""
    labels = np.ones((100, 100), np.uint16)
    for label, x, y, width, height in rectangles:
        labels[y : y + height, x : x + width] = label
    return labels


CAR_ROW = instance(300, "vehicle", track_id=9)
ROAD_ROW = instance(1, "road")


@pytest.mark.parametrize(("padding", "order"), [(0, "<"), (6, "<"), (2, ">")])
def test_an_empty_road_is_free(padding, order):
    line = described(road_with(), ROAD_ROW, padding=padding, order=order)
    assert line == "100% of the corridor is free road, no obstacle"


def test_what_covers_the_road_is_not_free():
    labels = road_with((300, 0, 0, 100, 80))
    line = described(labels, ROAD_ROW, CAR_ROW)
    free = int(line.split("%")[0])
    assert abs(free - 57) <= 2  # of the trapezoid: 0.2 * (0.4 + 0.6) / 2 of 0.5 * (0.1 + 0.6) / 2
    assert line.endswith("nearest: vehicle 9, seen in 4 frames")


def test_beside_the_corridor_nothing_is_in_the_way():
    assert described(road_with((300, 0, 0, 15, 100)), ROAD_ROW, CAR_ROW).endswith("no obstacle")
    assert described(road_with(), instance(1, "sidewalk")).startswith("0%"), "no road either"


def test_the_nearest_stands_lowest_in_the_image():
    labels = road_with((300, 40, 50, 20, 20), (301, 40, 75, 20, 15))
    far = instance(300, "vehicle", track_id=9, bottom=70)
    near = instance(301, "person", track_id=4, bottom=90)
    for rows in ((far, near), (near, far)):
        assert "nearest: person 4," in described(labels, ROAD_ROW, *rows)


def test_coasted_tracks_and_things_without_a_track_are_no_obstacles():
    labels = road_with((300, 40, 50, 20, 20))
    rows = instance(300, "vehicle", track_id=0), instance(0, "person", track_id=4)
    assert described(labels, ROAD_ROW, *rows).endswith("no obstacle")


def test_the_nearest_is_that_of_the_smallest_range_where_ranges_are_known():
    labels = road_with((300, 40, 50, 20, 20), (301, 40, 75, 20, 15))
    lower, higher = instance(300, "person", 9, bottom=90), instance(301, "person", 4, bottom=70)
    objects = thing(9, 7.42), thing(4, 7.38, 0.9, 0.0, 1.2)
    line = described(labels, lower, higher, objects=objects)
    assert line.endswith("nearest: person 4 at 7.4 m, 1.5 m/s")


def test_an_unknown_velocity_is_left_out():
    line = described(road_with((300, 40, 50, 20, 20)), CAR_ROW, objects=(thing(9, 12.0),))
    assert line.endswith("nearest: person 9 at 12.0 m")


def test_objects_beside_the_corridor_are_no_obstacles():
    labels = road_with((300, 40, 50, 20, 20))
    line = described(labels, CAR_ROW, objects=(thing(5, 1.0),))
    assert line.endswith("nearest: vehicle 9, seen in 4 frames")


# --- pairs by stamp ------------------------------------------------------------------------------

LATCHED = QoSProfile(depth=30, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def node(world):
    return world.add(planner.Planner())


@pytest.fixture
def send(world, node):
    """Sends the table or the labels of a stamp."""
    topics = {
        planner.TABLE: world.tester.create_publisher(TrackedInstanceArray, planner.TABLE, LATCHED),
        planner.LABELS: world.tester.create_publisher(Image, planner.LABELS, LATCHED),
        planner.OBJECTS: world.tester.create_publisher(
            TrackedObjectArray, planner.OBJECTS, LATCHED
        ),
    }
    for topic in topics.values():
        world.wait(topic.get_subscription_count, "the planner")

    obstacle = instance(1, "vehicle", track_id=9)  # of all pixels

    def send(topic: str, second: int) -> None:
        header = Header(stamp=CONVERSIONS.time_message(second * 10**9))
        if topic == planner.LABELS:
            message = CONVERSIONS.image_message(header, "16UC1", np.ones((10, 10), np.uint16))
        elif topic == planner.OBJECTS:
            message = TrackedObjectArray(header=header, objects=[thing(9, 5.0)])
        else:
            message = TrackedInstanceArray(header=header, instances=[obstacle])
        topics[topic].publish(message)

    return send


def lines(capfd) -> list[str]:
    return [x for x in capfd.readouterr().out.splitlines() if "free road" in x]


def wait_for_seconds(world, capfd, expected: list[int]) -> None:
    got: list[str] = []
    world.wait(lambda: got.extend(lines(capfd)) or len(got) >= len(expected), "the planner's lines")
    assert [int(x.split(".")[0]) for x in got] == expected


@pytest.mark.parametrize("first", [planner.TABLE, planner.LABELS])
def test_it_pairs_by_stamp_whatever_comes_first(world, node, send, capfd, first):
    second = planner.LABELS if first == planner.TABLE else planner.TABLE
    for stamp in (1, 2, 3):
        send(first, stamp)
    world.wait(lambda: len(node._waiting[first]) == 3, "the first of each pair")
    for stamp in (3, 1):
        send(second, stamp)
    wait_for_seconds(world, capfd, [3, 1])
    assert list(node._waiting[first]) == [(2, 0)] and not node._waiting[second]


def receive(world, node, send, topic: str, second: int) -> None:
    """Send a message that has to wait, until the planner has it."""
    send(topic, second)
    world.wait(lambda: (second, 0) in node._waiting[topic], "the message")


def test_a_pair_waits_for_its_objects_while_they_come(world, node, send, capfd):
    receive(world, node, send, planner.OBJECTS, 1)
    for second in (1, 2, 3, 4):
        receive(world, node, send, planner.TABLE, second)
    send(planner.LABELS, 1)
    world.wait(lambda: (1, 0) not in node._waiting[planner.TABLE], "the first line")
    receive(world, node, send, planner.LABELS, 2)
    assert len(lines(capfd)) == 1, "the second pair should wait"
    send(planner.OBJECTS, 2)
    world.wait(lambda: (2, 0) not in node._waiting[planner.TABLE], "the second line")
    receive(world, node, send, planner.LABELS, 3)
    send(planner.LABELS, 4)  # no objects came for the third, so none are expected any more
    got: list[str] = []
    world.wait(lambda: got.extend(lines(capfd)) or len(got) >= 3, "the planner's lines")
    ends = [line.partition("nearest: ")[2] for line in got]
    assert ends == ["person 9 at 5.0 m", *["vehicle 9, seen in 4 frames"] * 2]


def test_objects_without_a_pair_are_forgotten(world, node, send):
    for second in range(1, 14):
        receive(world, node, send, planner.OBJECTS, second)
    assert [sec for sec, _ in node._waiting[planner.OBJECTS]] == list(range(4, 14))


@pytest.mark.parametrize("alone", [planner.TABLE, planner.LABELS])
def test_messages_that_wait_in_vain_are_forgotten(world, node, send, capfd, alone):
    for second in range(1, 26):
        send(alone, second)
        world.wait(lambda s=second: (s, 0) in node._waiting[alone], "the message")
    assert [sec for sec, _ in node._waiting[alone]] == list(range(16, 26))
    other = planner.LABELS if alone == planner.TABLE else planner.TABLE
    for second in (1, 25):  # the first one is forgotten
        send(other, second)
    wait_for_seconds(world, capfd, [25])


def test_a_topic_without_publishers_is_named(world, node, capfd):
    world.tester.create_publisher(Image, planner.LABELS, LATCHED)
    world.wait(lambda: node.count_publishers(planner.LABELS), "the publisher")
    node._look_for_publishers()
    err = capfd.readouterr().err
    assert f"no publisher of {planner.TABLE}" in err and planner.LABELS not in err


def test_a_model_without_instances_is_reported(world, node, capfd):
    for topic, kind in ((planner.CLASSES, ClassMap), ("/video_knet/semantic/image", Image)):
        world.tester.create_publisher(kind, topic, LATCHED)
    world.wait(lambda: node.count_publishers(planner.CLASSES), "the publisher")
    node._look_for_publishers()
    expected = f"no publisher of {planner.TABLE}: a model of task semantic has no instances"
    assert expected in capfd.readouterr().err


# --- with the camera node ------------------------------------------------------------------------


def test_it_reports_free_road_and_obstacle(world, node, capfd):
    world.camera_node()
    tables = world.tables()
    world.wait(lambda: world.subscribers("panoptic/image"), "the planner to be matched")
    camera = world.publisher()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:16, :, 0] = SKY
    pixels[16:, :, 0] = ROAD
    pixels[26:34, 44:52, 0] = PERSON
    pixels[30:42, 4:16, 0] = CAR  # nearer, but beside the corridor
    _, table = world.send(camera, tables, pixels)
    person = next(i for i in table.instances if i.class_name == "person")
    got: list[str] = []
    world.wait(lambda: got.extend(lines(capfd)) or got, "a line of the planner")
    assert got[0].endswith(f"nearest: person {person.track_id}, seen in 1 frames")
    assert 80 <= int(got[0].split(": ")[1].split("%")[0]) < 100


@pytest.mark.slow
def test_the_file_runs_as_a_program(world, tmp_path):
    world.camera_node()
    out = tmp_path / "out"
    with out.open("w") as file:
        process = subprocess.Popen([sys.executable, FILE], stdout=file, env=os.environ.copy())
    try:
        camera = world.publisher()
        tables = world.tables()
        # what is sent before the node and the planner know of each other is lost
        world.wait(
            lambda: world.send(camera, tables, street(0)) and len(out.read_text().splitlines()) > 2,
            "three lines",
        )
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
    assert "of the corridor is free road" in out.read_text()
