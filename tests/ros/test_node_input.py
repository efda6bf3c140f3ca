"""What the camera node makes of cameras: their QoS, their encodings, and images nobody can use."""

from __future__ import annotations

from array import array

import cv2
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from harness import BEST_EFFORT, RELIABLE, image_message, street
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image


@pytest.mark.parametrize("offered", [RELIABLE, BEST_EFFORT])
def test_auto_takes_the_reliability_that_the_camera_offers(world, offered):
    world.camera_node()
    tables = world.tables()
    world.send(world.publisher(offered), tables, street())
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
    "wrong step: 7 bytes": broken(step=7),
    "unknown encoding 'teal9'": broken(encoding="teal9"),
    "wrong amount of data: 100 bytes": broken(data=array("B", bytes(100))),
    "wrong amount of data: 0 bytes": broken(data=array("B")),
}


@pytest.mark.parametrize("reason", BROKEN_IMAGES)
def test_a_bad_image_is_counted_and_logged_and_the_node_goes_on(world, reason, capfd):
    camera = world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    world.send(camera_topic, tables, street(1))
    camera_topic.publish(BROKEN_IMAGES[reason])
    world.wait(lambda: camera.counts.failed == 1, "the failure")
    assert reason in camera.counts.last_failure
    world.wait(lambda: f"frame dropped: {reason}" in capfd.readouterr().err, "the log")
    _, table = world.send(camera_topic, tables, street(2))
    assert table.sequence == 1 and len(tables) == 2
    assert {r.age for r in table.instances if r.is_thing} == {2}


def test_failed_images_are_told_in_the_diagnostics(world):
    world.camera_node()
    camera_topic = world.publisher()
    camera_topic.publish(BROKEN_IMAGES["wrong step: 7 bytes"])
    level, message, values = world.report(lambda v: v["failed"] == "1")
    reason = "wrong step: 7 bytes, wanted at least 288 for 96 rgb8 pixels"
    assert values["last_failure"] == reason
    assert (level, message) == (DiagnosticStatus.WARN, f"1 frames failed: {reason}")


def test_a_bad_compressed_image_is_counted_and_the_node_goes_on(world):
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
    world.wait(lambda: tables, "a table")
    assert (camera.counts.processed, camera.counts.failed) == (1, 2)


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


def test_silence_is_reported_with_the_topic(world):
    world.camera_node()
    level, message, _ = world.report(lambda v: v["state"] == "active" and v["received"] == "0")
    assert level == DiagnosticStatus.WARN
    assert message == "no images on /video_knet/image (best_effort)"


def test_diagnostics_name_model_engine_and_rates(world):
    world.camera_node()
    tables = world.tables()
    camera_topic = world.publisher()
    for i in range(3):
        world.send(camera_topic, tables, street(i))
    level, _, values = world.report(lambda v: float(v["fps_out"]) > 0 or v["processed"] == "3")
    assert values["model"] == "painted-street" and values["engine"] == "painted"
    assert float(values["inference_ms"]) > 0
    assert values["subscription"] == "/video_knet/image (reliable)"
