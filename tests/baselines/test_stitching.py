"""The tracker of ViP-DeepLab: ids by overlaps with the slots of the last frame."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from baselines.stitching import StitchingTracker
from video_knet_core.config_io import ConfigError
from video_knet_core.geometry import Regions
from video_knet_core.tracking import TRACKERS
from video_knet_core.types import Detections

FRAME = 100_000_000
PERSON, VEHICLE = 8, 10
SLOTS = 5


def seen(*things, classes=None):
    """Detections of a frame; a thing is its slot, and its overlaps by slot of the last frame."""
    overlaps = np.zeros((len(things), SLOTS), np.float32)
    for row, (_, found) in zip(overlaps, things, strict=True):
        row[list(found)] = list(found.values())
    count = len(things)
    regions = Regions(
        areas=np.full(count, 50),
        boxes=np.tile([10, 10, 20, 20], (count, 1)),
        centroids=np.full((count, 2), 20.0),
        truncated=np.zeros(count, bool),
    )
    return Detections(
        segment_map=np.zeros((1, 1), np.uint8),
        class_ids=np.array(classes or [VEHICLE] * count, np.int64),
        scores=np.full(count, 0.9, np.float32),
        areas=regions.areas,
        embeddings=overlaps,
        slots=np.array([slot for slot, _ in things], np.int64),
        regions=regions,
        image_size=(480, 640),
    )


def ids_over(*frames):
    """Ids of the detections of each frame."""
    tracker = StitchingTracker()
    return [
        tracker.update(frame, t * FRAME).rows["track_id"].tolist() for t, frame in enumerate(frames)
    ]


def test_ids_persist_through_three_frames_though_slots_change():
    """Two objects: slots 0 and 3, then 1 and 0, then 4 and 2."""
    first = seen((0, {}), (3, {}))
    second = seen((1, {0: 0.8, 3: 0.1}), (0, {3: 0.7}))
    third = seen((2, {0: 0.6}), (4, {1: 0.9}))
    assert ids_over(first, second, third) == [[1, 2], [1, 2], [2, 1]]


def test_a_new_object_has_a_new_id():
    assert ids_over(seen((0, {})), seen((0, {}), (1, {0: 0.5}))) == [[1], [2, 1]]


def test_an_object_that_is_not_seen_in_a_frame_has_ended():
    """The network cannot recognise it; its slot of two frames ago says nothing."""
    tracker = StitchingTracker()
    tracker.update(seen((0, {}), (1, {})), 0)
    update = tracker.update(seen((0, {1: 0.9})), FRAME)
    assert (update.rows["track_id"].tolist(), update.ended) == ([2], (1,))
    update = tracker.update(seen((1, {}), (0, {0: 0.9})), 2 * FRAME)
    assert (update.rows["track_id"].tolist(), update.born) == ([3, 2], (3,))


def test_the_largest_overlap_goes_first():
    """Both halves of what was one object overlap with it, and the larger keeps the id."""
    assert ids_over(seen((0, {})), seen((0, {0: 0.3}), (1, {0: 0.6})))[1] == [2, 1]


def test_an_object_whose_best_partner_is_taken_gets_the_next_best():
    first = seen((0, {}), (1, {}))
    second = seen((0, {0: 0.9}), (1, {0: 0.5, 1: 0.2}))
    assert ids_over(first, second) == [[1, 2], [1, 2]]


def test_an_id_stays_in_its_class():
    first = seen((0, {}), classes=[PERSON])
    assert ids_over(first, seen((0, {0: 0.9}))) == [[1], [2]]


def test_ids_continue_after_a_reset_and_overlaps_do_not():
    tracker = StitchingTracker()
    tracker.update(seen((0, {})), 0)
    tracker.reset()
    assert tracker.update(seen((0, {0: 0.9})), FRAME).rows["track_id"].tolist() == [2]


def test_a_network_that_returns_something_else_is_an_error():
    tracker = StitchingTracker()
    tracker.update(seen((SLOTS, {})), 0)
    with pytest.raises(ConfigError, match="vip_deeplab"):
        tracker.update(seen((0, {})), FRAME)


def test_it_is_registered_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import baselines.trackers; "
        "from video_knet_core.tracking.tracker import TRACKERS; assert 'stitching' in TRACKERS"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert TRACKERS["stitching"] is StitchingTracker
