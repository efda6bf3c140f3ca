"""The trackers to compare with: the cue of each, and track lives equal to those of our tracker.

One unit of time is a frame at 10 Hz. Scenes are painted: textured squares on a textured ground.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from core_trackers import CORE_TRACKERS
from tiny_onnx import write_tiny_model
from tracked_things import FRAME, VEHICLE, OneThing, ids

from synthetic_street import SyntheticStreet
from video_knet_core.cli import main
from video_knet_core.config_io import ConfigError
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.geometry import NearestUpsampling
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import build_tracker, tracker_settings
from video_knet_core.types import Detections, TrackState

HEIGHT, WIDTH = 96, 320
OURS = tuple(name for name in CORE_TRACKERS if name != "quasi_dense")
BASELINES = tuple(name for name in OURS if name != "embedding")


def grain(seed, size, sigma, strength):
    """[h, w, 1] blobs about as large as `sigma`: optical flow finds what has some size."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma)
    return (noise * strength / noise.std())[..., None]


GROUND = 125 + grain(7, (HEIGHT, WIDTH + 200), 4, 30)


@dataclasses.dataclass
class Square:
    """`look` picks its texture, colour, embedding and kernel; `at` is its upper left."""

    look: int
    at: tuple[int, int]
    score: float = 0.9
    size: int = 40

    def texture(self):
        colour = np.roll([200, 90, 40], self.look)
        return colour + grain(self.look, (self.size, self.size), 3, 35)


def seen(*squares, pan=0):
    """Detections of a frame; later squares hide earlier ones, `pan` moves the ground."""
    image = np.repeat(GROUND[:, pan : pan + WIDTH], 3, axis=2)
    small = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    for slot, square in enumerate(squares):
        (x, y), size = square.at, square.size
        image[y : y + size, x : x + size] = square.texture()
        small[(y + 1) // 2 : (y + size) // 2, (x + 1) // 2 : (x + size) // 2] = slot + 1
    regions = NearestUpsampling(small.shape, (HEIGHT, WIDTH)).measure(small, len(squares))
    vectors = 11 * np.eye(8, dtype=np.float32)[[s.look for s in squares]]
    return Detections(
        segment_map=small,
        class_ids=np.full(len(squares), VEHICLE),
        scores=np.array([s.score for s in squares], np.float32),
        areas=regions.areas,
        embeddings=vectors,
        kernels=vectors,
        regions=regions,
        image_size=(HEIGHT, WIDTH),
        image=np.clip(image, 0, 255).astype(np.uint8),
    )


def tracker_of(name, **settings):
    return build_tracker(tracker_settings(name, **settings))


def ids_over(tracker, frames):
    """Ids of the detections of each frame."""
    return [ids(tracker.update(frame, t * FRAME)) for t, frame in enumerate(frames)]


# --- the cue of each


@pytest.mark.parametrize("name", OURS)
def test_two_squares_that_pass_each_other_keep_their_ids(name):
    """One goes right, the other left; when they meet, one hides a strip of the other."""
    frames, looks = [], []
    for t in range(16):
        pair = [Square(0, (60 + 8 * t, 10)), Square(1, (180 - 8 * t, 42))]
        frames.append(seen(*pair[:: 1 if t % 3 else -1]))
        looks.append([1, 2] if t % 3 else [2, 1])
    first, *_ = given = ids_over(tracker_of(name), frames)
    name_of = dict(zip(looks[0], first, strict=True))
    assert given == [[name_of[look] for look in frame] for frame in looks]


ACCELERATING = [
    seen(Square(0, (x, 30)), pan=200 - x) for x in (10, 14, 22, 34, 50, 70, 94, 118, 142, 166)
]
"""The camera turns faster and faster: in the end by 24 of the 40 pixels of a square per frame, so
that its masks in two frames overlap by a quarter."""


def test_a_fast_object_is_kept_by_its_motion_and_lost_by_overlap_alone():
    for name in ("sort", "mask_propagation"):
        assert ids_over(tracker_of(name), ACCELERATING) == [[1]] * len(ACCELERATING)
    given = ids_over(tracker_of("iou"), ACCELERATING)
    assert given[:5] == [[1]] * 5 and given[-1] != [1]


def unseen(frame):
    """The same image, but nothing is detected in it."""
    return dataclasses.replace(seen(), image=frame.image)


PANNED = [seen(Square(0, (200 - 12 * t, 30)), pan=12 * t) for t in range(6)]
PANNED[2:5] = map(unseen, PANNED[2:5])
"""The camera pans by more than the width of an object that is not detected during that time."""


@pytest.mark.parametrize(("name", "last"), [("mask_propagation", [1]), ("iou", [2])])
def test_a_mask_is_carried_on_while_its_object_is_not_detected(name, last):
    given = ids_over(tracker_of(name), PANNED)
    assert given == [[1], [1], [], [], [], last]


@pytest.mark.parametrize(("name", "expected"), [("kernels", [2, 1]), ("embedding", [1, 2])])
def test_kernels_are_compared_not_embeddings(name, expected):
    before = seen(Square(0, (10, 30)), Square(1, (100, 30)))
    after = dataclasses.replace(before, kernels=before.kernels[::-1])
    assert ids_over(tracker_of(name), [before, after]) == [[1, 2], expected]


def test_a_kernel_that_is_not_the_nearest_both_ways_continues_no_track():
    """Of two like the first track, the second track would have the lesser: that is not enough."""
    before = seen(Square(0, (10, 30)), Square(1, (100, 30)))
    mixture = np.array([[1, 0], [10 / 11, 4 / 11]], np.float32) @ before.kernels
    after = dataclasses.replace(before, kernels=mixture)
    assert ids_over(tracker_of("kernels"), [before, after]) == [[1, 2], [1, 3]]


def test_a_shrinking_box_never_turns_inside_out():
    shrinking = [seen(Square(0, (100, 20), size=size)) for size in (70, 52, 36, 22)]
    tracker = tracker_of("sort", max_coast_s=10.0)
    ids_over(tracker, [*shrinking, *[seen()] * 50])
    assert ids(tracker.update(seen(Square(0, (250, 30))), 60 * FRAME)) == [2]


# --- the life of an id is the same


def life():
    """0 is always there; 1 leaves for long; 2 is weak at first; 3 is seen once. All stand still."""
    for t in range(40):
        squares = [Square(0, (10, 30))]
        if t < 6 or t >= 35:
            squares.append(Square(1, (90, 30)))
        if 2 <= t < 12:
            squares.append(Square(2, (170, 30), score=0.2 if t < 5 else 0.7))
        if t == 8:
            squares.append(Square(3, (250, 30)))
        yield seen(*squares)


FIELDS = ["track_id", "state", "age", "first_seen", "last_seen", "class_id"]


def life_of(update):
    """The life of the tracks in a frame, without what differs by rounding."""
    rows = np.concatenate([update.rows, update.coasted])
    return [rows[name].tolist() for name in FIELDS], update.born, update.ended


@pytest.mark.parametrize("name", BASELINES)
def test_births_and_ends_are_those_of_our_tracker(name):
    ours, other = tracker_of("embedding"), tracker_of(name)
    ended = []
    for t, frame in enumerate(life()):
        expected = life_of(ours.update(frame, t * FRAME))
        assert life_of(other.update(frame, t * FRAME)) == expected
        ended += expected[-1]
    assert ended == [4, 2, 3]  # so every kind of end was there


@pytest.mark.parametrize("name", BASELINES)
def test_empty_frames_come_first_and_between(name):
    tracker, square = tracker_of(name), seen(Square(0, (100, 30)))
    frames = [seen(), square, square, seen(), square]
    assert ids_over(tracker, frames) == [[], [1], [1], [], [1]]
    coasted = tracker.update(seen(), 5 * FRAME).coasted
    assert coasted[["track_id", "state"]].tolist() == [(1, TrackState.COASTED)]


@pytest.mark.parametrize("name", CORE_TRACKERS)
def test_a_reset_removes_all_tracks_and_ids_continue(name):
    tracker, square = tracker_of(name), seen(Square(0, (100, 30)))
    ids_over(tracker, [square] * 3)
    tracker.reset()
    again = tracker.update(square, 3 * FRAME)
    assert ids(again) == [2] and len(again.coasted) == 0 and again.ended == ()


@pytest.mark.parametrize("name", CORE_TRACKERS)
def test_a_suspended_stream_is_resumed_as_if_nothing_had_been_in_between(name):
    """The state is kept while the tracker is reset and tracks something else."""
    undisturbed, tracker = tracker_of(name), tracker_of(name)
    for t, frame in enumerate(list(life())[::2]):
        state = tracker.state()
        tracker.reset()
        for other in range(2):
            tracker.update(seen(Square(4, (40 * other, 40))), other * FRAME)
        tracker.restore(state)
        expected, got = (each.update(frame, t * FRAME) for each in (undisturbed, tracker))
        assert life_of(got)[1:] == life_of(expected)[1:]
        assert got.rows.tobytes() == expected.rows.tobytes()


@pytest.mark.parametrize("name", OURS)
def test_ids_are_never_given_twice(name):
    rng, tracker = np.random.default_rng(2), tracker_of(name, max_coast_s=0.3)
    born, ended = [], []
    for t in range(60):
        there = [k for k in range(4) if rng.random() < 0.5]
        tracked = tracker.update(seen(*(Square(k, (80 * k, 30)) for k in there)), t * FRAME)
        born += tracked.born
        ended += tracked.ended
        assert len(set(ids(tracked))) == len(there)
    ended += tracker.update(seen(), 100 * FRAME).ended
    assert born == sorted(set(born)) and sorted(ended) == born and len(born) > 4
    assert not tracker.cues


def test_settings_may_change_between_frames():
    tracker = tracker_of("iou")
    tracker.settings = dataclasses.replace(tracker.settings, birth_score=0.95)
    assert ids(tracker.update(seen(Square(0, (100, 30))), 0)) == [0]


# --- what they need


def test_missing_kernels_are_a_config_error():
    blind = dataclasses.replace(seen(), kernels=None)
    with pytest.raises(ConfigError, match=r"Detections\.kernels"):
        tracker_of("kernels").update(blind, 0)


def test_a_missing_image_is_a_config_error():
    blind = dataclasses.replace(seen(Square(0, (100, 30))), image=None)
    with pytest.raises(ConfigError, match="mask_propagation"):
        tracker_of("mask_propagation").update(blind, 0)
    for other in set(CORE_TRACKERS) - {"mask_propagation"}:
        assert ids(tracker_of(other).update(blind, 0)) == [1]


# --- in the predictor and on the command line


IMAGE = np.zeros((32, 32, 3), np.uint8)


def test_a_predictor_whose_engine_returns_no_kernels_stays_as_it_was():
    predictor = VideoPredictor(OneThing(), tracker_settings("kernels"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="kernels"):
            predictor.step(IMAGE, 0)
    assert predictor._stream.engine is None and predictor.epoch == 0


def test_our_tracker_never_makes_masks_of_detections(monkeypatch):
    """That would cost each frame of everybody what only comparisons need."""
    monkeypatch.setattr(Detections, "row_masks", property(lambda _: pytest.fail("were made")))
    VideoPredictor(OneThing()).step(IMAGE, 0)
    with pytest.raises(pytest.fail.Exception, match="were made"):
        VideoPredictor(OneThing(), tracker_settings("iou")).step(IMAGE, 0)


class Replay:
    """Results of the shipped model on four frames of a synthetic street, repeated."""

    name = "replay"

    def __init__(self):
        runtime = open_runtime(default_model_path(), "onnxruntime-cpu")
        street = SyntheticStreet(3_000_000)
        state = None
        self.info, self.images, self.results = runtime.info, [], []
        for t in range(4):
            self.images.append(street.frame(t).image)
            segments, state = runtime.step(self.images[-1], state)
            self.results.append(segments)

    def step(self, image, state):
        t = state or 0
        return self.results[t], t + 1

    def close(self):
        pass


@pytest.fixture(scope="module")
def replay():
    return Replay()


@pytest.mark.parametrize("name", CORE_TRACKERS)
def test_the_shipped_model_is_tracked_by_every_name(name, replay):
    predictor = VideoPredictor(replay, tracker_settings(name))
    frames = [predictor.step(image, t * FRAME) for t, image in enumerate(replay.images)]
    kept = [{t.track_id for t in frame.tracks if t.label} - {0} for frame in frames]
    assert kept[0] & kept[3], "no object has one id in the first and the last frame"
    assert len(kept[0] & kept[3]) >= len(kept[0]) / 2
    assert max(set.union(*kept)) < sum(map(len, kept)) / 2


def test_the_command_line_takes_a_name(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.onnx")
    (tmp_path / "frames").mkdir()
    for t in range(3):
        cv2.imwrite(str(tmp_path / f"frames/{t}.png"), np.full((64, 96, 3), 200, np.uint8))
    arguments = [str(tmp_path / "frames"), "--model", str(model), "--out", str(tmp_path / "out")]
    assert main(["track", *arguments, "--tracker", "sort"]) == 0
    assert len((tmp_path / "out/tracks.jsonl").read_text().splitlines()) == 3
