"""Every reason for which no results come, over real DDS: its key and its level in /diagnostics."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from pathlib import Path

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from harness import BEST_EFFORT, RELIABLE, image_message, street
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from video_knet_ros.msg import TrackedInstanceArray

from video_knet_ros import node
from video_knet_ros.diagnostics import Diagnosis, Level, Limits, NodeStatus, Reason, Reporter
from video_knet_ros.engines import EnginePool
from video_knet_ros.input_images import FrameCounts, SingleCameraFilter
from video_knet_ros.outputs import CONVERSIONS
from video_knet_ros.process import Throttle

ROOT = Path(__file__).parents[2]
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SOON = {"warn_after_s": 0.3, "error_after_s": 1.0}


@pytest.fixture
def outsider(world):
    """A node of another participant: within one, a topic has one type."""
    context = Context()
    rclpy.init(context=context)
    outsider = Node("outsider", context=context)
    yield outsider
    outsider.destroy_node()
    rclpy.shutdown(context=context)


def reported(world, reason: Reason, level: bytes | None = None, name: str = "/video_knet"):
    """Message and values of the next diagnostics with this reason."""
    _, message, values = world.report(lambda v: v["reason"] == reason.key, level, name=name)
    return message, values


def stream(world, publisher, stamp=None, period: float = 0.02, **change):
    """Publish an image again and again, stamped with the time, until the test ends."""

    def publish() -> None:
        message = image_message(street(), world.now() if stamp is None else stamp())
        message.header.frame_id = "camera"
        for name, value in change.items():
            setattr(message, name, value)
        publisher.publish(message)

    return world.tester.create_timer(period, publish)


@pytest.mark.parametrize("page", ["reference/topics.md", "how-to/troubleshooting.md"])
def test_the_pages_name_every_reason(page):
    text = (ROOT / "docs" / page).read_text()
    levels = "|".join(level.value for level in Level)
    rows = dict(re.findall(rf"^\| `(\w+)` \| ({levels}) \|", text, re.MULTILINE))
    assert rows == {reason.key: reason.level.value for reason in Reason}


def test_states_of_the_lifecycle_without_results_are_warnings(world):
    world.camera_node(start=False)
    reported(world, Reason.UNCONFIGURED, WARN)
    assert world.transition("configure")
    reported(world, Reason.INACTIVE, WARN)
    assert world.transition("shutdown")
    reported(world, Reason.FINALIZED, WARN)


def test_a_disabled_node_is_a_warning(world):
    world.camera_node(enabled=False, warn_after_s=0.0)
    message, _ = reported(world, Reason.DISABLED, WARN)
    assert "enabled" in message


def test_a_topic_without_a_publisher_is_named(world, capfd):
    world.camera_node(**SOON)
    reported(world, Reason.NO_PUBLISHER, WARN)
    message, _ = reported(world, Reason.NO_PUBLISHER, ERROR)
    assert message.startswith("no images on /video_knet/image (best_effort) for")
    stream(world, world.publisher())
    world.report(lambda v: int(v["processed"]), OK)
    log = capfd.readouterr().err
    levels = re.findall(r"\[(\w+)\] .*: no_publisher: no images on /video_knet/image", log)
    assert levels == ["WARN", "ERROR"]
    assert len(re.findall(r"\[INFO\] .*: no_publisher has ended", log)) == 1


def test_a_publisher_that_is_silent_is_another_reason_and_is_named(world):
    world.camera_node(**SOON)
    world.publisher()
    _, values = reported(world, Reason.NO_IMAGES, ERROR)
    assert values["publishers"] == "/tester"


@pytest.mark.parametrize("kind", [String, CompressedImage])
def test_a_publisher_of_another_type_is_named_with_both_types(world, outsider, kind):
    world.camera_node(**SOON)
    outsider.create_publisher(kind, "/video_knet/image", RELIABLE)
    message, values = reported(world, Reason.WRONG_TYPE, ERROR)
    assert f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}" in message
    assert "/outsider" in message and "sensor_msgs/msg/Image" in message
    assert ("compressed to true" in message) == (kind is CompressedImage)
    assert values["publishers"] == "", "a publisher of another type is no camera"


@pytest.mark.parametrize(
    ("compressed", "kind", "topic"),
    [(False, CompressedImage, "image/compressed"), (True, Image, "image")],
)
def test_images_by_the_other_transport_name_the_parameter(world, compressed, kind, topic):
    world.camera_node(compressed=compressed, **SOON)
    world.tester.create_publisher(kind, f"/video_knet/{topic}", RELIABLE)
    message, _ = reported(world, Reason.WRONG_TRANSPORT, ERROR)
    assert f"compressed to {str(not compressed).lower()}" in message
    assert f"/video_knet/{topic};" in message


def test_the_log_has_a_reason_that_comes_and_goes_once_in_a_while(monkeypatch):
    status = NodeStatus("camera", state="active", subscription="image", subscribers=1)
    counts, reporter, lines = FrameCounts(), Reporter(), []
    counts.watched_since = 0.0

    def report(now: float, publishers: tuple[str, ...], fault: str = "") -> None:
        monkeypatch.setattr(time, "monotonic", lambda: now)
        status.publishers, status.output_obstacle = publishers, fault
        counts.arrived = counts.last_result = now
        reporter.report(Time(), status, counts, Limits(1.0, 5.0))
        lines.extend((now, *line) for line in reporter.log_lines)

    for now in range(10, 24):
        report(now, ("a", "b") if now % 2 else ("a",))
    ended = "several_publishers has ended"
    two = "several_publishers: 2 publishers on image, expected 1: a, b"
    assert lines == [(11, WARN, two), (12, OK, ended), (21, WARN, two), (22, OK, ended)]

    del lines[:]
    other = "output_qos_incompatible: a subscriber"
    for now in (40, 41, 42):  # the second one is not hidden by the first, nor by a frame that fails
        counts.failed += 1
        report(now, ("a", "b"), "a subscriber" if now > 40 else "")
    report(43, ("a",), "a subscriber")
    status.state = "inactive"
    report(44, ("a",), "a subscriber")
    status.state = "active"
    report(60, ("a",), "a subscriber")
    report(61, ("a",))
    assert lines == [
        *((40, WARN, two), (41, WARN, other), (43, OK, ended), (60, WARN, other)),
        (61, OK, "output_qos_incompatible has ended"),
    ]


def test_a_reason_of_two_levels_or_of_a_changing_one_is_logged_once():
    reporter, lines = Reporter(), []
    both = [(ERROR, "no_clock", "no result"), (WARN, "no_clock", "no message on /clock")]
    for now in range(0, 60, 2):
        found = both if now % 4 else both[1:]
        lines += [line[0] for line in reporter._new_lines(found, float(now))]
    assert lines == [WARN, ERROR]


def test_a_publisher_that_cannot_match_is_logged_until_it_leaves_or_the_setting_fits(world, capfd):
    world.camera_node(reliability="reliable", **SOON)
    best_effort = world.tester.create_publisher(Image, "/video_knet/image", BEST_EFFORT)
    message, _ = reported(world, Reason.QOS_INCOMPATIBLE, WARN)
    assert "reliability" in message and message.split(": ", 1)[1] in capfd.readouterr().err
    world.tester.destroy_publisher(best_effort)
    reported(world, Reason.NO_PUBLISHER)
    world.tester.create_publisher(Image, "/video_knet/image", BEST_EFFORT)
    reported(world, Reason.QOS_INCOMPATIBLE, ERROR)
    assert world.set_parameter("reliability", "auto").successful
    reported(world, Reason.NO_IMAGES)


def test_one_frame_that_fails_is_a_warning_and_all_are_an_error(world):
    world.camera_node(**SOON)
    tables = world.tables()
    camera_topic = world.publisher()
    good = stream(world, camera_topic)
    world.wait(lambda: tables, "a table")
    camera_topic.publish(image_message(street(), 1.0, encoding="rgb8"))
    bad = stream(world, camera_topic, step=7)
    reported(world, Reason.FRAMES_FAILED, WARN)
    world.tester.destroy_timer(good)
    message, _ = reported(world, Reason.ALL_FRAMES_FAILED, ERROR)
    assert "wrong step" in message and "got 7" in message
    world.tester.destroy_timer(bad)
    stream(world, camera_topic)
    world.report(lambda v: v["reason"] == "", OK)


def test_an_image_that_stays_in_the_engine(world):
    world.camera_node(**SOON)
    stream(world, world.publisher())
    (engine,) = world.runtimes
    engine.gate.clear()
    reported(world, Reason.INFERENCE_STUCK, ERROR)
    engine.gate.set()


def test_an_engine_that_another_camera_keeps_busy(world):
    engines = EnginePool(world.open_painted)
    overrides = [Parameter(name, value=value) for name, value in SOON.items()]
    cameras = [
        node.CameraNode(engines, name, parameter_overrides=overrides)
        for name in ("other", "video_knet")
    ]
    try:
        for camera in cameras:
            world.add(camera)
        (engine,) = world.wait(lambda: world.runtimes, "the engine")
        engine.gate.clear()
        busy = world.tester.create_publisher(Image, "/other/image", RELIABLE)
        world.wait(busy.get_subscription_count, "the subscription")
        stream(world, busy)
        world.wait(lambda: engine.seen, "the other camera's image")
        stream(world, world.publisher())
        reported(world, Reason.ENGINE_BUSY, WARN)
    finally:
        world.close()


def test_a_rate_limit_between_two_results_is_a_warning(world):
    world.camera_node(max_rate=0.01, **SOON)
    tables = world.tables()
    stream(world, world.publisher())
    world.wait(lambda: tables, "the first table")
    message, values = reported(world, Reason.RATE_LIMITED, WARN)
    assert "max_rate = 0.01" in message and int(values["limited"]) > 0


def test_late_images_are_dropped_and_counted_and_keep_the_epoch(world):
    camera = world.camera_node(**SOON)
    tables = world.tables()
    camera_topic = world.publisher()
    _, first = world.send(camera_topic, tables, street(1))
    late = image_message(street(2), 100.05)
    camera_topic.publish(late)
    world.wait(lambda: camera.counts.late == 1, "the late image")
    assert world.report(lambda v: v["late"] == "1")
    _, last = world.send(camera_topic, tables, street(3))
    assert (last.tracker_epoch, last.skipped) == (first.tracker_epoch, 1)
    assert len(tables) == 2 and world.runtimes[0].seen == [1, 3]


def test_images_without_a_stamp_before_simulated_time_begins_are_left_out(world):
    camera = world.camera_node(use_sim_time=True, **SOON)
    tables = world.tables()
    stream(world, world.publisher(), stamp=lambda: 0.0)
    message, values = reported(world, Reason.NO_CLOCK, ERROR)
    assert "/clock" in message and int(values["undated"]) > 0
    assert not tables and camera.counts.processed == 0
    clock = world.tester.create_publisher(Clock, "/clock", RELIABLE)
    clock.publish(Clock(clock=CONVERSIONS.time_message(5 * 10**9)))
    world.wait(lambda: tables, "a table, for the clock has begun")


def test_simulated_time_that_has_not_begun_is_a_warning_with_results_too(world):
    world.camera_node(use_sim_time=True, **SOON)
    tables = world.tables()
    stream(world, world.publisher())
    world.wait(lambda: tables, "a table")
    reported(world, Reason.NO_CLOCK, WARN)
    assert str(tables[-1].latency_ms) == "nan"


def test_simulated_time_that_stands_still_is_a_warning(world):
    world.camera_node(use_sim_time=True, **SOON)
    clock = world.tester.create_publisher(Clock, "/clock", RELIABLE)
    camera_topic = world.publisher()
    world.wait(clock.get_subscription_count, "a reader of the clock")
    clock.publish(Clock(clock=CONVERSIONS.time_message(5 * 10**9)))
    reported(world, Reason.CLOCK_STOPPED, WARN)  # and no images: it is paused
    stream(world, camera_topic, stamp=lambda: 5.0)
    message, _ = reported(world, Reason.CLOCK_STOPPED, WARN)
    assert message.startswith("simulated time has not advanced")


@pytest.mark.parametrize(("scale", "offset"), [(2, 0), (1, 3600)], ids=["size", "clock"])
def test_two_cameras_on_one_topic_are_named_and_do_not_reset_the_tracker_again_and_again(
    world, scale, offset
):
    camera = world.camera_node(**SOON)
    tables = world.tables()
    first, second = world.publisher(), world.publisher()
    stream(world, first)
    world.wait(lambda: tables, "a table")
    other = image_message(street(scale=scale))
    size = {name: getattr(other, name) for name in ("height", "width", "step", "data")}
    stream(world, second, stamp=lambda: world.now() + offset, **size)
    message, values = reported(world, Reason.SEVERAL_PUBLISHERS, WARN)
    assert values["publishers"] == "/tester, /tester" and message.count("/tester") == 2
    world.wait(lambda: camera.counts.interleaved > 20, "images of both")
    assert camera.counts.resets < camera.counts.received / 10  # more than 2 on a busy machine
    assert int(world.report(lambda v: True)[2]["interleaved"]) > 0


def test_a_camera_may_change_its_images_and_change_back_but_not_with_each_image():
    now = itertools.count(0.0, 0.1)
    one_camera = SingleCameraFilter(lambda: next(now))

    def admits(stamp: float, scale: int = 1) -> bool:
        message = image_message(street(scale=scale))
        message.header.frame_id = "camera"
        return one_camera.accepts(message, round(stamp * 1e9))

    assert all(admits(0.1 * i) for i in range(5)), "one camera"
    assert admits(0.4) and admits(0.7) and admits(0.6), "equal, early and late stamps"
    assert [admits(99.0), admits(0.9)] == [True, True], "one wrong stamp"
    assert not admits(99.1) and admits(1.0) and not admits(99.2) and admits(1.1)
    for i in range(30):
        admits(1.2 + 0.1 * i)  # the other one has left
    assert [admits(4.2, scale=2), admits(4.3), admits(4.4, scale=2)] == [True, True, False]


def test_resets_are_counted_with_epoch_and_reason(world):
    camera = world.camera_node(warn_after_s=3600.0)
    tables = world.tables()
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street(), step=world.now() - 200)
    for i in range(4):
        world.send(camera_topic, tables, street(i), step=10.0)
    _, values = reported(world, Reason.REPEATED_RESETS, WARN)
    assert values["resets"] == "4" and "no image for 10.0 s" in values["last_reset"]
    assert values["tracker_epoch"] == str(tables[-1].tracker_epoch)
    assert world.call(Trigger, "reset_tracker", Trigger.Request()).success
    world.send(camera_topic, tables, street())
    world.wait(lambda: camera.counts.resets == 5, "the count")
    assert camera.counts.last_reset == "requested"


@pytest.mark.parametrize(
    ("offset", "max_age_ms", "reason", "level"),
    [
        (3600, 0.0, Reason.STAMPS_IN_FUTURE, WARN),
        (-60, 0.0, Reason.RESULTS_LATE, ERROR),
        (-60, 100.0, Reason.IMAGES_TOO_OLD, ERROR),
    ],
)
def test_stamps_far_from_the_clock_are_reported(world, offset, max_age_ms, reason, level):
    world.camera_node(max_age_ms=max_age_ms, **SOON)
    world.tables()
    stream(world, world.publisher(), stamp=lambda: world.now() + offset)
    message, values = reported(world, reason, level)
    assert f"{abs(offset)}." in message or f"{abs(offset) - 1}." in message
    assert (int(values["expired"]) > 0) == (reason is Reason.IMAGES_TOO_OLD)


def test_a_subscriber_that_no_message_can_reach_is_named_until_it_leaves(world):
    world.camera_node(**SOON)
    stream(world, world.publisher())
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    reader = world.tester.create_subscription(
        TrackedInstanceArray, "/video_knet/instances", lambda m: None, latched
    )
    message, _ = reported(world, Reason.OUTPUT_QOS_INCOMPATIBLE, WARN)
    assert "/video_knet/instances" in message and "durability" in message
    world.tester.destroy_subscription(reader)
    reported(world, Reason.NO_SUBSCRIBERS, OK)


def test_only_what_is_deliberate_and_harmless_is_ok():
    assert [r for r in Reason if r.level is Level.OK] == [Reason.NO_SUBSCRIBERS]


def test_a_line_that_is_logged_with_each_image_is_throttled_and_others_are_not():
    times = iter([0.0] * 101 + [11.0, 11.1])
    throttle = Throttle(lambda: next(times))

    def passes(line: int, number: int) -> tuple[bool, str]:
        record = logging.LogRecord("core", logging.INFO, "a.py", line, "reset %d", (number,), None)
        return throttle.filter(record), record.getMessage()

    assert sum(passes(1, i)[0] for i in range(100)) == Throttle.FIRST
    assert passes(2, 0) == (True, "reset 0")
    passed, message = passes(1, 100)
    assert passed and message.startswith("reset 100 (97 more")
    assert passes(1, 101) == (True, "reset 101")


def test_an_engine_that_is_being_opened_is_a_warning_at_once_and_an_error_in_time(world):
    go_on = threading.Event()

    def open_late(path, **options):
        assert go_on.wait(20)
        return world.open_painted(path)

    world.camera_node(wait=False, open_runtime=open_late, **SOON)
    _, values = reported(world, Reason.CONFIGURING, WARN)
    assert values["state"] == "configuring"
    reported(world, Reason.CONFIGURING, ERROR)
    go_on.set()
    world.report(lambda v: v["state"] == "active")


@pytest.mark.parametrize(
    ("counts", "reason", "early"),
    [
        ({"late": 3}, Reason.IMAGES_LATE, WARN),
        ({"failed": 3}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 3, "skipped": 9}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 3, "limited": 9}, Reason.ALL_FRAMES_FAILED, ERROR),
        ({"failed": 1, "skipped": 9}, Reason.ENGINE_BUSY, WARN),
        ({"skipped": 9}, Reason.ENGINE_BUSY, WARN),
        ({"skipped": 9, "limited": 9}, Reason.ENGINE_BUSY, WARN),
    ],
)
def test_what_became_of_images_without_a_result_is_a_reason_and_an_error_in_time(
    counts, reason, early
):
    status = NodeStatus("camera", "active", subscription="image", publishers=("driver",))
    since = FrameCounts(arrived=11.9, last_result=10.0, watched_since=0.0, **counts)
    for error_after, level in ((5.0, early), (1.5, ERROR)):
        diagnosis = Diagnosis(status, since, Limits(1.0, error_after, max_rate=10.0), now=12.0)
        assert diagnosis.found()[0][:2] == (level, reason.key)
