"""Results to messages, against arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness import CLASSES, image_message
from sensor_msgs.msg import Image

from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.messages.result_messages import latency_ms, nanoseconds
from video_knet_ros.conversions import CONVERSIONS

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def test_labels_travel_little_endian():
    labels = np.array([[0, 1, 2], [255, 256, 65535]], np.uint16)
    message = CONVERSIONS.image_message(Image().header, "16UC1", labels)
    assert (message.encoding, message.step, message.is_bigendian) == ("16UC1", 6, 0)
    assert bytes(message.data) == bytes([0, 0, 1, 0, 2, 0, 255, 0, 0, 1, 255, 255])


def test_an_image_survives_the_round_trip():
    assert np.array_equal(to_rgb(image_message(RGB)), RGB)


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789])
def test_stamps_survive_the_round_trip(stamp):
    assert nanoseconds(CONVERSIONS.time_message(stamp)) == stamp


def test_latency_is_unknown_without_a_stamp_or_a_clock():
    assert latency_ms(1_000_000_000, 1_025_000_000) == 25.0
    assert math.isnan(latency_ms(0, 5))
    assert math.isnan(latency_ms(5, 0))


def test_the_class_map_has_all_rows_in_order():
    rows = CONVERSIONS.class_map(CLASSES).classes
    assert [(r.id, r.name, r.is_thing, (r.r, r.g, r.b)) for r in rows] == [
        (c.id, c.name, c.is_thing, c.color) for c in CLASSES
    ]
