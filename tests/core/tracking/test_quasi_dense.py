"""The authors' quasi-dense tracker: equal to recorded frames of their code, and its face as ours.

One unit of time is a frame at 10 Hz.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tracked_things import FRAME, OneThing, Thing, ids, rows, seen

from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking.embedding import EmbeddingSettings
from video_knet_core.tracking.quasi_dense import (
    DUPLICATE,
    NO_ID,
    QuasiDenseSettings,
    QuasiDenseTracker,
)
from video_knet_core.types import TrackState

GOLDEN = Path(__file__).parents[2] / "fixtures" / "quasi_dense_tracker.npz"
FRAMES = range(9)
QUASI_DENSE = QuasiDenseSettings()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def matched(golden):
    """Per frame: what the tracker matches, its ids as the authors count them, and its memory."""
    tracker, frames = QuasiDenseTracker(), []
    for t in FRAMES:
        given = (golden[f"{t}/{name}"] for name in ("bboxes", "labels", "embeds"))
        kept, given_ids = tracker.match(*given, frame=t)
        backdrops = sum(len(classes) for classes, _ in tracker.backdrops)
        numbers = given_ids - 1, tracker.memory_ids - 1, backdrops, tracker.next_id - 1
        frames.append((kept, *numbers))
    return frames


LEFT, RIGHT = Thing(0, at=(0, 0)), Thing(1, 0.7, at=(100, 0))


# --- the matching, against the authors' numbers


@pytest.mark.parametrize("t", FRAMES)
def test_boxes_ids_and_memory_are_the_authors_in_their_order(golden, matched, t):
    kept, ids_, memory_ids, backdrops, ids_given = matched[t]
    np.testing.assert_array_equal(golden[f"{t}/bboxes"][kept], golden[f"{t}/out_bboxes"])
    np.testing.assert_array_equal(golden[f"{t}/labels"][kept], golden[f"{t}/out_labels"])
    np.testing.assert_array_equal(ids_, golden[f"{t}/out_ids"])
    assert memory_ids.tolist() == golden[f"{t}/memory_ids"].tolist()
    assert backdrops == golden[f"{t}/num_backdrops"]
    assert ids_given == golden[f"{t}/num_tracklets"]


def test_the_recorded_frames_show_every_kind_of_id_a_backdrop_an_nms_drop_and_an_expiry(
    golden, matched
):
    assert {NO_ID - 1, DUPLICATE - 1} < {i for frame in matched for i in frame[1].tolist()}
    assert any(backdrops for *_, backdrops, _ in matched)
    assert all(len(matched[t][0]) < len(golden[f"{t}/bboxes"]) for t in FRAMES)
    assert len(matched[-1][2]) < matched[-1][4]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        # the width of a box is the difference of its corners: their overlap is 0.3; with a pixel
        # more it would be 4/11, and too much
        ([(0, 0, 10, 10, 0.9), (0, 0, 3, 10, 0.29)], [0, 1]),
        # a box also yields to one that is itself dropped: the third overlaps the first by 0.54 only
        ([(0, 0, 100, 10, 0.9), (15, 0, 115, 10, 0.8), (30, 0, 130, 10, 0.7)], [0]),
        ([], []),
    ],
)
def test_boxes_yield_to_better_ones(boxes, expected):
    bboxes, count = np.array(boxes, np.float32).reshape(-1, 5), len(boxes)
    kept, ids_ = QuasiDenseTracker().match(
        bboxes, np.zeros(count, int), np.eye(count, dtype=np.float32), frame=0
    )
    assert kept.tolist() == expected and len(ids_) == len(expected)


# --- the tracker


def test_track_ids_are_the_authors_plus_one(golden):
    tracker = QuasiDenseTracker()
    for t in FRAMES:
        bboxes, expected = golden[f"{t}/bboxes"], np.zeros(len(golden[f"{t}/bboxes"]), int)
        tracked = tracker.update(
            dataclasses.replace(
                seen(*[LEFT] * len(bboxes)),
                class_ids=golden[f"{t}/labels"],
                scores=bboxes[:, 4],
                embeddings=golden[f"{t}/embeds"],
                boxes=bboxes[:, :4],
            ),
            t * FRAME,
        )
        for box, id_ in zip(golden[f"{t}/out_bboxes"], golden[f"{t}/out_ids"], strict=True):
            expected[(bboxes == box).all(axis=1)] = max(id_ + 1, 0)
        assert ids(tracked) == expected.tolist()


def test_a_track_is_confirmed_at_once_and_a_thing_without_one_is_tentative():
    tracked = QuasiDenseTracker().update(seen(LEFT, Thing(1, 0.3, at=(100, 0))), 0)
    certain, uncertain = rows(tracked)
    assert (certain.track_id, certain.state) == (1, TrackState.CONFIRMED)
    assert (uncertain.track_id, uncertain.state) == (0, TrackState.TENTATIVE)
    assert tracked.born == (1,)


def test_a_backdrop_keeps_its_like_from_continuing_a_track():
    tracker, weak = QuasiDenseTracker(), Thing(1, 0.33, at=(100, 0))
    tracker.update(seen(LEFT, weak), 0)
    assert ids(tracker.update(seen(weak), FRAME)) == [0]
    # the backdrop of that frame is forgotten with the next; then even a stranger goes for the track
    tracker.update(seen(LEFT), 2 * FRAME)
    assert ids(tracker.update(seen(weak), 3 * FRAME)) == [1]


def test_a_row_has_the_life_of_the_track():
    tracker = QuasiDenseTracker()
    tracker.update(seen(Thing(0, 0.5, at=(0, 0))), 0)
    (row,) = rows(tracker.update(seen(Thing(0, 0.9, at=(3, -1))), FRAME))
    assert (row.age, row.first_seen, row.last_seen) == (2, 0, FRAME)
    assert row.track_score == pytest.approx(0.7) and row.score == pytest.approx(0.9)
    assert row.velocity == pytest.approx((30.0, -10.0))


def test_a_track_without_pixels_coasts_and_ends_after_five_frames():
    tracker = QuasiDenseTracker()
    tracker.update(seen(LEFT, RIGHT), 0)
    later = [tracker.update(seen(RIGHT), t * FRAME) for t in range(1, 7)]
    assert [frame.coasted["track_id"].tolist() for frame in later] == [[1]] * 4 + [[], []]
    assert [frame.ended for frame in later] == [()] * 4 + [(1,), ()]
    assert later[0].coasted["state"].tolist() == [TrackState.COASTED]
    assert ids(tracker.update(seen(RIGHT, LEFT), 7 * FRAME)) == [2, 3]


def test_frames_without_things_age_the_memory_but_end_no_track():
    """As in the authors' code, which does not call its tracker then."""
    tracker = QuasiDenseTracker()
    tracker.update(seen(LEFT, RIGHT), 0)
    empty = [tracker.update(seen(), t * FRAME) for t in range(1, 20)]
    assert {frame.ended for frame in empty} == {()}
    back = tracker.update(seen(LEFT), 20 * FRAME)
    assert ids(back) == [1] and back.ended == (2,)


DOUBLED = (Thing(0, 0.9), Thing(1, 0.8), Thing(2, 0.7, at=(100, 0)))
"""The second has the box of the first, so the NMS drops it."""


def test_a_dropped_duplicate_has_no_id():
    assert ids(QuasiDenseTracker().update(seen(*DOUBLED), 0)) == [1, 0, 2]


def test_positional_ids_shift_to_the_wrong_segment_after_a_duplicate():
    tracker = QuasiDenseTracker(dataclasses.replace(QUASI_DENSE, positional_ids=True))
    assert ids(tracker.update(seen(*DOUBLED), 0)) == [1, 2, 0]
    assert ids(tracker.update(seen(*DOUBLED[::-1]), FRAME)) == [0, 2, 1]


def test_given_boxes_replace_those_of_the_regions():
    apart = np.array([(0, 0, 19, 39), (50, 0, 69, 39), (100, 0, 119, 39)])
    detections = dataclasses.replace(seen(*DOUBLED), boxes=apart)
    assert ids(QuasiDenseTracker().update(detections, 0)) == [1, 2, 3]


IMAGE = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("config", "state"), [(None, TrackState.TENTATIVE), (QUASI_DENSE, TrackState.CONFIRMED)]
)
def test_the_predictor_tracks_as_configured(config, state):
    (row,) = VideoPredictor(OneThing(), config).step(IMAGE, 0).tracks
    assert (row.track_id, row.state) == (1, state)


def test_the_tracker_of_a_predictor_cannot_change():
    predictor = VideoPredictor(OneThing())
    with pytest.raises(ValueError, match="'embedding'.*'quasi_dense'"):
        predictor.tracking = QUASI_DENSE
    assert predictor.tracking == EmbeddingSettings()


def test_other_settings_of_a_predictor_can_change():
    predictor = VideoPredictor(OneThing(), QUASI_DENSE)
    predictor.tracking = dataclasses.replace(QUASI_DENSE, reset_gap_s=1.0)
    predictor.step(IMAGE, 0)
    assert predictor.step(IMAGE, 20 * FRAME).epoch == 1
