"""The tracked things as vision_msgs."""

from __future__ import annotations

import pytest

pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

import numpy as np
from harness import CLASSES, HEIGHT, PERSON, RELIABLE, WIDTH, PaintedRuntime, stamps, street
from rclpy.node import Node
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.predictor import VideoPredictor
from video_knet_core.types import PanopticFrame
from video_knet_ros.outputs import CONVERSIONS, LATCHED

HEADER = Header(frame_id="front", stamp=CONVERSIONS.time_message(5_000_000_007))
THINGS = {"2": "person", "3": "vehicle"}


def frames(*images: np.ndarray) -> list[PanopticFrame]:
    predictor = VideoPredictor(PaintedRuntime())
    return [predictor.step(image, (i + 1) * 100_000_000) for i, image in enumerate(images)]


def detections(frame: PanopticFrame) -> Detection2DArray:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return CONVERSIONS.detections(FrameToPublish(HEADER, image, frame, CLASSES, 0, 0))


def test_each_thing_with_pixels_is_a_detection():
    (frame,) = frames(street())
    message = detections(frame)
    tracks = {f"{frame.epoch}/{t.track_id}": t for t in frame.tracks if t.is_thing}
    assert message.header == HEADER and len(tracks) == 2
    assert {d.id for d in message.detections} == set(tracks)
    for detection in message.detections:
        track = tracks[detection.id]
        (result,) = detection.results
        assert detection.header == HEADER
        assert result.hypothesis.class_id == str(track.class_id)
        assert THINGS[result.hypothesis.class_id] == CLASSES[track.class_id].name
        assert result.hypothesis.score == pytest.approx(track.score)


def test_the_box_holds_the_pixels_exactly():
    (frame,) = frames(street(things=(PERSON,)))
    (detection,) = detections(frame).detections
    label = next(t.label for t in frame.tracks if t.is_thing)
    rows, columns = np.nonzero(frame.labels == label)
    box, centre = detection.bbox, detection.bbox.center.position
    assert centre.x - box.size_x / 2 == columns.min()
    assert centre.x + box.size_x / 2 == columns.max() + 1
    assert centre.y - box.size_y / 2 == rows.min()
    assert centre.y + box.size_y / 2 == rows.max() + 1
    assert box.center.theta == 0


def test_ids_stay_and_coasted_tracks_are_left_out():
    *_, both, one = frames(*map(street, range(5)), street(5, things=(PERSON,)))
    before = detections(both).detections
    after = detections(one).detections
    assert any(t.label == 0 for t in one.tracks), "the car should coast"
    (person,) = after
    assert person.id in {d.id for d in before}


def test_the_ids_of_two_epochs_differ():
    predictor = VideoPredictor(PaintedRuntime(), first_epoch=2**48)
    first = detections(predictor.step(street(), 1)).detections
    predictor.reset()
    second = detections(predictor.step(street(), 2)).detections
    assert [d.id for d in first] == ["281474976710656/1", "281474976710656/2"]
    assert [d.id for d in second] == ["281474976710657/3", "281474976710657/4"]


def test_a_thing_without_a_track_has_an_empty_id():
    class Unsure(PaintedRuntime):
        def step(self, image, state):
            segments, state = super().step(image, state)
            segments.scores[:] = 0.2  # below birth_score
            return segments, state

    frame = VideoPredictor(Unsure()).step(street(), 1)
    found = detections(frame).detections
    assert [d.id for d in found] == ["", ""]


def test_the_names_of_the_class_ids_are_published():
    message = CONVERSIONS.label_info(HEADER, CLASSES)
    assert {c.class_id: c.class_name for c in message.class_map} == {c.id: c.name for c in CLASSES}
    assert (message.header, message.threshold) == (HEADER, 0.0)


def test_both_travel(world):
    (frame,) = frames(street())
    sender = world.add(Node("sender"))
    names = sender.create_publisher(LabelInfo, "label_info", LATCHED)
    names.publish(CONVERSIONS.label_info(HEADER, CLASSES))
    things = sender.create_publisher(Detection2DArray, "detections", RELIABLE)
    got: list = []
    world.tester.create_subscription(LabelInfo, "label_info", got.append, LATCHED)
    world.tester.create_subscription(Detection2DArray, "detections", got.append, RELIABLE)
    world.wait(lambda: got, "the latched names")
    world.wait(things.get_subscription_count, "the reader")
    sent = detections(frame)
    things.publish(sent)
    world.wait(lambda: len(got) == 2, "the detections")
    assert got[1] == sent and stamps(got) == [5_000_000_007] * 2
