"""Results to messages, and masks as run lengths, by hand and through random masks."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import numpy as np
import pytest
from harness import CLASSES
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import Image, RegionOfInterest
from video_knet_ros.msg import TrackedInstance

from video_knet_core.geometry import LabelMap
from video_knet_core.messages.result_messages import (
    FrameToPublish,
    latency_ms,
    mask_from_rle,
    nanoseconds,
    run_lengths,
)
from video_knet_core.types import PanopticFrame, StageTimes, Track, TrackState, TrackTable
from video_knet_ros.outputs import CONVERSIONS

LABEL = 3


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


def track(box: tuple[int, int, int, int], label: int = LABEL) -> Track:
    return Track(
        label=label,
        track_id=7,
        class_id=3,
        is_thing=True,
        state=TrackState.CONFIRMED,
        score=0.9,
        track_score=0.8,
        age=1,
        first_seen=1,
        last_seen=1,
        box=box,
        centroid=(0.0, 0.0),
        velocity=(math.nan, math.nan),
        area=1,
        truncated=False,
    )


def row(rle: np.ndarray, width: int, height: int) -> TrackedInstance:
    return TrackedInstance(
        rle=array("I", rle.tolist()), roi=RegionOfInterest(width=width, height=height)
    )


@pytest.mark.parametrize(
    ("box", "runs"),
    [
        (["###", "###"], [0, 6]),
        (["#"], [0, 1]),
        (["#..", ".##"], [0, 1, 3, 2]),
        ([".#.", "###", ".#."], [1, 1, 1, 3, 1, 1, 1]),
        (["..#", "#.."], [2, 2, 2]),  # a run continues in the next row
        (["#.#"], [0, 1, 1, 1]),
    ],
)
def test_runs_go_row_by_row_and_begin_with_background(box, runs):
    mask = np.array([[c == "#" for c in line] for line in box])
    rle = run_lengths(mask)
    assert (rle.dtype, rle.tolist()) == (np.uint32, runs)
    assert np.array_equal(mask_from_rle(row(rle, len(box[0]), len(box))), mask)


@given(st.data())
def test_every_mask_survives(data):
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    mask = rng.random((height, width)) < data.draw(st.floats(0, 1))
    rle = run_lengths(mask)
    assert all(rle[1:]) and sum(rle) == mask.size and sum(rle[1::2]) == mask.sum()
    assert np.array_equal(mask_from_rle(row(rle, width, height)), mask)


def test_no_runs_are_an_empty_mask():
    assert not mask_from_rle(row(np.zeros(0), 2, 2)).any()


def test_runs_that_do_not_fill_the_roi_are_rejected():
    with pytest.raises(ValueError, match="rle: expected .* 6 .* got 5"):
        mask_from_rle(row(np.array([0, 5]), 3, 2))


def test_the_table_has_masks_of_what_has_pixels_and_only_on_request():
    labels = np.ones((4, 4), np.uint16)  # what lies around does not count
    labels[1:3, 1:4] = LABEL
    labels[2, 3] = 1
    frame = PanopticFrame(
        stamp=1,
        label_map=LabelMap.of(labels),
        tracks=TrackTable.of([track((1, 1, 3, 2)), track((0, 0, 4, 4), label=0)]),
        born=(),
        ended=(),
        epoch=0,
        times=StageTimes(0.0, 1.0, 0.0, 0.0),
    )
    result = FrameToPublish(Image().header, np.zeros((4, 4, 3), np.uint8), frame, CLASSES, 0, 0)
    without = CONVERSIONS.instance_array(result)
    assert [list(i.rle) for i in without.instances] == [[], []]
    table = CONVERSIONS.instance_array(replace(result, rle=True))
    assert [list(i.rle) for i in table.instances] == [[0, 5, 1], []]
