"""The tracker of Motion-DeepLab; a fraction of an image of 100 x 100 pixels is a percentage."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from baselines.motion_offsets import KEPT_FRAMES, MotionOffsetTracker
from video_knet_core.config_io import ConfigError
from video_knet_core.geometry import Regions
from video_knet_core.tracking import TRACKERS
from video_knet_core.types import Detections

FRAME = 100_000_000
PERSON, VEHICLE = 8, 10


def seen(*things, size=10, classes=None, scores=None):
    """Detections of a frame; a thing is x, y of its centre and dx, dy to the previous one."""
    count = len(things)
    cues = np.array(things, np.float32).reshape(count, 4)
    boxes = np.zeros((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = cues[:, :2] - size / 2, size
    regions = Regions(
        areas=np.full(count, 50),
        boxes=boxes,
        centroids=cues[:, :2].astype(np.float64),
        truncated=np.zeros(count, bool),
    )
    return Detections(
        segment_map=np.zeros((1, 1), np.uint8),
        class_ids=np.array(classes or [VEHICLE] * count, np.int64),
        scores=np.array(scores or [0.9] * count, np.float32),
        areas=regions.areas,
        embeddings=cues / 100,
        regions=regions,
        image_size=(100, 100),
    )


def ids(frames):
    """Ids of the detections of each frame."""
    tracker = MotionOffsetTracker()
    updates = [tracker.update(frame, t * FRAME) for t, frame in enumerate(frames)]
    return [update.rows["track_id"].tolist() for update in updates]


def test_every_segment_has_a_track_at_once():
    assert ids([seen((20, 50, 0, 0), (80, 50, 0, 0), scores=[0.1, 0.9])]) == [[2, 1]]


def test_objects_that_cross_are_told_apart_by_their_offsets():
    apart = seen((46, 50, 0, 0), (54, 50, 0, 0))
    crossed = seen((54, 50, -8, 0), (46, 50, 8, 0))
    assert ids([apart, crossed]) == [[1, 2], [1, 2]]
    by_place_alone = seen((54, 50, 0, 0), (46, 50, 0, 0))
    assert ids([apart, by_place_alone]) == [[1, 2], [2, 1]]


def test_a_segment_farther_away_than_the_radius_of_the_track_starts_a_new_one():
    first = seen((50, 50, 0, 0))  # its box is 10 x 10, so the radius is 10
    assert ids([first, seen((59, 50, 0, 0))]) == [[1], [1]]
    assert ids([first, seen((61, 50, 0, 0))]) == [[1], [2]]
    assert ids([first, seen((61, 50, -3, 0))]) == [[1], [1]]


def test_the_radius_is_that_of_the_box_of_the_track_not_of_the_segment():
    large, small = seen((50, 50, 0, 0), size=30), seen((70, 50, 0, 0), size=4)
    assert ids([large, small]) == [[1], [1]]
    assert ids([small, seen((50, 50, 0, 0), size=30)]) == [[1], [2]]


def test_classes_must_agree():
    vehicle, person = (seen((50, 50, 0, 0), classes=[c]) for c in (VEHICLE, PERSON))
    assert ids([vehicle, person]) == [[1], [2]]


def test_the_surer_segment_chooses_first():
    first = seen((50, 50, 0, 0))
    both = seen((52, 50, 0, 0), (55, 50, 0, 0), scores=[0.5, 0.9])
    assert ids([first, both]) == [[1], [2, 1]]


def test_a_track_is_dropped_after_so_many_frames():
    first, nothing = seen((50, 50, 0, 0)), seen()
    hidden = [[] for _ in range(6)]
    assert ids([first, *[nothing] * 5, first]) == [[1], *hidden[:5], [1]]
    assert ids([first, *[nothing] * 6, first]) == [[1], *hidden, [2]]


def test_a_segment_seen_again_is_counted_anew():
    first, nothing = seen((50, 50, 0, 0)), seen()
    again = [first, *[nothing] * 5] * 3
    assert {n for frame in ids(again) for n in frame} == {1}


def test_tracks_that_end_are_forgotten():
    tracker = MotionOffsetTracker()
    frames = [seen((50, 50, 0, 0)), *[seen()] * KEPT_FRAMES]
    updates = [tracker.update(frame, t * FRAME) for t, frame in enumerate(frames)]
    assert [update.ended for update in updates if update.ended] == [(1,)]
    assert len(tracker.tracks) == 0
    assert ids_of(tracker) == set()


def ids_of(tracker) -> set[int]:
    return set(tracker._centers) | set(tracker._ages)


def test_a_kept_state_does_not_change_with_later_frames():
    tracker = MotionOffsetTracker()
    tracker.update(seen((50, 50, 0, 0)), 0)
    state = tracker.state()
    tracker.reset()
    tracker.update(seen((90, 90, 0, 0)), 10 * FRAME)
    tracker.restore(state)
    assert tracker.update(seen((52, 50, 0, 0)), FRAME).rows["track_id"].tolist() == [1]


def test_other_embeddings_are_an_error():
    frame = seen((50, 50, 0, 0))
    frame.__dict__["embeddings"] = frame.embeddings[:, :2]
    with pytest.raises(ConfigError):
        MotionOffsetTracker().update(frame, 0)


def test_it_is_registered_without_torch():
    code = "import sys, baselines.motion_offsets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert TRACKERS["motion_offsets"] is MotionOffsetTracker
