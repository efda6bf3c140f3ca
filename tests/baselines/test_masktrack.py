"""The tracker of MaskTrack R-CNN: its scores by hand, and which track a detection gets."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from baselines.masktrack import MaskTrackTracker, match_scores
from video_knet_core.config_io import ConfigError
from video_knet_core.geometry import NearestUpsampling
from video_knet_core.tracking import TRACKERS, tracker_settings
from video_knet_core.types import Detections

FRAME = 100_000_000
HEIGHT, WIDTH = 60, 100
A, B = (6.0, 0.0), (0.0, 6.0)


def seen(*things):
    """Detections of squares: x of the upper left, embedding, and optionally class and score."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    rows = [(*thing, 3, 0.9)[:4] if len(thing) == 2 else thing for thing in things]
    for slot, (x, *_) in enumerate(rows):
        labels[20:40, x : x + 20] = slot + 1
    regions = NearestUpsampling(labels.shape, labels.shape).measure(labels, len(rows))
    return Detections(
        segment_map=labels,
        class_ids=np.array([r[2] for r in rows], np.int64),
        scores=np.array([r[3] for r in rows], np.float32),
        areas=regions.areas,
        embeddings=np.array([r[1] for r in rows] or np.zeros((0, 2)), np.float32),
        regions=regions,
        image_size=(HEIGHT, WIDTH),
    )


def ids_of(tracker, *frames):
    """Track ids of the detections of each frame."""
    return [
        tracker.update(detections, i * FRAME).rows["track_id"].tolist()
        for i, detections in enumerate(frames)
    ]


def test_the_score_adds_probability_score_overlap_and_class():
    known, new = match_scores(
        np.array([[math.log(2), math.log(5)]]),
        np.array([0.5]),
        np.array([[0.25, 0.0]]),
        np.array([[True, False]]),
    )
    # a softmax over the products and a zero: 2, 5 and 1 of 8
    assert known[0].tolist() == pytest.approx(
        [math.log(2 / 8) + math.log(0.5) + 2 * 0.25 + 10, math.log(5 / 8) + math.log(0.5)]
    )
    assert new[0] == pytest.approx(math.log(1 / 8) + math.log(0.5) + 10)


def test_huge_products_have_finite_scores():
    known, new = match_scores(np.full((1, 2), 1e4), np.ones(1), np.zeros((1, 2)), np.ones((1, 2)))
    assert np.isfinite(known).all() and np.isfinite(new).all()


def test_objects_that_pass_each_other_keep_their_ids():
    frames = [seen((10, A), (60, B)), seen((60, A), (10, B))]
    assert ids_of(MaskTrackTracker(), *frames) == [[1, 2], [1, 2]]


def test_an_object_like_none_before_is_new():
    frames = [seen((10, A)), seen((10, A), (60, (-6.0, -6.0)))]
    assert ids_of(MaskTrackTracker(), *frames) == [[1], [1, 2]]


def test_where_embeddings_say_nothing_overlap_decides():
    frames = [seen((10, A), (50, A)), seen((52, A), (12, A))]
    assert ids_of(MaskTrackTracker(), *frames) == [[1, 2], [2, 1]]


def test_a_product_of_zero_alone_is_as_new_as_known():
    """Of two equal probabilities the overlap makes it the known one; without it is new."""
    away, there = seen((70, B)), seen((12, B))
    assert ids_of(MaskTrackTracker(), seen((10, A)), there) == [[1], [1]]
    assert ids_of(MaskTrackTracker(), seen((10, A)), away) == [[1], [2]]


def test_another_class_is_another_object_unless_all_else_speaks_against_it():
    assert ids_of(MaskTrackTracker(), seen((10, A)), seen((10, A, 4, 0.9))) == [[1], [1]]
    weak = (2.0, 0.0)
    assert ids_of(MaskTrackTracker(), seen((10, weak)), seen((10, weak, 4, 0.9))) == [[1], [2]]


def test_the_loser_of_a_track_has_its_next_best_or_is_new():
    frames = [seen((10, A)), seen((10, A), (60, (5.0, 0.0)))]
    assert ids_of(MaskTrackTracker(), *frames) == [[1], [1, 2]]


def test_an_object_is_recognised_after_it_was_hidden():
    tracker = MaskTrackTracker()
    visible = seen((10, A))
    assert ids_of(tracker, visible, visible, seen(), seen(), seen((60, A)))[-1] == [1]


def test_the_newest_embedding_is_remembered():
    between = (4.0, 4.0)
    frames = [seen((10, A)), seen((10, between)), seen((10, B))]
    assert ids_of(MaskTrackTracker(), *frames) == [[1], [1], [1]]


def test_a_network_without_embeddings_is_an_error():
    with pytest.raises(ConfigError):
        MaskTrackTracker().update(seen((10, ())), 0)


def test_it_is_found_by_name():
    assert TRACKERS["masktrack"] is MaskTrackTracker
    assert tracker_settings("masktrack").tracker == "masktrack"


def test_it_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import baselines.masktrack"
    subprocess.run([sys.executable, "-c", code], check=True)
