"""Results to messages, against arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import Image

from video_knet_core.messages.result_messages import latency_ms, nanoseconds
from video_knet_ros.outputs import CONVERSIONS


def test_labels_travel_little_endian():
    labels = np.array([[0, 1, 2], [255, 256, 65535]], np.uint16)
    message = CONVERSIONS.image_message(Image().header, "16UC1", labels)
    assert (message.encoding, message.step, message.is_bigendian) == ("16UC1", 6, 0)
    assert bytes(message.data) == bytes([0, 0, 1, 0, 2, 0, 255, 0, 0, 1, 255, 255])


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, 1_700_000_000_123_456_789])
def test_stamps_survive_the_round_trip(stamp):
    assert nanoseconds(CONVERSIONS.time_message(stamp)) == stamp


def test_latency_is_unknown_without_a_stamp_or_a_clock():
    assert latency_ms(1_000_000_000, 1_025_000_000) == 25.0
    assert math.isnan(latency_ms(0, 5))
    assert math.isnan(latency_ms(5, 0))
