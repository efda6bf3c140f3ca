"""How the camera node handles cameras: their QoS, encodings, rates and clocks, and unusable images.

docs/how-to/troubleshooting.md has a table of faults. Those not tested here are tested in
test_diagnostics.py, test_lifecycle.py (engines, models) and test_snapshot.py (a full disk).
"""

from __future__ import annotations

from array import array

import cv2
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from harness import BEST_EFFORT, RELIABLE, image_message, stamps, street
from rcl_interfaces.msg import Log
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from video_knet_core import visualize
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_ros.input_images import RateLimit
from video_knet_ros.outputs import CONVERSIONS

VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


@pytest.mark.parametrize("durability", [VOLATILE, TRANSIENT_LOCAL])
@pytest.mark.parametrize("offered", [RELIABLE, BEST_EFFORT])
def test_auto_takes_whatever_the_camera_offers(world, offered, durability):
    world.camera_node()
    tables = world.tables()
    profile = QoSProfile(depth=1, durability=durability, reliability=offered.reliability)
    world.send(world.publisher(profile), tables, street())
    assert world.reliability() == offered.reliability


def test_auto_follows_when_publishers_come_and_go(world):
    world.camera_node()
    world.wait(lambda: world.reliability() == ReliabilityPolicy.BEST_EFFORT, "a first guess")
    tables = world.tables()
    reliable = world.publisher(RELIABLE)
    world.send(reliable, tables, street(1))
    best_effort = world.publisher(BEST_EFFORT)
    world.send(best_effort, tables, street(2))
    world.send(reliable, tables, street(3))
    world.tester.destroy_publisher(best_effort)
    world.wait(lambda: world.reliability() == ReliabilityPolicy.RELIABLE, "the reliable one")
    world.send(reliable, tables, street(4))


def test_a_fixed_reliability_is_kept_and_may_change_at_run_time(world):
    world.camera_node(reliability="best_effort")
    tables = world.tables()
    reliable = world.tester.create_publisher(Image, "/video_knet/image", RELIABLE)
    world.wait(lambda: world.reliability() == ReliabilityPolicy.BEST_EFFORT, "the subscription")
    world.wait(reliable.get_subscription_count, "the match")
    world.send(reliable, tables, street())
    assert world.reliability() == ReliabilityPolicy.BEST_EFFORT
    assert world.set_parameter("reliability", "reliable").successful
    world.wait(lambda: world.reliability() == ReliabilityPolicy.RELIABLE, "the change")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images(world, suffix):
    world.camera_node(compressed=True)
    tables = world.tables()
    camera_topic = world.publisher(RELIABLE, "image/compressed", CompressedImage)
    assert world.reliability("image") is None
    ok, data = cv2.imencode(suffix, street(scale=2)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    message = CompressedImage(format=suffix[1:], data=array("B", data.tobytes()))
    message.header = image_message(street()).header
    camera_topic.publish(message)
    (table,) = world.wait(lambda: tables, "a table")
    assert table.header == message.header
    assert (table.height, table.width) == street(scale=2).shape[:2]


def broken(**change) -> Image:
    message = image_message(street())
    for name, value in change.items():
        setattr(message, name, value)
    return message


BROKEN_IMAGES = {
    "empty image": broken(height=0, width=0, step=0, data=array("B")),
    "wrong step: expected at least 288 bytes for 96 rgb8 pixels, got 7": broken(step=7),
    "wrong amount of data: expected 13824 bytes": broken(data=array("B", bytes(100))),
    "unknown encoding 'teal9'": broken(encoding="teal9"),
}


@pytest.mark.parametrize("reason", BROKEN_IMAGES)
def test_a_bad_image_is_counted_and_reported_and_costs_one_frame(world, reason):
    camera = world.camera_node()
    tables, logs = world.tables(), []
    profile = QoSProfile(depth=100, durability=TRANSIENT_LOCAL)
    world.tester.create_subscription(Log, "/rosout", lambda m: logs.append(m.msg), profile)
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street(1), step=world.now() - 100)  # not late
    camera_topic.publish(BROKEN_IMAGES[reason])
    _, message, values = world.report(lambda v: v["failed"] == "1", DiagnosticStatus.WARN)
    assert message.startswith(f"1 frames failed: {reason}") and values["state"] == "active"
    assert reason in camera.counts.last_failure == values["last_failure"]
    world.wait(lambda: any(f"frame dropped: {reason}" in line for line in logs), "the log")
    _, table = world.send(camera_topic, tables, street(2))
    assert table.sequence == 1 and len(tables) == 2
    assert {r.age for r in table.instances if r.is_thing} == {2}


def test_a_bad_compressed_image_is_counted_and_costs_one_frame(world):
    camera = world.camera_node(compressed=True)
    tables = world.tables()
    camera_topic = world.publisher(RELIABLE, "image/compressed", CompressedImage)
    ok, data = cv2.imencode(".jpg", street(scale=4))
    whole, header = data.tobytes(), image_message(street()).header
    for content in (b"", whole[: len(whole) // 2]):
        camera_topic.publish(
            CompressedImage(header=header, format="jpeg", data=array("B", content))
        )
        reason = "truncated" if content else "not an image"
        world.wait(lambda reason=reason: reason in camera.counts.last_failure, reason)
    camera_topic.publish(CompressedImage(header=header, format="jpeg", data=array("B", whole)))
    world.wait(lambda: tables and camera.counts.processed == 1, "a table")
    assert camera.counts.failed == 2


def test_a_frame_that_cannot_be_published_has_failed_and_is_not_processed(world, monkeypatch):
    camera = world.camera_node()
    tables, overlays = world.tables(), world.collect(Image, "overlay/image")
    camera_topic = world.publisher()
    with monkeypatch.context() as patched:
        patched.setattr(visualize, "overlay", lambda *_: 1 / 0)
        _, first = world.send(camera_topic, tables, street(1))
        world.wait(lambda: camera.counts.failed == 1, "the failure")
    _, second = world.send(camera_topic, tables, street(2))
    world.wait(lambda: camera.counts.processed == 1 and overlays, "the next frame")
    assert (camera.counts.received, camera.counts.failed, len(overlays)) == (2, 1, 1)
    assert (first.sequence, second.sequence) == (0, 1), "no number is given twice"


def test_an_engine_error_costs_one_frame(world):
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    poisoned = street(1)
    poisoned[0, 0, 2] = 66
    camera_topic.publish(image_message(poisoned, 1.0))
    world.wait(lambda: camera.counts.failed == 1, "the failure")
    assert camera.counts.last_failure == "RuntimeError: the engine broke"
    world.send(camera_topic, tables, street(2))


def test_another_image_size_starts_a_new_epoch_and_is_no_error(world):
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    _, before = world.send(camera_topic, tables, street(1, scale=1))
    _, after = world.send(camera_topic, tables, street(2, scale=2))
    assert after.tracker_epoch == before.tracker_epoch + 1
    assert (after.height, after.width) == (2 * before.height, 2 * before.width)
    ids = [{r.track_id for r in t.instances if r.is_thing} for t in (before, after)]
    assert not ids[0] & ids[1]
    assert camera.counts.failed == 0


def test_images_that_are_too_old_are_not_processed(world):
    camera = world.camera_node(max_age_ms=3.6e6)
    tables = world.tables()
    camera_topic = world.publisher()
    now = world.now()
    camera_topic.publish(image_message(street(1), now - 7200))
    world.wait(lambda: camera.counts.expired == 1, "the old image")
    camera_topic.publish(image_message(street(2), now))
    (table,) = world.wait(lambda: tables, "a table")
    assert (table.skipped, stamps(tables)) == (1, [nanoseconds(table.header.stamp)])
    assert world.runtimes[0].seen == [2]
    assert world.set_parameter("max_age_ms", 0.0).successful
    camera_topic.publish(image_message(street(3), now - 7200))
    world.wait(lambda: len(tables) == 2, "a table of an old image")


def test_the_rate_can_be_limited_and_dropped_images_are_counted(world):
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street())
    assert world.set_parameter("max_rate", 0.001).successful
    for i in range(4):
        camera_topic.publish(image_message(street(i), 200.0 + i))
        world.wait(lambda i=i: camera.counts.received == 2 + i, f"image {i}")
    assert camera.counts.limited == 3
    assert world.set_parameter("max_rate", 0.0).successful
    world.wait(lambda: len(tables) == 2, "the first image under the limit")
    world.send(camera_topic, tables, street(5), step=200)
    assert sum(table.skipped for table in tables) == 3


def test_a_rate_limit_takes_evenly_spaced_images():
    times = iter(i / 30 for i in range(301))
    limit = RateLimit(lambda: next(times))
    taken = [i for i in range(301) if limit.accepts(10.0)]
    assert taken == list(range(0, 301, 3))
    jittered = iter(sorted(i / 30 + 0.009 * (-1) ** i for i in range(301)))
    limit = RateLimit(lambda: next(jittered))
    assert sum(limit.accepts(10.0) for _ in range(301)) == pytest.approx(101, abs=2)


def test_a_changed_rate_begins_a_new_schedule_at_once():
    times = iter([0.0, 0.1, 0.2, 0.25, 0.31])
    limit = RateLimit(lambda: next(times))
    assert [limit.accepts(0.1), limit.accepts(0.1)] == [True, False]
    assert [limit.accepts(10.0), limit.accepts(10.0), limit.accepts(10.0)] == [True, False, True]


def test_diagnostics_name_model_engine_and_rates(world):
    world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(3):
        world.send(camera_topic, tables, street(i))
    level, _, values = world.report(lambda v: float(v["fps_out"]) > 0 or v["processed"] == "3")
    assert values["model"] == "painted-street" and values["engine"] == "painted"
    assert float(values["inference_ms"]) >= 0, "known; the painted engine needs microseconds"
    assert values["subscription"] == "/video_knet/image (reliable)"


def things(table) -> set[int]:
    return {row.track_id for row in table.instances if row.is_thing}


def test_a_looping_bag_starts_a_new_epoch_and_times_stay_right(world, caplog):
    caplog.set_level("INFO", "video_knet_core.predictor")
    camera = world.camera_node(use_sim_time=True)
    tables = world.tables()
    camera_topic = world.publisher()
    clock = world.tester.create_publisher(Clock, "/clock", RELIABLE)
    world.wait(clock.get_subscription_count, "a reader of the clock")
    for start, epoch in ((500.0, 0), (20.0, 1)):
        for i in range(2):
            stamp = start + 0.1 * i
            now = round((stamp + 0.03) * 1e9)
            clock.publish(Clock(clock=CONVERSIONS.time_message(now)))
            world.wait(lambda now=now: camera.get_clock().now().nanoseconds == now, "the clock")
            camera_topic.publish(image_message(street(i), stamp))
            world.wait(lambda n=2 * epoch + i: len(tables) > n, "a table")
            assert tables[-1].latency_ms == pytest.approx(30.0, abs=0.01)
            assert tables[-1].tracker_epoch == tables[0].tracker_epoch + epoch
    ids = [things(table) for table in tables]
    assert ids[0] == ids[1] and ids[2] == ids[3] and ids[0] and not ids[0] & ids[2]
    assert "tracker reset: the stamp went back by 480.100 s" in caplog.text
    assert camera.counts.failed == 0


@pytest.mark.parametrize(
    "stamp",
    [Time(sec=-(2**31)), Time(sec=5, nanosec=2**32 - 1)],
    ids=["negative", "nanoseconds over a second"],
)
def test_a_stamp_that_no_clock_gives_comes_back_unchanged(world, stamp):
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(2):
        message = image_message(street(i))
        message.header.stamp = stamp
        camera_topic.publish(message)
        world.wait(lambda i=i: len(tables) == i + 1, "a table")
        assert tables[-1].header.stamp == stamp
    assert camera.counts.failed == 0
    world.send(camera_topic, tables, street(2))


def test_of_many_images_during_a_frame_the_newest_gets_through_and_all_others_are_counted(world):
    """A camera at 200 Hz and a processor that needs 0.1 s for a frame."""
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    counts, (engine,) = camera.counts, world.runtimes
    newest: list[int] = []
    engine.gate.clear()
    for frame in range(4):
        for i in range(20):
            message = image_message(street(20 * frame + i), world.now())
            camera_topic.publish(message)
            received = 20 * frame + i + 1
            world.wait(lambda n=received: counts.received == n, "the image")
            if i == 0:  # the others come while it is in the engine
                world.wait(lambda n=20 * frame: n in engine.seen, "the engine")
        newest.extend([20 * frame, 20 * frame + 19])
        engine.gate.set()
        world.wait(lambda: len(tables) == len(newest), "the newest image")
        engine.gate.clear()
        assert tables[-1].header == message.header
    assert engine.seen == newest
    world.wait(lambda: counts.processed == len(tables), "the count, which comes after the table")
    assert (counts.received, counts.processed, counts.skipped) == (80, 8, 72)
    assert [table.skipped for table in tables] == [0, 18] * 4
    assert stamps(tables) == sorted(stamps(tables))
    _, _, values = world.report(lambda v: v["skipped"] == str(counts.skipped))
    assert values["failed"] == "0"
