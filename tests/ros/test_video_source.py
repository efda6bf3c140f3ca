"""The video source as a camera: content, stamps, rate, quality of service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import cv2
import numpy as np
import pytest
from harness import BEST_EFFORT, RELIABLE, stamps
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image

from video_knet_core.data.frame_source import Frame, FrameSource, Intrinsics, View
from video_knet_core.image_files import FrameError
from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.overlay_video import OverlayVideo
from video_knet_ros.outputs import CONVERSIONS
from video_knet_ros.video_source import Stamps, VideoSource

IMAGES, DEPTH, INFO = "/camera/image_raw", "/camera/depth/image_raw", "/camera/camera_info"


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((10, 20, 3), 50 * i, np.uint8))
    return tmp_path


def play(world, **parameters) -> VideoSource:
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    return world.add(VideoSource(parameter_overrides=overrides))


def collect(world, qos=RELIABLE, kind=Image, topic=IMAGES) -> list:
    got: list = []
    subscription = world.tester.create_subscription(kind, topic, got.append, qos)
    world.wait(lambda: world.publishers(subscription), "the source")
    return got


def test_images_come_in_order_again_and_again(world, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    play(world, source=f"~/{folder.name}", rate=50.0, frame_id="front")
    got = collect(world)
    world.wait(lambda: len(got) >= 7, "images")
    values = [int(to_rgb(m)[0, 0, 0]) for m in got]
    first = values[0] // 50
    assert values == [50 * ((first + i) % 3) for i in range(len(values))]
    assert {m.header.frame_id for m in got} == {"front"}
    assert {(m.height, m.width, m.encoding, m.step) for m in got} == {(10, 20, "rgb8", 60)}


def test_stamps_are_the_nodes_time_and_grow_at_the_rate(world, folder):
    source = play(world, source=str(folder), rate=20)
    begin = source.get_clock().now().nanoseconds
    got = collect(world)
    world.wait(lambda: len(got) >= 9, "images")
    times = stamps(got)
    assert times == sorted(set(times))
    assert begin < times[0] and times[-1] < source.get_clock().now().nanoseconds
    assert [timer.timer_period_ns for timer in source.timers] == [50_000_000]


def test_a_pause_in_a_video_is_one_in_its_images(world, tmp_path):
    """At the mean rate the gaps would be equal, of 0.43 s; a busy machine delays single images."""
    path = tmp_path / "pause.mp4"
    with OverlayVideo(path, 20) as video:
        for number, seconds in enumerate((0, 0.05, 0.1, 1.3)):
            image = np.full((48, 64, 3), 60 * number, np.uint8)
            video.write(image, round(seconds * 1e9))
    play(world, source=str(path), loop=True)
    got = collect(world)
    world.wait(lambda: len(got) >= 5, "a round")
    levels = [round(to_rgb(m).mean() / 60) for m in got]
    assert all(second == (first + 1) % 4 for first, second in pairwise(levels))
    pauses = [gap for level, gap in zip(levels, np.diff(stamps(got)), strict=False) if level == 2]
    assert pauses and min(pauses) > 0.7e9


def test_a_camera_needs_no_library_for_videos_nor_for_numbered_files():
    """Which ROS has no packages of."""
    code = (
        "import sys\n"
        "sys.modules['av'] = sys.modules['natsort'] = None\n"
        "import video_knet_ros.node, video_knet_ros.video_source\n"
        "from video_knet_core.data.frames import open_frames\n"
        "next(iter(open_frames('synthetic')))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class TurningCamera(FrameSource):
    """Two images; the camera moves 0.2 m ahead in 0.1 s and turns left by 0.1 rad."""

    fps = 10.0
    intrinsics = Intrinsics(fx=50.0, fy=60.0, cx=9.5, cy=4.5)

    def __init__(self) -> None:
        self.depths = 0

    def __iter__(self) -> Iterator[Frame]:
        return ((view.image, view.stamp) for view in self.views())

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        for number in range(2):
            depth = None
            if with_depth():
                self.depths += 1
                depth = np.full((10, 20), 4.0, np.float32)
                depth[0] = 0
            pose = np.eye(4)
            pose[:3, :3] = AHEAD @ cv2.Rodrigues(np.array([0, -0.1 * number, 0]))[0]
            pose[0, 3] = 0.2 * number
            image = np.full((10, 20, 3), 100 * number, np.uint8)
            yield View(image, number * 100_000_000, depth, pose)


AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""From a camera that looks along x: its x is -y of the fixed frame, its y is -z."""


@pytest.fixture
def camera(monkeypatch):
    camera = TurningCamera()
    monkeypatch.setattr("video_knet_ros.video_source.open_frames", lambda *arguments: camera)
    return camera


def test_depth_camera_and_odometry_have_the_stamps_of_the_images(world, camera):
    play(world, source="turn", rate=20.0, frame_id="front")
    topics = (Image, DEPTH), (CameraInfo, INFO), (Odometry, "/odometry")
    images, *more = [collect(world, kind=k, topic=t) for k, t in [(Image, IMAGES), *topics]]
    world.wait(lambda: all(len(got) >= 4 for got in more), "messages")
    depth, info, odometry = (got[-1] for got in more)
    assert all(set(stamps(got)) <= set(stamps(images)) for got in more)
    assert {depth.header.frame_id, info.header.frame_id} == {"front"}
    metres = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width)
    assert depth.encoding == "32FC1" and np.isnan(metres[0]).all() and (metres[1:] == 4).all()
    assert (info.height, info.width, info.distortion_model) == (10, 20, "plumb_bob")
    assert list(info.k) == [50, 0, 9.5, 0, 60, 4.5, 0, 0, 1] and list(info.d) == [0] * 5
    assert list(info.p) == [50, 0, 9.5, 0, 0, 60, 4.5, 0, 0, 0, 1, 0]
    assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "front")


def test_odometry_is_in_the_optical_frame_and_still_where_the_video_begins(world, camera):
    play(world, source="turn", rate=20.0)
    got = collect(world, kind=Odometry, topic="/odometry")
    world.wait(lambda: len(got) >= 3, "odometry")
    second, first = sorted(got[-2:], key=lambda m: -m.pose.pose.position.x)
    linear, angular = second.twist.twist.linear, second.twist.twist.angular
    velocity = np.array([linear.x, linear.y, linear.z])
    expected = [2 * np.sin(0.1), 0, 2 * np.cos(0.1)]  # it has turned left: it moves to its right
    np.testing.assert_allclose(velocity, expected, atol=1e-9)
    np.testing.assert_allclose([angular.x, angular.y, angular.z], [0, -1, 0], atol=1e-9)
    orientation = first.pose.pose.orientation
    quaternion = [orientation.x, orientation.y, orientation.z, orientation.w]
    np.testing.assert_allclose(quaternion, [-0.5, 0.5, -0.5, 0.5], atol=1e-9)
    still = first.twist.twist
    assert {still.linear.x, still.linear.z, still.angular.y} == {0.0}


def test_depth_is_made_only_while_it_has_subscribers(world, camera):
    source = play(world, source="turn", rate=50.0)
    camera.depths = 0  # of the first frame one was made
    images = collect(world)
    world.wait(lambda: len(images) >= 4, "images")
    assert camera.depths == 0
    got = collect(world, topic=DEPTH)
    world.wait(lambda: got, "depth")
    for subscription in list(world.tester.subscriptions):
        if subscription.topic_name == DEPTH:
            world.tester.destroy_subscription(subscription)
    publisher = next(p for p in source.publishers if p.topic_name == DEPTH)
    world.wait(lambda: not publisher.get_subscription_count(), "the end of the subscription")
    before, count = camera.depths, len(images)
    world.wait(lambda: len(images) > count + 3, "images")
    assert camera.depths <= before + 1


def test_a_folder_of_images_alone_is_no_camera_in_space(world, folder):
    source = play(world, source=str(folder))
    names = {publisher.topic_name for publisher in source.publishers}
    assert names & {IMAGES, DEPTH, INFO, "/odometry"} == {IMAGES}


MS = 1_000_000


def stamped(clock):
    """Stamps in ms of images 100 ms apart, for these times of the clock in ms."""
    source = Stamps(100 * MS)
    return [source.next(now * MS) / MS for now in clock]


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        pytest.param([1000, 1100, 1205, 1298], [1000, 1100, 1205, 1298], id="a fine clock"),
        pytest.param(
            [1000] * 3 + [1300] * 3 + [1600] * 3,
            [1000] * 3 + [1300, 1400, 1500, 1600, 1700, 1800],
            id="a coarse clock, known after a tick",
        ),
        pytest.param(
            [1000, 1200, 1200, 1200, 1200, 1200], [1000, 1200, 1300, 1400, 1400, 1400], id="paused"
        ),
        pytest.param(
            [1000, 1250, 1250, 1250, 1500], [1000, 1250, 1350, 1450, 1500], id="no multiple"
        ),
        pytest.param([0, 0, 0, 5000, 5000], [0, 0, 0, 5000, 5000], id="not begun"),
        pytest.param([5000, 5100, 100, 200], [5000, 5100, 100, 200], id="set back"),
        pytest.param([5000, 5100, 0, 0], [5000, 5100, 0, 0], id="restarted"),
    ],
)
def test_stamps_follow_the_clock_and_continue_between_its_ticks(clock, expected):
    assert stamped(clock) == expected


def test_the_stamps_are_those_of_simulated_time(world, folder):
    """0 until it has begun; then those of the clock, and never 1 ns apart."""
    play(world, source=str(folder), rate=50.0, use_sim_time=True)
    got = collect(world)
    world.wait(lambda: len(got) >= 2, "images before simulated time")
    assert set(stamps(got)) == {0}
    clock = world.tester.create_publisher(ClockMessage, "/clock", RELIABLE)
    world.wait(clock.get_subscription_count, "a reader of the clock")
    clock.publish(ClockMessage(clock=CONVERSIONS.time_message(1000 * 10**9)))
    world.wait(lambda: stamps(got)[-1], "an image in simulated time")
    count = len(got)
    world.wait(lambda: len(got) > count + 2, "images while the clock stands still")
    assert set(stamps(got)) == {0, 1000 * 10**9}


@pytest.mark.parametrize(("name", "policy"), [("reliable", RELIABLE), ("best_effort", BEST_EFFORT)])
def test_the_offered_reliability(world, folder, name, policy):
    play(world, source=str(folder), reliability=name)
    find = lambda: world.tester.get_publishers_info_by_topic("/camera/image_raw")  # noqa: E731
    (info,) = world.wait(find, "the source")
    assert info.qos_profile.reliability == policy.reliability
    assert (policy.reliability == ReliabilityPolicy.RELIABLE) == (name == "reliable")


def test_the_synthetic_street(world):
    play(world, source="synthetic:3")
    got = collect(world)
    world.wait(lambda: got, "an image")
    assert (got[0].height, got[0].width) == (288, 480)
    assert np.ptp(to_rgb(got[0])) > 50


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"source": "no/such.mp4"}, "no video 'no/such.mp4'"),
        ({"rate": -2.0}, "rate: expected 0, or 1e-06 images per second or more, got -2.0"),
        ({"rate": "fast"}, "got 'fast'"),
        ({"rate": 1e-300}, "got 1e-300"),
        ({"reliability": "maybe"}, "got 'maybe'"),
    ],
)
def test_settings_that_cannot_be_used_are_named(world, setting, words):
    with pytest.raises(FrameError) as error:
        play(world, **setting)
    assert words in str(error.value)


def test_a_video_that_breaks_midway_ends_with_code_1(world, folder, capfd):
    source = play(world, source=str(folder), rate=50.0)
    (folder / "1.png").write_bytes(b"broken")
    with pytest.raises(SystemExit) as end:
        world.wait(lambda: False, "the broken image")
    assert end.value.code == 1
    assert str(folder / "1.png") in capfd.readouterr().err
    assert source.get_name() == "video_source"
