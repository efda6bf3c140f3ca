"""What the camera node publishes in metres, over DDS: one painted thing at a known place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from harness import BEST_EFFORT, CAR, HEIGHT, PERSON, ROAD, SKY, WIDTH, World
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from video_knet_ros.msg import TrackedObject
from visualization_msgs.msg import Marker

from video_knet_core.data.frame_source import Intrinsics
from video_knet_core.messages import view_messages
from video_knet_core.messages.topics import outputs_of
from video_knet_core.spatial.inputs import ALIVE_NS
from video_knet_core.spatial.settings import SpatialSettings
from video_knet_core.tasks import TASKS
from video_knet_ros import diagnostics, node, spatial_inputs
from video_knet_ros.deferred import DeferredPublisher
from video_knet_ros.outputs import CONVERSIONS, has_type

SIZE = HEIGHT, WIDTH
FOCAL = 50.0
LENS = Intrinsics(FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
FAR, NEAR = 20.0, 5.0
"""Metres along the optical axis: of the background and of the thing."""
TOP, LEFT, SIDE = 20, 60, 12
"""Pixels: the square of the thing; the road begins below it."""
PLACE = (
    (LEFT + (SIDE - 1) / 2 - LENS.cx) / FOCAL * NEAR,
    (TOP + (SIDE - 1) / 2 - LENS.cy) / FOCAL * NEAR,
    NEAR,
)
"""Metres to the right, down and ahead: the middle of the thing."""
STEP = 100_000_000
"""Nanoseconds between two images."""
OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Axes of a camera that looks along x, in a frame with z up."""
INPUTS = ("camera_info", "depth", "depth/compressed", "depth/camera_info", "cloud", "odometry")
TICK = DeferredPublisher.tick
WITH_TF = has_type("tf2_msgs/msg/TFMessage")
needs_tf = pytest.mark.skipif(not WITH_TF, reason="tf2_msgs is not installed")


class Rig:
    """A camera node, and a camera that sends it images and what belongs to them."""

    def __init__(self, world: World, received: Counter[str]) -> None:
        self.world, self.received = world, received
        self.stamp = world.tester.get_clock().now().nanoseconds
        """Of the next image [ns]."""
        self.got: dict[str, list] = {}
        """Messages of the outputs that are collected, by name."""
        self._publishers: dict[str, Any] = {}

    def start(self, *outputs: str, **parameters: Any) -> Any:
        """The node, once these outputs are collected, and the instances."""
        # the images of a slow test are no late ones
        limits = {"warn_after_s": 3600.0, "error_after_s": 3600.0}
        self.node = self.world.camera_node(**{**limits, **parameters})
        self._images = self.world.publisher()
        for name in ("instances", *outputs):
            self.collect(name)
        return self.node

    def collect(self, name: str) -> list:
        """The messages of an output from now on."""
        masks = self.node.get_parameter("mask_classes").value
        output = outputs_of(TASKS["panoptic"], self.node.outputs.classes, masks)[name]
        got = self.got[name] = []
        kind, topic = CONVERSIONS.find(output.type), f"/video_knet/{output.topic}"
        subscription = self.world.tester.create_subscription(kind, topic, got.append, 10)
        self.world.wait(lambda: self.node.outputs.subscribers[name], f"the subscriber of {name}")
        self.stop = partial(self.world.tester.destroy_subscription, subscription)
        """Ends the last subscription."""
        return got

    def header(self, frame_id: str = "camera") -> Header:
        return Header(stamp=CONVERSIONS.time_message(self.stamp), frame_id=frame_id)

    def give(self, topic: str, message: Any) -> None:
        """Send an input, and wait until the node has used it."""
        self.publish_input(topic, message)
        self._collect_published()

    def publish_input(self, topic: str, message: Any) -> None:
        """Send an input, and wait until the node has it."""
        if topic not in self._publishers:
            self._publishers[topic] = self._publisher(topic, type(message))
        before = self.received[topic]
        self._publishers[topic].publish(message)
        self.world.wait(lambda: self.received[topic] > before, f"{topic} to arrive")

    def _publisher(self, topic: str, kind: type) -> Any:
        if not topic.startswith("/tf"):
            return self.world.publisher(topic=topic, kind=kind)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        profile = latched if topic == "/tf_static" else QoSProfile(depth=10)
        publisher = self.world.tester.create_publisher(kind, topic, profile)
        self.world.wait(publisher.get_subscription_count, "the subscription")
        return publisher

    def see(self, pixels: np.ndarray, frame_id: str = "camera") -> dict[str, Any]:
        """Send an image: what is collected of it, by name; None of what is not published."""
        before = {name: len(got) for name, got in self.got.items()}
        self.send(pixels, frame_id)
        return {n: got[-1] if len(got) > before[n] else None for n, got in self.got.items()}

    def send(self, pixels: np.ndarray, frame_id: str = "camera") -> None:
        """Send an image, and wait for its results."""
        self.publish(pixels, frame_id)
        self.finish()

    def publish(self, pixels: np.ndarray, frame_id: str = "camera") -> None:
        """Send an image."""
        self._number = self.node.counts.processed + 1
        header = self.header(frame_id)
        self._images.publish(CONVERSIONS.image_message(header, "rgb8", pixels))
        self.stamp += STEP

    def finish(self) -> None:
        """Wait for the results of an image."""
        counts = self.node.counts
        done = lambda: counts.processed == self._number and counts.begun is None  # noqa: E731
        self.world.wait(done, "the results")
        self._collect_published()

    def _collect_published(self) -> None:
        """Wait for all that is published of what has been sent."""
        publishing = self.node._deferred._job
        self.world.wait(lambda: publishing is None or publishing.done(), "the frame that waited")
        published = self.node.outputs.published
        for name, got in self.got.items():
            self.world.wait(lambda n=name, g=got: len(g) >= published[n], name)  # noqa: B023

    def give_up_waiting(self) -> None:
        """Publish the frame that waits, as the node does when no image has come since."""
        for _ in range(2):
            TICK(self.node._deferred)
        published = self.node._submit(lambda: None)
        self.world.wait(published.done, "the frame that waited")

    def pause(self) -> None:
        """Time without images, after which the node does not wait for depth."""
        self.stamp += ALIVE_NS - STEP  # tracks are predicted for as long

    def reason(self, words: str = "") -> str:
        """Message of the next diagnostics that say why the last frame has no metres."""
        self.give_up_waiting()
        warn = DiagnosticStatus.WARN
        return self.world.report(lambda v: v["reason"] == "no_metres", warn, words)[1]

    def calibrate(self, topic: str = "camera_info", **change: Any) -> None:
        """Send the camera info of the images."""
        info = view_messages.camera_info(CONVERSIONS, self.header(), LENS, SIZE)
        for name, value in change.items():
            setattr(info, name, value)
        self.give(topic, info)

    def see_depth(self, pixels: np.ndarray, near: float = NEAR) -> dict[str, Any]:
        """`see`, with an aligned depth image."""
        self.give("depth", depth_message(self.header(), depth_of(pixels, near)))
        return self.see(pixels)


@pytest.fixture
def rig(world, monkeypatch):
    received: Counter[str] = Counter()

    def counting(row: Any) -> Any:
        def take(inputs: Any, message: Any) -> None:
            row.take(inputs, message)
            received[row.topic.removeprefix("~/")] += 1

        return row._replace(take=take)

    # a frame waits for its depth, however slow the test is
    monkeypatch.setattr(DeferredPublisher, "tick", lambda _: None)
    for module, name in ((node, "GRAPH_PERIOD_S"), (diagnostics, "PERIOD_S")):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(spatial_inputs, "_INPUTS", tuple(map(counting, spatial_inputs._INPUTS)))
    return Rig(world, received)


def scene(thing: int = PERSON, left: int = LEFT) -> np.ndarray:
    """Sky, road and one thing that stands on it."""
    image = np.zeros((*SIZE, 3), np.uint8)
    image[:16, :, 0], image[TOP + SIDE :, :, 0] = SKY, ROAD
    image[TOP : TOP + SIDE, left : left + SIDE, 0] = thing
    return image


def depth_of(pixels: np.ndarray, near: float = NEAR) -> np.ndarray:
    """[H, W] metres: the thing is nearer than all else."""
    is_thing = np.isin(pixels[..., 0], (PERSON, CAR))
    return np.where(is_thing, near, FAR).astype(np.float32)


def points_of(depth: np.ndarray) -> np.ndarray:
    """[H, W, 3] in the frame of the camera."""
    v, u = np.indices(depth.shape)
    rays = np.stack([(u - LENS.cx) / LENS.fx, (v - LENS.cy) / LENS.fy, np.ones_like(u)], axis=2)
    return (rays * depth[..., None]).astype(np.float32)


def depth_message(header: Header, depth: np.ndarray) -> Image:
    return view_messages.depth_image(CONVERSIONS, header, depth)


def millimetres(header: Header, depth: np.ndarray) -> Image:
    return CONVERSIONS.image_message(header, "16UC1", np.rint(1000 * depth).astype("<u2"))


def compressed(header: Header, depth: np.ndarray) -> CompressedImage:
    """As image_transport_plugins compress it."""
    _, png = cv2.imencode(".png", np.rint(1000 * depth).astype(np.uint16))
    data = bytes(12) + png.tobytes()
    return CompressedImage(header=header, format="16UC1; compressedDepth png", data=data)


def cloud_message(header: Header, points: np.ndarray) -> PointCloud2:
    """Cloud of points [H, W, 3]."""
    height, width, _ = points.shape
    fields = [PointField(name=n, offset=4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    return PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=fields,
        point_step=12,
        row_step=12 * width,
        data=np.ascontiguousarray(points, "<f4").tobytes(),
        is_dense=False,
    )


def pose(rotation: np.ndarray | None = None, offset: Any = (0.0, 0.0, 0.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.eye(3) if rotation is None else rotation, offset
    return matrix


def odometry(header: Header, child: str, matrix: np.ndarray) -> Odometry:
    return view_messages.odometry(CONVERSIONS, header, child, matrix, np.zeros(6))


def transforms(header: Header, child: str, matrix: np.ndarray) -> Any:
    """TFMessage of one transform."""
    one: TransformStamped = view_messages.transform(CONVERSIONS, header, child, matrix)
    return CONVERSIONS.find("tf2_msgs/msg/TFMessage")(transforms=[one])


def place(thing: TrackedObject) -> tuple[float, float, float]:
    return thing.position.x, thing.position.y, thing.position.z


def speed(thing: TrackedObject) -> tuple[float, float, float]:
    return thing.velocity.x, thing.velocity.y, thing.velocity.z


# --- the place of a thing, by every form of depth


def _organised(rig: Rig, depth: np.ndarray) -> None:
    points = points_of(depth)
    points[:, ::7] = np.nan
    rig.give("cloud", cloud_message(rig.header(), points))


def _unorganised(rig: Rig, depth: np.ndarray) -> None:
    points = np.random.default_rng(0).permutation(points_of(depth).reshape(-1, 3))
    behind = points * [1, 1, -1]
    rig.give("cloud", cloud_message(rig.header(), np.concatenate([points, behind])[None]))


def _of_lidar(rig: Rig, depth: np.ndarray, topic: str) -> None:
    """A lidar 1 m above the camera, with x ahead and z up."""
    camera_in_lidar = pose(OPTICAL, (0.0, 0.0, -1.0))
    points = points_of(depth) @ OPTICAL.T + camera_in_lidar[:3, 3]
    header = rig.header("lidar")
    if topic == "odometry":
        rig.give(topic, odometry(header, "camera", camera_in_lidar))
    else:
        header.stamp.sec = 0  # whatever it is
        rig.give(topic, transforms(header, "camera", camera_in_lidar))
    rig.give("cloud", cloud_message(rig.header("lidar"), points))


def _of_depth_camera(rig: Rig, depth: np.ndarray) -> None:
    """A depth camera of half the resolution and another field of view, 0.2 m to the right."""
    lens, offset = Intrinsics(40.0, 40.0, 40.0, 40.0), 0.2
    seen = np.full((80, 80), FAR, np.float32)
    u, v = ((np.array(PLACE[:2]) - [offset, 0]) * lens.fx / NEAR + 40).round().astype(int)
    seen[v - 4 : v + 5, u - 4 : u + 5] = NEAR
    header = rig.header("depth_camera")
    rig.give("odometry", odometry(rig.header(), "depth_camera", pose(offset=(offset, 0, 0))))
    info = view_messages.camera_info(CONVERSIONS, header, lens, seen.shape)
    rig.give("depth/camera_info", info)
    rig.give("depth", depth_message(header, seen))


def _of_other_aspect(rig: Rig, depth: np.ndarray) -> None:
    """Depth in the frame of the camera, with rows above and below those of the image."""
    taller = np.pad(depth, ((12, 12), (0, 0)), constant_values=FAR)
    lens = LENS.__class__(LENS.fx, LENS.fy, LENS.cx, LENS.cy + 12)
    info = view_messages.camera_info(CONVERSIONS, rig.header(), lens, taller.shape)
    rig.give("depth/camera_info", info)
    rig.give("depth", depth_message(rig.header(), taller))


Form = Callable[[Rig, np.ndarray], None]
FORMS: dict[str, tuple[int, Form]] = {
    "metres": (1, lambda rig, depth: rig.give("depth", depth_message(rig.header(), depth))),
    "millimetres": (1, lambda rig, depth: rig.give("depth", millimetres(rig.header(), depth))),
    "compressedDepth": (
        1,
        lambda rig, depth: rig.give("depth/compressed", compressed(rig.header(), depth)),
    ),
    "half the size": (
        1,
        lambda rig, depth: rig.give("depth", depth_message(rig.header(), depth[::2, ::2])),
    ),
    "another aspect": (1, _of_other_aspect),
    "another camera": (1, _of_depth_camera),
    "organised cloud": (2, _organised),
    "unorganised cloud": (2, _unorganised),
    "cloud of another frame": (2, partial(_of_lidar, topic="odometry")),
}


@pytest.mark.parametrize(
    "form",
    [
        *FORMS,
        pytest.param("lidar", marks=needs_tf),
    ],
)
def test_a_thing_is_at_its_place_by_every_form_of_depth(rig, form):
    source, give = {**FORMS, "lidar": (2, partial(_of_lidar, topic="/tf_static"))}[form]
    rig.start("objects", point_stride=1)
    rig.calibrate()
    pixels = scene()
    give(rig, depth_of(pixels))
    found = rig.see(pixels)
    (thing,), (row,) = (
        found["objects"].objects,
        [r for r in found["instances"].instances if r.is_thing],
    )
    assert found["objects"].header == found["instances"].header
    assert found["objects"].tracker_epoch == found["instances"].tracker_epoch
    assert (thing.track_id, thing.class_name, thing.state) == (row.track_id, "person", row.state)
    assert place(thing) == pytest.approx(PLACE, abs=0.12)
    assert (thing.source, thing.predicted) == (source, False) and thing.points >= 6
    assert thing.range == pytest.approx(math.dist(PLACE, (0, 0, 0)), abs=0.1)
    assert 0.5 < thing.size.x < 1.2 and 0.5 < thing.size.y < 1.2  # without the border of the mask


PITCH = 10.0
HEIGHT_M = 1.5


def standing(pitch: float) -> tuple[float, float, float]:
    """Where the thing stands, seen by a camera that looks `pitch` degrees down: at half height."""
    angle = math.radians(pitch)
    normal = np.array([0, math.cos(angle), math.sin(angle)])
    foot = (TOP + SIDE - 0.5 - LENS.cy) / FOCAL
    ray = np.array([PLACE[0] / NEAR, foot, 1])
    z = HEIGHT_M / (ray @ normal)
    return tuple(ray * z - normal * SIDE / FOCAL * z / 2)


@pytest.mark.parametrize("pitch", [0.0, PITCH])
def test_a_thing_stands_on_the_ground_below_a_camera_of_known_height(rig, pitch):
    rig.start("objects", camera_height_m=HEIGHT_M, camera_pitch_deg=pitch)
    rig.calibrate()
    (thing,) = rig.see(scene())["objects"].objects
    assert place(thing) == pytest.approx(standing(pitch), abs=0.1)
    assert (thing.source, thing.points, thing.predicted) == (TrackedObject.SOURCE_GROUND, 0, False)
    wide, _, x = (SIDE / FOCAL * thing.position.z, 0, PLACE[0] / NEAR * thing.position.z)
    assert thing.size.x == pytest.approx(wide, rel=0.1) and thing.position.x == pytest.approx(
        x, 0.1
    )


GROUND_TOPICS = ["odometry", pytest.param("/tf", marks=needs_tf)]


def give_pose(rig: Rig, topic: str, parent: str, child: str, matrix: np.ndarray) -> None:
    """The pose of `child` in `parent` now."""
    make = odometry if topic == "odometry" else transforms
    rig.give(topic, make(rig.header(parent), child, matrix))


@pytest.mark.parametrize("topic", GROUND_TOPICS)
def test_the_ground_may_be_a_frame(rig, topic):
    rig.start("objects", ground_frame="base_footprint")
    rig.calibrate()
    angle = math.radians(PITCH)
    turn = np.array(
        [[1, 0, 0], [0, math.cos(angle), math.sin(angle)], [0, -math.sin(angle), math.cos(angle)]]
    )
    camera = pose(OPTICAL @ turn, (0.4, 0.0, HEIGHT_M))
    give_pose(rig, topic, "base_footprint", "camera", camera)
    (thing,) = rig.see(scene())["objects"].objects
    assert place(thing) == pytest.approx(standing(PITCH), abs=0.1)
    assert thing.source == TrackedObject.SOURCE_GROUND


def test_depth_is_preferred_to_a_cloud_and_that_to_the_ground(rig):
    rig.start("objects", camera_height_m=HEIGHT_M, depth_tolerance_ms=0.0, cloud_tolerance_ms=0.0)
    rig.calibrate()
    pixels, sources = scene(), []
    for inputs in (["cloud", "depth"], ["cloud"], []):
        rig.pause()
        for name in inputs:
            make = depth_message if name == "depth" else cloud_message
            values = depth_of(pixels) if name == "depth" else points_of(depth_of(pixels))
            rig.give(name, make(rig.header(), values))
        (thing,) = rig.see(pixels)["objects"].objects
        sources.append(thing.source)
    assert sources == [1, 2, 3]


# --- only while an output in metres has subscribers


def subscribed(rig: Rig) -> list[str]:
    """The inputs that the node is subscribed to."""
    topics = {name: f"/video_knet/{name}" for name in INPUTS}
    topics |= {name: name for name in ("/tf", "/tf_static")}
    return [n for n, topic in topics.items() if rig.world.tester.count_subscribers(topic)]


def test_inputs_are_subscribed_only_while_an_output_in_metres_has_subscribers(rig):
    rig.start()
    rig.see(scene())
    _, _, values = rig.world.report(lambda v: v["processed"] == "1")
    assert not subscribed(rig) and not [key for key in values if key.startswith("metres")]
    rig.collect("objects")
    everything = [*INPUTS, *(["/tf", "/tf_static"] if WITH_TF else [])]
    rig.world.wait(lambda: subscribed(rig) == everything, "the subscriptions")
    rig.calibrate()
    rig.see_depth(scene())
    rig.world.report(lambda v: v.get("metres: depth used") == v.get("metres: objects used") == "1")
    rig.stop()
    del rig.got["objects"]
    rig.world.wait(lambda: not subscribed(rig), "the subscriptions to end")
    rig.see(scene())
    assert rig.node.outputs.published["objects"] == 1
    rig.world.report(lambda v: not any(key.startswith("metres") for key in v))


def test_compressed_depth_is_used_only_while_there_is_no_raw_depth(rig):
    rig.start("objects")
    rig.world.wait(lambda: "depth/compressed" in subscribed(rig), "the subscription")
    raw = rig.world.publisher(BEST_EFFORT, "depth")  # as most sensors send it
    rig.world.wait(lambda: "depth/compressed" not in subscribed(rig), "the end of it")
    rig.calibrate()
    raw.publish(depth_message(rig.header(), depth_of(scene())))
    rig.world.wait(lambda: rig.received["depth"], "depth")
    assert rig.see(scene())["objects"].objects
    rig.world.tester.destroy_publisher(raw)
    rig.world.wait(lambda: "depth/compressed" in subscribed(rig), "the subscription")


@pytest.mark.parametrize("how", ["deactivate", "enabled"])
def test_a_node_that_does_nothing_has_no_inputs(rig, how):
    rig.start("objects")
    rig.world.wait(lambda: "depth" in subscribed(rig), "the subscriptions")
    if how == "enabled":
        assert rig.world.set_parameter("enabled", False).successful
    else:
        assert rig.world.transition("deactivate")
    rig.world.wait(lambda: not subscribed(rig), "the subscriptions to end")


def test_inputs_are_used_again_after_another_activation(rig):
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    assert rig.world.transition("deactivate") and rig.world.transition("activate")
    rig.world.wait(lambda: "depth" in subscribed(rig), "the subscriptions")
    # what has come before it is forgotten
    assert rig.see(scene())["objects"] is None
    rig.calibrate()
    (thing,) = rig.see_depth(scene())["objects"].objects
    assert place(thing) == pytest.approx(PLACE, abs=0.12)


# --- inputs that are late, missing, faulty or do not fit


def _of_another_time(rig: Rig) -> None:
    header = rig.header()
    header.stamp = CONVERSIONS.time_message(rig.stamp + STEP)
    rig.give("depth", depth_message(header, depth_of(scene())))


def _wrong_encoding(rig: Rig) -> None:
    rig.give("depth", CONVERSIONS.image_message(rig.header(), "rgb8", scene()))


def _truncated(rig: Rig) -> None:
    message = depth_message(rig.header(), depth_of(scene()))
    message.data = message.data[:-4]
    rig.give("depth", message)


def _empty(rig: Rig) -> None:
    rig.give("depth", Image(header=rig.header(), encoding="32FC1"))


def _damaged(rig: Rig) -> None:
    message = compressed(rig.header(), depth_of(scene()))
    message.data = message.data[:60]
    rig.give("depth/compressed", message)


def _jpeg(rig: Rig) -> None:
    _, data = cv2.imencode(".jpg", scene())
    rig.give(
        "depth/compressed", CompressedImage(header=rig.header(), format="jpeg", data=data.tobytes())
    )


def _unregistered(rig: Rig) -> None:
    """Depth of 64 x 64 pixels, without its camera info."""
    rig.give("depth", depth_message(rig.header(), np.full((64, 64), NEAR, np.float32)))


def _uncalibrated_depth(rig: Rig) -> None:
    rig.calibrate("depth/camera_info", k=np.zeros(9))
    _unregistered(rig)


def _depth_elsewhere(rig: Rig) -> None:
    rig.give("depth", depth_message(rig.header("depth_camera"), depth_of(scene())))


def _cloud_elsewhere(rig: Rig) -> None:
    rig.give("cloud", cloud_message(rig.header("lidar"), points_of(depth_of(scene()))))


def _cloud_without_axes(rig: Rig) -> None:
    message = cloud_message(rig.header(), points_of(depth_of(scene())))
    message.fields = message.fields[:2]
    rig.give("cloud", message)


def _cloud_too_short(rig: Rig) -> None:
    message = cloud_message(rig.header(), points_of(depth_of(scene())))
    message.width += 1
    rig.give("cloud", message)


FAULTS: dict[str, tuple[str, Callable[[Rig], None]]] = {
    "of another time": (
        "depth: expected depth within 20 ms of the image, got one 100.0 ms away",
        _of_another_time,
    ),
    "wrong encoding": ("depth: encoding: expected one of 16UC1", _wrong_encoding),
    "truncated": ("depth: depth image: wrong amount of data", _truncated),
    "empty": ("depth: depth image: empty image", _empty),
    "unregistered": (
        "depth: expected depth aligned to the image of 'camera', or the ",
        _unregistered,
    ),
    "uncalibrated": ("depth camera info: k: expected focal lengths", _uncalibrated_depth),
    "depth of an unknown frame": (
        "depth: expected a transform from 'depth_camera'",
        _depth_elsewhere,
    ),
    "cloud of an unknown frame": ("cloud: expected a transform from 'lidar'", _cloud_elsewhere),
    "cloud without axes": ("cloud: fields: expected x, y and z", _cloud_without_axes),
    "cloud too short": ("cloud: row_step: expected", _cloud_too_short),
}
COMPRESSED_FAULTS: dict[str, tuple[str, Callable[[Rig], None]]] = {
    "damaged": ("depth: ", _damaged),
    "jpeg": ("depth: format: expected compressedDepth", _jpeg),
}


def test_the_result_in_the_image_does_not_wait_for_depth(rig):
    rig.start("objects", "semantic", semantic_size="cloud")
    rig.calibrate()
    rig.see_depth(scene())
    found = rig.see(scene())
    assert found["instances"] and found["semantic"] and found["objects"] is None


def test_the_class_image_comes_whatever_the_size_of_faulty_depth(rig):
    rig.start("semantic", semantic_size="cloud", point_stride=1)
    for height, width in ((0, 0), (0, 4), (4, 0), (10**5, 10**5), (2**31, 1)):
        image = Image(header=rig.header(), encoding="32FC1", height=height, width=width)
        rig.give("depth", image)
        assert rig.see(scene())["semantic"].width == WIDTH
    rig.give("cloud", PointCloud2(header=rig.header(), height=10**5, width=10**5))
    assert rig.see(scene())["semantic"].width == WIDTH


def test_a_frame_waits_for_depth_that_comes_after_the_image(rig):
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    for _ in range(3):
        message = depth_message(rig.header(), depth_of(scene()))
        assert rig.see(scene())["objects"] is None
        rig.give("depth", message)
        last = rig.got["objects"][-1]
        assert last.header.stamp == message.header.stamp
        assert not last.objects[0].predicted


def test_a_frame_waits_until_the_next_one_at_most(rig):
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    stamp = rig.header().stamp
    assert rig.see(scene())["objects"] is None
    rig.see(scene())
    last = rig.got["objects"][-1]
    assert last.header.stamp == stamp and last.objects[0].predicted
    assert "depth: " in rig.reason()


def test_a_frame_waits_no_longer_when_no_image_follows(rig, monkeypatch):
    monkeypatch.setattr(DeferredPublisher, "tick", TICK)
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    stamp = rig.header().stamp
    rig.send(scene())
    rig.world.wait(lambda: rig.got["objects"][-1].header.stamp == stamp, "the frame that waited")
    assert rig.got["objects"][-1].objects[0].predicted


def test_a_frame_waits_for_its_own_depth_while_that_of_the_last_one_comes(rig):
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    first = depth_message(rig.header(), depth_of(scene()))
    rig.see(scene())
    second = depth_message(rig.header(), depth_of(scene()))
    (engine,) = rig.world.runtimes
    engine.gate.clear()
    rig.publish(scene())
    rig.world.wait(lambda: rig.node.counts.begun, "the step to begin")
    rig.publish_input("depth", first)  # which comes during the step
    engine.gate.set()
    rig.finish()
    rig.give("depth", second)
    found = rig.got["objects"]
    assert [m.header.stamp for m in found[1:]] == [first.header.stamp, second.header.stamp]
    assert not any(m.objects[0].predicted for m in found)


@pytest.mark.parametrize("setting", ["target_frame", "ground_frame"])
def test_a_frame_waits_for_the_pose_that_comes_after_the_image(rig, setting):
    rig.start("objects", **{setting: "odom"})
    rig.calibrate()
    see = rig.see if setting == "ground_frame" else rig.see_depth
    camera = pose(OPTICAL, (0, 0, HEIGHT_M))
    give_pose(rig, "odometry", "odom", "camera", camera)
    assert see(scene())["objects"].objects
    stamp = rig.header().stamp
    message = odometry(rig.header("odom"), "camera", camera)
    assert see(scene())["objects"] is None
    rig.give("odometry", message)
    last = rig.got["objects"][-1]
    assert last.header.stamp == stamp and not last.objects[0].predicted


def test_a_frame_that_waits_is_forgotten_when_the_node_is_deactivated(rig):
    rig.start("objects")
    rig.calibrate()
    rig.see_depth(scene())
    rig.see(scene())
    assert rig.world.transition("deactivate") and rig.world.transition("activate")
    rig.world.wait(lambda: "depth" in subscribed(rig), "the subscriptions")
    rig.calibrate()
    stamp = rig.header().stamp
    rig.see_depth(scene())
    assert [m.header.stamp for m in rig.got["objects"][1:]] == [stamp]


@pytest.mark.parametrize("topic", ["depth", "depth/compressed"])  # one of them is subscribed
def test_a_faulty_input_is_reported_and_the_place_is_predicted(rig, topic):
    make, faults = {
        "depth": (depth_message, FAULTS),
        "depth/compressed": (compressed, COMPRESSED_FAULTS),
    }[topic]
    rig.start("objects", depth_tolerance_ms=20.0)
    rig.calibrate()
    for fault, (words, give) in faults.items():  # with one node, which takes time to start
        rig.give(topic, make(rig.header(), depth_of(scene())))
        rig.see(scene())
        rig.pause()
        give(rig)
        found = rig.see(scene())
        (row,) = (r for r in found["instances"].instances if r.is_thing)
        assert row.label, fault
        (thing,) = found["objects"].objects
        assert thing.track_id == row.track_id, fault
        assert (thing.predicted, thing.source, thing.points) == (True, 0, 0), fault
        assert place(thing) == pytest.approx(PLACE, abs=0.12), fault
        assert words in rig.reason(words)


def test_a_reason_goes_when_the_input_can_be_used_again(rig):
    rig.start("points", "objects")
    rig.calibrate()
    _truncated(rig)
    rig.see(scene())
    assert "depth: " in rig.reason()
    for _ in range(2):
        rig.see_depth(scene())
    rig.world.report(lambda v: v["reason"] == "")


def test_a_reason_goes_when_the_input_is_not_needed_any_more(rig):
    rig.start("objects", ground_frame="base_footprint")
    rig.calibrate()
    rig.see(scene())
    assert "ground: " in rig.reason()
    assert rig.world.set_parameter("ground_frame", "").successful
    for _ in range(2):
        rig.see_depth(scene())
    rig.world.report(lambda v: v["reason"] == "")


def test_a_faulty_transform_is_reported_while_it_comes(rig):
    rig.start("objects")
    rig.calibrate()
    message = odometry(rig.header("odom"), "camera", np.eye(4))
    message.pose.pose.position.x = math.nan
    rig.give("odometry", message)
    rig.see_depth(scene())
    assert "transforms: 'camera' in 'odom': expected translation" in rig.reason()
    for _ in range(2):
        rig.see_depth(scene())
    rig.world.report(lambda v: v["reason"] == "")


CAMERA_FAULTS: dict[str, tuple[str, Callable[[Rig], None]]] = {
    "none": ("objects: no camera info has come", lambda rig: None),
    "not calibrated": (
        "objects: camera info: k: expected focal lengths of at least 1 pixel, got [0.0, 0.0]",
        lambda rig: rig.calibrate(k=np.zeros(9)),
    ),
    "NaN": ("objects: camera info: k: expected", lambda rig: rig.calibrate(k=np.full(9, np.nan))),
    "another aspect": (
        "objects: camera info: expected the aspect of the image, 96 x 48, got 64 x 48",
        lambda rig: rig.calibrate(width=64),
    ),
    "unknown distortion": (
        "objects: camera info: distortion_model: expected one of",
        lambda rig: rig.calibrate(distortion_model="fov", d=[0.1]),
    ),
}


def test_there_are_no_objects_without_a_camera_info_that_fits(rig):
    rig.start("objects", "points")
    for fault, (words, give) in CAMERA_FAULTS.items():
        give(rig)
        found = rig.see_depth(scene())
        assert found["instances"].instances, fault
        assert found["objects"] is found["points"] is None, fault
        assert words in rig.reason(words)
    rig.calibrate()
    found = rig.see_depth(scene())
    assert found["objects"].objects and found["points"].data


def test_pixels_without_a_range_are_no_measurement(rig):
    rig.start("objects")
    rig.calibrate()
    pixels = scene()
    rig.see_depth(pixels)
    for value in (math.nan, 0.0, math.inf, -math.inf, -1.0, 0.1, 100.0):
        depth = np.full(SIZE, value, np.float32)
        rig.give("depth", CONVERSIONS.image_message(rig.header(), "32FC1", depth))
        (thing,) = rig.see(pixels)["objects"].objects
        assert thing.predicted and place(thing) == pytest.approx(PLACE, abs=0.12), value


def test_a_thing_without_any_source_of_range_is_reported(rig):
    rig.start("objects")
    rig.calibrate()
    found = rig.see(scene())
    assert found["instances"].instances and found["objects"] is None
    assert "range: " in rig.reason()
    for _ in range(2):
        assert rig.see_depth(scene())["objects"].objects
    rig.world.report(lambda v: v["reason"] == "")


def test_an_image_without_things_has_no_objects_and_no_reason(rig):
    rig.start("objects")
    rig.calibrate()
    found = rig.see(scene(thing=0))
    assert found["objects"].objects == []
    rig.world.report(lambda v: v["reason"] == "")


@pytest.mark.parametrize("size", ["image", "cloud"])
def test_an_error_in_metres_costs_no_result_in_the_image(rig, monkeypatch, size):
    def fail(*_: Any) -> None:
        raise RuntimeError("the depth\nbroke")

    rig.start("objects", "semantic", semantic_size=size)
    rig.calibrate()
    with monkeypatch.context() as patch:
        patch.setattr("video_knet_core.spatial.inputs.depth_image", fail)
        found = rig.see_depth(scene())
        assert found["instances"] and found["semantic"] and found["objects"] is None
        assert "metres: RuntimeError: the depth broke" in rig.reason()
        assert rig.node.counts.failed == 0
    for _ in range(2):
        assert rig.see_depth(scene())["objects"].objects
    rig.world.report(lambda v: v["reason"] == "")


# --- axes of another frame

ODOM = [pytest.param("odometry"), pytest.param("/tf", marks=needs_tf)]
FORWARD = 2.0
"""Metres per second of the camera along its optical axis."""
CENTRAL = (WIDTH - SIDE) // 2


def approach(rig: Rig, images: int = 12, topic: str = "odometry") -> list[dict[str, Any]]:
    """Drive towards a thing at rest, `NEAR` metres ahead at last; odom is where it began."""
    pixels, seconds, found = scene(left=CENTRAL), STEP / 1e9, []
    for number in range(images):
        driven = FORWARD * seconds * number
        if topic:
            give_pose(rig, topic, "odom", "camera", pose(OPTICAL, (driven, 0.0, 1.0)))
        found.append(rig.see_depth(pixels, NEAR + FORWARD * seconds * (images - 1) - driven))
    return found


@pytest.mark.parametrize("topic", ODOM)
def test_a_thing_at_rest_has_no_velocity_in_the_odometry_frame(rig, topic):
    rig.start("objects", target_frame="odom")
    rig.calibrate()
    found = approach(rig, topic=topic)
    assert {m["objects"].header.frame_id for m in found} == {"odom"}
    assert math.isnan(found[0]["objects"].objects[0].velocity.x)
    things = [thing for m in found for thing in m["objects"].objects]
    ahead = NEAR + FORWARD * STEP / 1e9 * 11
    for thing in things:
        assert place(thing) == pytest.approx((ahead, 0.0, 0.9), abs=0.15)
    assert np.linalg.norm(speed(things[-1])) < 0.15
    assert things[-1].range == pytest.approx(NEAR, abs=0.1)  # from the camera


def test_a_thing_at_rest_comes_nearer_in_the_frame_of_the_camera(rig):
    rig.start("objects")
    rig.calibrate()
    things = [m["objects"].objects[0] for m in approach(rig)]
    assert place(things[0])[2] - place(things[-1])[2] == pytest.approx(2.2, abs=0.1)
    assert speed(things[-1]) == pytest.approx((0.0, 0.0, -FORWARD), abs=0.25)


def _no_transform(rig: Rig) -> None:
    pass


def _too_early(rig: Rig) -> None:
    rig.stamp -= STEP
    _pose_in_odom(rig)
    rig.stamp += STEP


def _too_late(rig: Rig) -> None:
    rig.stamp += 2 * STEP
    _pose_in_odom(rig)
    rig.stamp -= 2 * STEP


def _pose_in_odom(rig: Rig, parent: str = "odom", child: str = "camera") -> None:
    give_pose(rig, "odometry", parent, child, pose(OPTICAL))


TRANSFORM_FAULTS: dict[str, tuple[str, Callable[[Rig], None]]] = {
    "unknown": ("frame 'odom' is unknown", _no_transform),
    "too early": ("would be extrapolated 200.000 ms into the future", _too_early),
    "too late": ("would be extrapolated 100.000 ms into the past", _too_late),
    "of another body": (
        "frame 'camera' is unknown",
        lambda rig: _pose_in_odom(rig, child="base_link"),
    ),
}


@pytest.mark.parametrize("fault", TRANSFORM_FAULTS)
def test_there_are_no_objects_without_a_transform_into_the_target_frame(rig, fault):
    words, give = TRANSFORM_FAULTS[fault]
    rig.start("objects", "markers", "followed", "points", target_frame="odom", follow_track=1)
    rig.calibrate()
    give(rig)
    rig.see_depth(scene())
    found = rig.see_depth(scene())  # before which the first one is published
    assert found["instances"].instances and found["points"]  # those are in the frame of the camera
    assert found["objects"] is found["markers"] is found["followed"] is None
    assert "objects: expected a transform from 'camera' to 'odom'" in rig.reason(words)


def test_a_pose_before_and_one_after_the_image_are_interpolated(rig):
    rig.start("objects", target_frame="odom")
    rig.calibrate()
    for offset, driven in ((-STEP // 2, 1.0), (STEP // 2, 2.0)):
        rig.stamp += offset
        give_pose(rig, "odometry", "odom", "camera", pose(OPTICAL, (driven, 0.0, 0.0)))
        rig.stamp -= offset
    (thing,) = rig.see_depth(scene())["objects"].objects
    assert thing.position.x == pytest.approx(1.5 + NEAR, abs=0.05)


def test_frames_may_have_a_leading_slash(rig):
    rig.start("objects", target_frame="/odom")
    rig.calibrate()
    _pose_in_odom(rig, "/odom", "/camera")
    pixels = scene()
    rig.give("cloud", cloud_message(rig.header("camera"), points_of(depth_of(pixels))))
    found = rig.see(pixels, "/camera")["objects"]
    (thing,) = found.objects
    x, y, z = PLACE
    assert place(thing) == pytest.approx((z, -x, -y), abs=0.15)
    assert found.header.frame_id == "odom"  # tf2 rejects names with a slash


def test_the_target_frame_may_change_and_the_motion_begins_anew(rig):
    rig.start("objects", "markers")
    rig.calibrate()
    for _ in range(2):
        rig.see_depth(scene())
    assert rig.world.set_parameter("target_frame", "odom").successful
    _pose_in_odom(rig)
    found = rig.see_depth(scene())
    (thing,) = found["objects"].objects
    assert found["objects"].header.frame_id == "odom" and math.isnan(thing.velocity.x)
    assert found["markers"].markers[0].action == Marker.DELETEALL


# --- the other outputs


def test_markers_have_the_box_the_name_and_the_velocity_of_each_track(rig):
    rig.start("markers", "objects")
    rig.calibrate()
    found = approach(rig, 6)
    (thing,) = found[-1]["objects"].objects
    box, name, arrow = found[-1]["markers"].markers
    assert [m.ns for m in (box, name, arrow)] == ["boxes", "names", "velocities"]
    assert [m.type for m in (box, name, arrow)] == [
        Marker.CUBE,
        Marker.TEXT_VIEW_FACING,
        Marker.ARROW,
    ]
    for marker in (box, name, arrow):
        assert (marker.id, marker.action) == (thing.track_id, Marker.ADD)
        assert marker.header == found[-1]["objects"].header and marker.color.a > 0
        assert marker.pose.orientation.w == 1
    assert box.pose.position == thing.box_center
    assert (box.scale.x, box.scale.y) == (thing.size.x, thing.size.y) and box.scale.z >= 0.1
    assert name.text.startswith(f"person {thing.track_id}") and name.scale.z > 0
    start, end = arrow.points
    assert start == thing.box_center
    assert (end.x - start.x, end.y - start.y, end.z - start.z) == pytest.approx(speed(thing))


def test_a_thing_at_rest_has_no_arrow(rig):
    rig.start("markers")
    rig.calibrate()
    for _ in range(6):
        found = rig.see_depth(scene())
    actions = {m.ns: m.action for m in found["markers"].markers}
    assert actions == {"boxes": Marker.ADD, "names": Marker.ADD, "velocities": Marker.DELETE}


def test_markers_are_deleted_at_first_and_when_their_track_ends(rig):
    rig.start("markers", "instances", **{"tracking.max_coast_s": 0.15})
    rig.calibrate()
    first = [rig.see_depth(scene())["markers"].markers for _ in range(3)]
    assert [m[0].action == Marker.DELETEALL for m in first] == [True, False, False]
    track = first[0][1].id
    coasting = rig.see_depth(scene(thing=0))["markers"].markers
    assert [m.id for m in coasting if m.action == Marker.ADD] == [track, track]
    ended = rig.see_depth(scene(thing=0))["markers"].markers
    assert {(m.ns, m.id, m.action) for m in ended} == {
        (ns, track, Marker.DELETE) for ns in ("boxes", "names", "velocities")
    }
    assert rig.see_depth(scene(thing=0))["markers"].markers == []


def test_a_new_epoch_deletes_all_markers(rig):
    rig.start("markers")
    rig.calibrate()
    rig.see_depth(scene())
    assert rig.world.call(Trigger, "reset_tracker", Trigger.Request()).success
    assert rig.see_depth(scene())["markers"].markers[0].action == Marker.DELETEALL


POINT_TYPES = {PointField.FLOAT32: "<f4", PointField.UINT32: "<u4", PointField.UINT16: "<u2"}


def read(message: PointCloud2) -> np.ndarray:
    """The points [H, W] of a cloud, by its fields."""
    dtype = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [
                "<u4" if field.name == "rgb" else POINT_TYPES[field.datatype]
                for field in message.fields
            ],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    assert message.row_step == message.width * message.point_step and not message.is_bigendian
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_points_are_organised_and_have_the_class_and_track_of_their_pixel(rig):
    rig.start("points", point_stride=2)
    rig.calibrate()
    pixels = scene()
    pixels[..., 1] = 77
    depth = depth_of(pixels)
    depth[:, :8] = np.nan
    rig.give("depth", depth_message(rig.header(), depth))
    found = rig.see(pixels)
    cloud, rows = found["points"], {r.class_name: r for r in found["instances"].instances}
    assert cloud.header == found["instances"].header and not cloud.is_dense
    assert [f.name for f in cloud.fields] == [
        *("x", "y", "z", "rgb", "class_id", "track_id", "confidence")
    ]
    points = read(cloud)
    assert points.shape == (HEIGHT // 2, WIDTH // 2)
    for axis, name in enumerate("xyz"):
        expected = points_of(depth)[1::2, 1::2, axis]
        assert np.allclose(points[name], expected, atol=1e-4, equal_nan=True)
    assert np.isnan(points["x"][:, :4]).all()
    kind, labels = pixels[1::2, 1::2, 0], {ROAD: "road", SKY: "sky", PERSON: "person"}
    for value, name in labels.items():
        here = points[kind == value]
        assert set(here["class_id"]) == {rows[name].class_id}
        assert set(here["track_id"]) == {rows[name].track_id}
        assert here["confidence"] == pytest.approx(rows[name].score, abs=1e-6)
        assert set(here["rgb"]) == {value << 16 | 77 << 8}
    nothing = points[kind == 0]
    assert set(nothing["class_id"]) == {255} and set(nothing["track_id"]) == {0}
    assert set(nothing["confidence"]) == {0}


def test_points_of_a_cloud_are_those_in_the_image(rig):
    rig.start("points")
    rig.calibrate()
    pixels = scene()
    points = points_of(depth_of(pixels)).reshape(-1, 3)
    outside = np.float32([[0, 0, -5], [50, 0, 5], [np.nan, 0, 1]])
    rig.give("cloud", cloud_message(rig.header(), np.concatenate([outside, points])[None]))
    found = read(rig.see(pixels)["points"])
    assert found.shape == (1, HEIGHT * WIDTH)
    assert np.allclose(found["z"][0], points[:, 2])
    assert np.array_equal(found["rgb"][0] >> 16, pixels[..., 0].ravel())
    assert (found["class_id"][0][pixels[..., 0].ravel() == PERSON] == 2).all()


@pytest.mark.parametrize("form", ["depth", "cloud"])
def test_obstacles_are_all_but_the_ground_which_is_the_free_space(rig, form):
    rig.start("obstacles", "free_space", obstacle_voxel_m=0.5)
    rig.calibrate()
    pixels = scene()
    if form == "depth":
        found = rig.see_depth(pixels)
    else:
        rig.give("cloud", cloud_message(rig.header(), points_of(depth_of(pixels))))
        found = rig.see(pixels)
    obstacles, free = read(found["obstacles"])[0], read(found["free_space"])[0]
    assert set(free["class_id"]) == {0} and {1, 2} <= set(obstacles["class_id"]) <= {1, 2, 255}
    assert found["obstacles"].is_dense and found["obstacles"].height == 1
    person = obstacles[obstacles["class_id"] == 2]
    assert set(person["z"]) == {NEAR} and set(person["track_id"]) != {0}
    for points in (obstacles, free):
        voxels = np.floor(np.stack([points[axis] for axis in "xyz"], axis=1) / 0.5)
        assert len(np.unique(voxels, axis=0)) == len(points) > 0


def test_other_ground_classes_may_be_chosen_while_running(rig):
    rig.start("obstacles", "free_space", ground_classes="Sky")
    rig.calibrate()
    found = rig.see_depth(scene())
    assert set(read(found["free_space"])[0]["class_id"]) == {1}
    assert rig.world.set_parameter("ground_classes", "").successful
    found = rig.see_depth(scene())
    assert read(found["free_space"]).size == 0 and found["free_space"].width == 0
    assert {0, 1, 2} <= set(read(found["obstacles"])[0]["class_id"])


def test_no_points_are_published_without_depth_or_a_cloud(rig):
    rig.start("points", "obstacles", "free_space", camera_height_m=HEIGHT_M)
    rig.calibrate()
    found = rig.see(scene())
    assert found["points"] is found["obstacles"] is found["free_space"] is None
    assert "points: " in rig.reason()


def image(message: Image) -> np.ndarray:
    dtype = {"mono8": "u1", "32SC1": "<i4"}[message.encoding]
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def test_confidence_is_that_of_the_class_of_each_pixel(rig):
    rig.start("confidence")
    pixels = scene()
    found = rig.see(pixels)
    (score,) = {r.score for r in found["instances"].instances}
    expected = np.where(pixels[..., 0], round(255 * score), 0)
    assert np.array_equal(image(found["confidence"]), expected)


def test_instance_ids_are_class_and_track(rig):
    rig.start("instance_id")
    pixels = scene()
    found = rig.see(pixels)
    rows = {r.class_name: r for r in found["instances"].instances}
    ids = image(found["instance_id"])
    person = rows["person"]
    assert person.track_id and set(ids[pixels[..., 0] == PERSON]) == {2 << 16 | person.track_id}
    assert set(ids[pixels[..., 0] == SKY]) == {1 << 16} and set(ids[pixels[..., 0] == 0]) == {-1}


def test_classes_that_are_named_have_masks_with_the_camera_info_of_the_image(rig):
    rig.start("mask/person", "mask/person/camera_info", mask_classes="Person, road")
    topics = {name for name in rig.node.outputs.published if name.startswith("mask")}
    names = ("person", "road")
    assert topics == {f"mask/{n}{end}" for n in names for end in ("", "/camera_info")}
    pixels = scene()
    found = rig.see(pixels)
    assert np.array_equal(image(found["mask/person"]), 255 * (pixels[..., 0] == PERSON))
    assert found["mask/person/camera_info"] is None and "camera info: " in rig.reason()
    rig.calibrate()
    found = rig.see(pixels)
    info = found["mask/person/camera_info"]
    assert info.header == found["mask/person"].header
    assert (info.width, info.height, info.k[0]) == (WIDTH, HEIGHT, FOCAL)


def test_a_mask_of_a_class_that_the_model_lacks_is_rejected(world):
    camera = world.camera_node(mask_classes="person, unicorn")
    assert "mask_classes: expected classes of" in camera.status.fault
    assert "'unicorn'" in camera.status.fault


def test_the_largest_range_must_be_above_the_smallest(world):
    world.camera_node(min_range_m=2.0)
    result = world.set_parameter("max_range_m", 1.0)
    assert not result.successful and "max_range_m: expected more than" in result.reason


def test_a_camera_info_of_another_camera_gives_no_metres(rig):
    rig.start("objects", "points")
    rig.calibrate(header=rig.header(frame_id="rear_camera"))
    found = rig.see_depth(scene())
    assert found["objects"] is None and found["points"] is None
    assert "expected the frame of the image" in rig.reason()


@pytest.mark.parametrize("stride", [0, 3])
def test_the_class_image_may_have_the_size_of_the_points(rig, stride):
    rig.start("semantic", "confidence", "points", semantic_size="cloud", point_stride=stride)
    pixels = scene()
    assert rig.see(pixels)["semantic"].width == WIDTH  # of the image without depth
    rig.calibrate()
    found = rig.see_depth(pixels)
    points = read(found["points"])
    classes, scores = image(found["semantic"]), image(found["confidence"])
    assert classes.shape == scores.shape == points.shape
    assert np.array_equal(classes, points["class_id"])
    assert np.array_equal(scores > 0, points["confidence"] > 0)


@pytest.mark.parametrize(("frame", "shape"), [("depth_camera", SIZE), ("camera", (64, 64))])
def test_the_class_image_has_its_own_size_beside_depth_of_other_pixels(rig, frame, shape):
    rig.start("semantic", semantic_size="cloud", point_stride=2)
    rig.give("depth", depth_message(rig.header(frame), np.full(shape, FAR, np.float32)))
    assert rig.see(scene())["semantic"].width == WIDTH
    assert "class image: expected depth aligned to the image of 'camera'" in rig.reason()


def test_the_class_image_alone_needs_depth_where_it_has_the_size_of_the_points(rig):
    rig.start("semantic", semantic_size="cloud", point_stride=2)
    rig.world.wait(lambda: "depth" in subscribed(rig), "the subscriptions")
    rig.calibrate()
    assert rig.see_depth(scene())["semantic"].width == WIDTH // 2


def test_the_pose_of_the_followed_track_is_published_while_it_is_measured(rig):
    rig.start("followed", "objects")
    rig.calibrate()
    found = rig.see_depth(scene())
    assert found["followed"] is None
    (thing,) = found["objects"].objects
    assert rig.world.set_parameter("follow_track", thing.track_id).successful
    found = rig.see_depth(scene())
    assert found["followed"].header == found["objects"].header
    position = found["followed"].pose.position
    assert (position.x, position.y, position.z) == place(found["objects"].objects[0])
    rig.pause()
    found = rig.see(scene())
    assert found["objects"].objects[0].predicted and found["followed"] is None
    assert rig.world.set_parameter("follow_track", thing.track_id + 1).successful
    found = rig.see_depth(scene())
    assert found["objects"].objects and found["followed"] is None


def test_the_followed_pose_looks_along_the_motion(rig):
    rig.start("followed", target_frame="odom", follow_track=1)
    rig.calibrate()
    headings = []
    for number in range(6):
        _pose_in_odom(rig)
        q = rig.see_depth(scene(left=CENTRAL), NEAR - 0.2 * number)["followed"].pose.orientation
        headings.append(2 * math.atan2(q.z, q.w))
        assert math.hypot(q.x, q.y) == pytest.approx(0, abs=1e-6)
    assert headings[0] == pytest.approx(0, abs=0.1)  # away from the camera
    assert abs(headings[-1]) == pytest.approx(math.pi, abs=0.1)  # towards it


def test_detections_in_space_come_where_vision_msgs_is_installed(rig):
    pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
    rig.start("detections_3d", "objects")
    rig.calibrate()
    found = rig.see_depth(scene())
    (thing,), (box,) = found["objects"].objects, found["detections_3d"].detections
    assert box.id == f"{found['objects'].tracker_epoch}/{thing.track_id}"
    assert box.results[0].hypothesis.class_id == str(thing.class_id)
    assert box.results[0].pose.pose.position == thing.position
    assert (box.bbox.center.position, box.bbox.size) == (thing.box_center, thing.size)


# --- parameters

RANGES = {
    "depth_tolerance_ms": (-1.0, 1000.1),
    "cloud_tolerance_ms": (-1.0, 1000.1),
    "min_range_m": (-0.1, 1000.1),
    "max_range_m": (0.0, 1000.1),
    "camera_height_m": (-0.1, 100.1),
    "camera_pitch_deg": (-90.1, 90.1),
    "point_stride": (-1, 65),
    "obstacle_voxel_m": (0.0, 10.1),
    "semantic_size": ("", "depth"),
    "follow_track": (-1, 10**9 + 1),
}


def test_values_out_of_range_are_rejected(rig):
    rig.start()
    for name, values in RANGES.items():
        for value in (*values, *([math.nan] if isinstance(values[0], float) else [])):
            result = rig.world.set_parameter(name, value)
            assert not result.successful and result.reason, f"{name} = {value}"
    assert rig.node._locator.settings == SpatialSettings()


def test_settings_may_change_while_running_but_for_the_topics_of_masks(rig):
    rig.start()
    changes = {
        "target_frame": "map",
        "depth_tolerance_ms": 5.0,
        "rectified": True,
        "ground_frame": "base_footprint",
        "ground_classes": "floor",
        "point_stride": 4,
        "semantic_size": "cloud",
        "follow_track": 7,
    }
    for name, value in changes.items():
        assert rig.world.set_parameter(name, value).successful, name
    assert rig.node._locator.settings == SpatialSettings(**changes)
    result = rig.world.set_parameter("mask_classes", "person")
    assert not result.successful and "mask_classes" in result.reason
    assert rig.world.transition("deactivate") and rig.world.transition("cleanup")
    assert rig.world.set_parameter("mask_classes", "person").successful


def test_a_change_counts_from_the_next_image(rig):
    rig.start("objects", depth_tolerance_ms=0.0)
    rig.calibrate()
    rig.give("depth", depth_message(rig.header(), depth_of(scene())))
    rig.stamp += 1
    assert rig.see(scene())["objects"] is None
    assert rig.world.set_parameter("depth_tolerance_ms", 500.0).successful
    assert rig.see(scene())["objects"].objects
    assert rig.world.set_parameter("max_range_m", 4.0).successful
    assert rig.see(scene())["objects"].objects[0].predicted


def test_rectified_images_have_the_matrix_p(rig):
    rig.start("objects", rectified=True)
    p = np.array([[2 * FOCAL, 0, LENS.cx, 0], [0, 2 * FOCAL, LENS.cy, 0], [0, 0, 1, 0]])
    rig.calibrate(p=p.ravel(), k=np.zeros(9))
    (thing,) = rig.see_depth(scene())["objects"].objects
    assert place(thing)[0] == pytest.approx(PLACE[0] / 2, abs=0.06)
