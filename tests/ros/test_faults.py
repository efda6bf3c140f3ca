"""Faults around a robot: how the node handles and reports them.

docs/troubleshooting.md has a table of these. The other rows of it are tested in test_node_input.py
(images that cannot be used, an engine that fails), test_node_control.py (models) and
test_snapshot.py (a full disk).
"""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from harness import RELIABLE, image_message, stamps, street
from rosgraph_msgs.msg import Clock

from video_knet_ros.outputs import CONVERSIONS


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
