"""The life of an id."""

from __future__ import annotations

import numpy as np
import pytest
from tracked_things import CYCLIST, FRAME, PERSON, VEHICLE, Thing, ids, rows, seen

from video_knet_core.tracking.embedding import (
    EmbeddingSettings,
    EmbeddingTracker,
    LifecycleTracker,
)
from video_knet_core.types import TrackState, TrackTable


def looks(count, seed=0):
    """Unrelated embeddings, about as long as a network makes them."""
    return np.random.default_rng(seed).normal(size=(count, 64))


def test_a_track_is_tentative_then_confirmed_then_coasted():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    first = tracker.update(seen(Thing(a)), 0)
    second = tracker.update(seen(Thing(a)), FRAME)
    third = tracker.update(seen(), 2 * FRAME)
    assert rows(first)[0].state == TrackState.TENTATIVE and first.born == (1,)
    assert rows(second)[0].state == TrackState.CONFIRMED and second.born == ()
    (coasted,) = TrackTable(third.coasted)
    assert (coasted.track_id, coasted.state, coasted.area) == (1, TrackState.COASTED, 0)
    assert coasted.box == rows(second)[0].box and coasted.last_seen == FRAME


def test_ids_follow_the_embeddings_not_the_slots():
    tracker, (a, b, c) = EmbeddingTracker(), looks(3)
    before = tracker.update(seen(Thing(a), Thing(b), Thing(c)), 0)
    after = tracker.update(seen(Thing(c), Thing(a), Thing(b)), FRAME)
    assert ids(before) == [1, 2, 3]
    assert ids(after) == [3, 1, 2]


def test_a_stranger_alone_with_one_track_gets_a_new_id():
    tracker, (a, b) = EmbeddingTracker(), looks(2)
    tracker.update(seen(Thing(a)), 0)
    assert ids(tracker.update(seen(Thing(b)), FRAME)) == [2]


@pytest.mark.parametrize(("cosine", "x", "track"), [(0.7, 110, 1), (0.7, 300, 2), (0.9, 300, 1)])
def test_the_farther_off_the_more_similar(cosine, x, track):
    """A car that is not where it should be must be very much like the one before."""
    tracker, (a, b) = EmbeddingTracker(), looks(2)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    b -= (a @ b) * a
    similar = cosine * a + np.sqrt(1 - cosine**2) * b / np.linalg.norm(b)
    for t in range(2):
        tracker.update(seen(Thing(8 * a)), t * FRAME)
    assert ids(tracker.update(seen(Thing(8 * similar, at=(x, 100))), 2 * FRAME)) == [track]


def test_the_track_in_place_has_precedence_over_a_slightly_more_similar_hidden_one():
    tracker, (x, y) = EmbeddingTracker(), 10 * np.eye(64)[:2]
    hidden, standing = x, 0.4 * x + 0.9 * y
    between = 0.9 * x + 0.44 * y  # cosine 0.90 with the hidden one, 0.77 with the other
    for t in range(3):
        both = seen(Thing(hidden, at=(60, 100)), Thing(standing, at=(100, 100)))
        tracker.update(both, t * FRAME)
    tracker.update(seen(Thing(standing, at=(100, 100))), 3 * FRAME)
    assert ids(tracker.update(seen(Thing(between, at=(100, 100))), 4 * FRAME)) == [2]


@pytest.mark.parametrize(
    ("size", "x", "track"), [((20, 40), 140, 1), ((20, 40), 180, 3), ((80, 100), 300, 1)]
)
def test_a_track_is_recognised_after_an_occlusion(size, x, track):
    """A small one near its place only: farther off are others that look the same."""
    tracker, (a, b) = EmbeddingTracker(), looks(2)
    for t in range(3):
        tracker.update(seen(Thing(a, size=size), Thing(b, at=(300, 100))), t * FRAME)
    for t in range(3, 20):
        tracker.update(seen(Thing(b, at=(300, 100))), t * FRAME)
    returned = Thing(a, at=(x, 100), size=size)
    back = tracker.update(seen(Thing(b, at=(300, 100)), returned), 20 * FRAME)
    assert ids(back) == [2, track]
    known = track == 1
    assert rows(back)[1].age == (4 if known else 1)
    assert rows(back)[1].first_seen == (0 if known else 20 * FRAME)


def test_a_tentative_track_without_pixels_is_not_shown():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    tracker.update(seen(Thing(a)), 0)
    assert not len(tracker.update(seen(), FRAME).coasted)


def test_a_coasted_track_ends_by_age_and_its_id_never_returns():
    tracker, (a,) = EmbeddingTracker(EmbeddingSettings(max_coast_s=1.0)), looks(1)
    tracker.update(seen(Thing(a)), 0)
    tracker.update(seen(Thing(a)), FRAME)
    gone = [tracker.update(seen(), t * FRAME).ended for t in range(2, 14)]
    assert gone == [()] * 10 + [(1,), ()]
    assert ids(tracker.update(seen(Thing(a)), 14 * FRAME)) == [2]


def test_a_tentative_track_ends_soon():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    tracker.update(seen(Thing(a)), 0)
    assert [tracker.update(seen(), t * FRAME).ended for t in (1, 2, 3)] == [(), (), (1,)]


def test_slow_cameras_confirm_tracks_too():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    tracker.update(seen(Thing(a)), 0)  # the next frame comes after max_tentative_coast_s
    after = tracker.update(seen(Thing(a)), 10 * FRAME)
    assert ids(after) == [1] and rows(after)[0].state == TrackState.CONFIRMED


def test_an_expired_track_is_not_matched_even_if_no_frame_came_in_between():
    tracker, (a,) = EmbeddingTracker(EmbeddingSettings(max_coast_s=1.0)), looks(1)
    for t in range(2):
        tracker.update(seen(Thing(a)), t * FRAME)
    tracker.update(seen(), 2 * FRAME)
    late = tracker.update(seen(Thing(a)), 30 * FRAME)
    assert ids(late) == [2] and late.ended == (1,)


def test_a_weak_segment_continues_a_track_but_starts_none():
    tracker, (a, b) = EmbeddingTracker(EmbeddingSettings(birth_score=0.4)), looks(2)
    tracker.update(seen(Thing(a)), 0)
    weak = tracker.update(seen(Thing(a, score=0.31), Thing(b, score=0.39)), FRAME)
    assert ids(weak) == [1, 0]
    assert rows(weak)[1].is_thing and rows(weak)[1].state == TrackState.TENTATIVE
    assert weak.born == ()


def test_velocity_is_in_pixels_per_second_and_unknown_at_first():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    track = [
        rows(tracker.update(seen(Thing(a, at=(100 + 3 * t, 100 - t))), t * FRAME))[0]
        for t in range(4)
    ]
    assert np.isnan(track[0].velocity).all()
    assert track[1].velocity == track[3].velocity == pytest.approx((30.0, -10.0))


def test_two_halves_of_one_object_keep_their_ids():
    """Their embeddings differ by noise alone; the order of the segments is random."""
    rng, tracker, (a,) = np.random.default_rng(1), EmbeddingTracker(), looks(1)
    halves = {}
    for t in range(50):
        left = Thing(a + rng.normal(scale=0.05, size=64), at=(100 + t, 100))
        right = Thing(a + rng.normal(scale=0.05, size=64), at=(121 + t, 100))
        turn = rng.random() < 0.5
        tracked = tracker.update(seen(*((right, left) if turn else (left, right))), t * FRAME)
        halves[t] = ids(tracked)[::-1] if turn else ids(tracked)
    assert len({tuple(pair) for pair in halves.values()}) == 1


def test_a_confirmed_track_outranks_a_tentative_duplicate():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    for t in range(3):
        tracker.update(seen(Thing(a)), t * FRAME)
    tracker.update(seen(Thing(a), Thing(a, at=(110, 100), score=0.5)), 3 * FRAME)
    assert ids(tracker.update(seen(Thing(a, at=(108, 100))), 4 * FRAME)) == [1]


def test_a_flickering_class_keeps_the_id_and_the_class_of_the_majority():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    classes = [PERSON, PERSON, PERSON, CYCLIST, PERSON, VEHICLE, PERSON]
    track = [
        rows(tracker.update(seen(Thing(a, class_id=c)), t * FRAME))[0]
        for t, c in enumerate(classes)
    ]
    assert {row.track_id for row in track} == {1}
    assert {row.class_id for row in track} == {PERSON}


def test_a_lasting_change_of_class_changes_the_class_of_the_track():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    classes = [PERSON] * 3 + [CYCLIST] * 8
    track = [
        rows(tracker.update(seen(Thing(a, class_id=c)), t * FRAME))[0]
        for t, c in enumerate(classes)
    ]
    assert {row.track_id for row in track} == {1}
    assert track[3].class_id == PERSON and track[-1].class_id == CYCLIST


def test_another_class_elsewhere_is_another_object():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    for t in range(3):
        tracker.update(seen(Thing(a, class_id=PERSON)), t * FRAME)
    elsewhere = Thing(a, class_id=VEHICLE, at=(300, 100))
    assert ids(tracker.update(seen(elsewhere), 3 * FRAME)) == [2]


def test_a_segment_of_the_same_class_goes_before_one_of_another():
    tracker, (a,) = EmbeddingTracker(), looks(1)
    for t in range(3):
        tracker.update(seen(Thing(a, class_id=PERSON)), t * FRAME)
    near_miss = a + looks(1, seed=5)[0] * 0.6
    tracked = tracker.update(
        seen(Thing(a, class_id=CYCLIST), Thing(near_miss, class_id=PERSON)), 3 * FRAME
    )
    assert ids(tracked) == [2, 1]


@pytest.mark.parametrize(
    ("rank", "possible", "scores", "expected"),
    [
        ([[0.9, 0.8], [0.95, 0.1]], True, (0.5, 0.5), [2, 1]),  # the best goes first
        ([[0.9, 0.8]], [[False, True]], (0.5,), [2]),
        ([[1], [1], [1]], True, (0.2, 0.9, 0.5), [0, 1, 0]),  # among equals, the higher score
    ],
)
def test_pairs_are_taken_by_rank_and_each_is_used_once(rank, possible, scores, expected):
    class Ranked(LifecycleTracker):
        Settings = EmbeddingSettings

        def describe(self, detections):
            return detections.embeddings

        def compare(self, detections, cues, expected):
            return np.array(rank), np.broadcast_to(possible, np.shape(rank))

    tracker = Ranked()
    tracker.update(seen(*[Thing(0)] * len(rank[0])), 0)
    tracker.settings = EmbeddingSettings(birth_score=1.0)
    assert ids(tracker.update(seen(*(Thing(0, score) for score in scores)), FRAME)) == expected


def test_a_crowd_with_noise_keeps_its_ids():
    """30 objects, 10 % noise, each missing now and then: no id is lost or switched."""
    rng, tracker, crowd = np.random.default_rng(3), EmbeddingTracker(), looks(30, seed=3)
    names: dict[int, set[int]] = {k: set() for k in range(30)}
    for t in range(40):
        visible = [k for k in rng.permutation(30) if t < 2 or rng.random() > 0.3]
        things = [
            Thing(crowd[k] + rng.normal(scale=0.1, size=64), at=(20 * k, 50)) for k in visible
        ]
        tracked = tracker.update(seen(*things), t * FRAME)
        for k, track_id in zip(visible, ids(tracked), strict=True):
            names[k].add(track_id)
    assert sorted(n for given in names.values() for n in given) == list(range(1, 31))
