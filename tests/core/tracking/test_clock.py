"""Stream time from the stamps of drivers: exact, equal, bunched, late, frozen, far ahead.

The scene is a thing that moves 10 px from one image to the next, 30 images/s: 300 px/s.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from video_knet_core.engine.base import ModelInfo
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking.clock import FROZEN, StreamClock
from video_knet_core.types import ClassInfo, ClassTable, Detections

START = 10**18
IMAGE = 33_333_333
MS = 1_000_000
SECOND = 1000 * MS
STEP_PX = 10


class OneThing:
    """An engine that returns bright pixels as one vehicle."""

    name = "one thing"
    info = ModelInfo(
        "one thing",
        ClassTable((ClassInfo(0, "road", False, (0, 0, 0)), ClassInfo(1, "car", True, (9, 9, 9)))),
        16,
        600,
        "panoptic",
    )

    def step(self, image, state):
        map_ = (image[::2, ::2, 0] > 127).astype(np.uint8) + 1
        return Detections(
            segment_map=map_,
            class_ids=np.array([0, 1]),
            scores=np.full(2, 0.9, np.float32),
            areas=np.bincount(map_.ravel(), minlength=3)[1:],
            embeddings=np.eye(2, dtype=np.float32),
        ), np.ones((1, 1), np.float32)

    def close(self):
        pass


def picture(position, visible=True):
    pixels = np.zeros((16, 600, 3), np.uint8)
    if visible:
        pixels[4:12, position : position + 30] = 255
    return pixels


def play(stamps, predictor=None, positions=None):
    """The frames of images with these stamps, in which the thing moves."""
    predictor = predictor or VideoPredictor(OneThing())
    positions = [STEP_PX * i for i in range(len(stamps))] if positions is None else positions
    return [
        predictor.step(picture(position % 560), stamp)
        for position, stamp in zip(positions, stamps, strict=True)
    ]


def speeds(frames):
    return [t.velocity[0] for f in frames for t in f.tracks if t.is_thing and t.label]


def known(values):
    return [value for value in values if not math.isnan(value)]


def ids(frames):
    return {(f.epoch, i) for f in frames for i in f.born}


COARSE = {
    "exact": lambda i: i * IMAGE,
    "equal": lambda i: i // 3 * 3 * IMAGE,
    "1 ns apart": lambda i: i // 3 * 3 * IMAGE + i % 3,
    "1 ms apart": lambda i: i // 3 * 3 * IMAGE + i % 3 * MS,
    "5 ms apart": lambda i: i // 3 * 3 * IMAGE + i % 3 * 5 * MS,
    "the tick begins before": lambda i: (i + 1) // 3 * 3 * IMAGE,
    "a 10 Hz clock": lambda i: i * IMAGE // (100 * MS) * (100 * MS),
    "backwards by ns": lambda i: i * IMAGE // (100 * MS) * (100 * MS) - i % 3,
    "a clock of whole seconds": lambda i: i * IMAGE // SECOND * SECOND,
    "one image too early": lambda i: i * IMAGE - (33 * MS if i == 30 else 0),
    "one equal stamp": lambda i: (29 if i == 30 else i) * IMAGE,
    "one late by 2 ms": lambda i: 29 * IMAGE - 2 * MS if i == 30 else i * IMAGE,
    "stops and catches up": lambda i: (20 if 20 <= i < 40 else i) * IMAGE,
    "stops and continues": lambda i: min(i, max(20, i - 20)) * IMAGE,
    "not begun at first": lambda i: 0 if i < 20 else i * IMAGE + 10**12 - START,
}


@pytest.mark.parametrize("name", COARSE)
def test_coarse_stamps_give_the_true_velocity_or_none(name):
    stamps = [START + COARSE[name](i) for i in range(90)]
    if name == "not begun at first":
        stamps = [stamp - START if i < 20 else stamp for i, stamp in enumerate(stamps)]
    frames = play(stamps, positions=[4 * i for i in range(90)])
    values = speeds(frames)
    assert known(values) == pytest.approx([120] * len(known(values)), rel=1e-3)
    assert len(known(values)) >= 26 and not math.isnan(values[-1])
    assert ids(frames) == {(0, 1)}


def test_a_clock_that_ticks_between_images_is_near_the_truth():
    """8 Hz and 30 images/s: three or four of a stamp."""
    frames = play([i * IMAGE // (125 * MS) * (125 * MS) for i in range(50)])
    assert known(speeds(frames)) == pytest.approx([300] * len(known(speeds(frames))), rel=0.1)


def test_irregular_stamps_are_taken_as_they_are():
    """Images that were dropped on the way: all of those that came are where they should be."""
    rng = np.random.default_rng(0)
    images = np.cumsum(rng.geometric(0.3, 60))
    frames = play([START + int(i) * IMAGE for i in images], positions=(2 * images).tolist())
    assert known(speeds(frames)) == pytest.approx([60] * len(known(speeds(frames))), rel=1e-6)
    assert len(known(speeds(frames))) > 45


@pytest.mark.parametrize("rate", [0.3, 1, 10, 30, 60, 100, 240, 1000])
def test_every_constant_rate_is_measured(rate):
    frames = play([START + round(i * 1e9 / rate) for i in range(55)])
    assert speeds(frames)[-1] == pytest.approx(STEP_PX * rate, rel=1e-3)
    if rate <= 100:
        assert known(speeds(frames)) == pytest.approx([STEP_PX * rate] * 54, rel=1e-3)


def test_the_velocity_is_unknown_while_the_clock_stands_still():
    assert not known(speeds(play([START] * 60)))
    stamps = [START + min(i, 20) * IMAGE for i in range(30 + FROZEN)]
    values = speeds(play(stamps, positions=[4 * i for i in range(len(stamps))]))
    assert not known(values[21 + FROZEN :])


@pytest.mark.parametrize("stamp", [0, START])
def test_tracks_of_a_clock_that_stands_still_end(stamp):
    predictor = VideoPredictor(OneThing())
    play([stamp] * 3, predictor)
    frames = [predictor.step(picture(0, visible=False), stamp) for _ in range(50)]
    assert [i for f in frames for i in f.ended] == [1]
    assert not any(t.is_thing for t in frames[-1].tracks)


def test_jitter_bounds_the_velocity():
    rng = np.random.default_rng(0)
    for jitter in (10 * MS, 60 * MS):
        stamps = [START + i * IMAGE + int(rng.uniform(-jitter, jitter)) for i in range(50)]
        frames = play(stamps)
        assert max(known(speeds(frames))) < 2 * 300 and min(known(speeds(frames))) > 0
        assert ids(frames) == {(0, 1)}


@pytest.mark.parametrize(
    "seconds", [10**9, 10, 6, 3, 1, 0.4, -0.3, -1, -3, -10, -(10**9)], ids=lambda s: f"{s} s"
)
def test_one_wrong_stamp_costs_no_ids(seconds):
    stamps = [START + i * IMAGE for i in range(40)]
    stamps[20] += round(seconds * SECOND)
    frames = play(stamps)
    del frames[20]
    assert ids(frames) == {(0, 1)} and {f.epoch for f in frames} == {0}
    assert frames[-1].tracks[-1].age >= 39
    assert all(f.stamp == stamp for f, stamp in zip(frames, stamps[:20] + stamps[21:], strict=True))


def test_an_epoch_is_never_given_twice():
    stream = VideoPredictor(OneThing(), first_epoch=5)
    now = [START + i * IMAGE for i in range(6)]
    stamps = [*now[:2], now[1] + 10 * SECOND, *now[2:4], START + 100 * SECOND, 101 * SECOND + START]
    assert [f.epoch for f in play(stamps, stream)] == [5, 5, 6, 5, 5, 7, 7]
    stream.reset()
    assert stream.epoch == 8


def test_a_camera_slower_than_the_longest_gap_resets_with_each_image():
    frames = play([START + i * 10 * SECOND for i in range(5)])
    assert [f.epoch for f in frames] == [0, 1, 2, 3, 4] and [f.born for f in frames][4] == (5,)


def test_a_clock_set_back_is_a_new_timeline():
    stamps = [START + i * IMAGE - (i >= 10) * SECOND for i in range(20)]
    assert [f.epoch for f in play(stamps)] == [0] * 10 + [1] * 10


def test_a_frame_that_fails_leaves_the_suspended_stream(monkeypatch):
    stream = VideoPredictor(OneThing())
    play([START, START + IMAGE, START + 10 * SECOND], stream)
    with pytest.raises(ValueError):
        stream.step(np.zeros((0, 3, 3), np.uint8), START + 2 * IMAGE)
    monkeypatch.setattr(OneThing, "step", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stream.step(picture(0), START + 2 * IMAGE)
    monkeypatch.undo()
    assert stream.step(picture(20), START + 2 * IMAGE).epoch == 0


def test_the_rate_of_a_camera_may_change():
    """Twenty images of each rate; in the end the velocity is that of the last one."""
    for rates in ((30, 3), (3, 30), (30, 10), (10, 90), (90, 0.5)):
        stamps = START + np.cumsum([1e9 / rate for rate in rates for _ in range(20)]).astype(int)
        frames = play([int(stamp) for stamp in stamps])
        assert speeds(frames)[-1] == pytest.approx(STEP_PX * rates[1], rel=0.01)


differences = st.one_of(
    st.integers(0, 1),
    st.integers(-500 * MS, 500 * MS),
    st.sampled_from([IMAGE, 100 * MS, MS, 5 * SECOND, -SECOND, 10 * SECOND]),
    st.integers(-(2**63), 2**63),
)
"""Between two stamps, of all kinds of drivers."""


@settings(max_examples=300, deadline=None)
@example([1, 2**31 * SECOND, -(2**31) * SECOND])
@given(st.lists(differences, max_size=80))
def test_stream_time_goes_forward_and_keeps_up(steps):
    clock, stamp = StreamClock().advanced(START), START
    for step in steps:
        stamp += step
        if clock.break_before(stamp, 5.0):
            clock = StreamClock()
        before, clock = clock, clock.advanced(stamp)
        assert clock.stamp == stamp
        assert len(clock.marks) <= 8
        assert clock.time.interval is None or clock.time.interval > 0
        if before.images:
            assert clock.time.ns > before.time.ns
            seconds = clock.time.seconds_since(np.array(before.time.ns), np.array(before.time.era))
            assert math.isnan(seconds) or seconds > 0


@settings(max_examples=60, deadline=None)
@given(st.lists(differences, min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_any_stamps_give_finite_bounded_tables(steps, random):
    predictor, stamp, given_ids, epochs = VideoPredictor(OneThing()), START, set(), [0]
    for i, step in enumerate(steps):
        stamp = min(max(stamp + step, -(2**62)), 2**62 - 1)
        frame = predictor.step(picture(3 * i, visible=random.random() < 0.8), stamp)
        names = {(frame.epoch, track_id) for track_id in frame.born}
        assert not names & given_ids
        given_ids |= names
        if frame.epoch not in epochs:
            assert abs(step) > SECOND // 2 and frame.epoch == max(epochs) + 1
        epochs.append(frame.epoch)
        things = [t for t in frame.tracks if t.is_thing]
        assert len(things) <= 30
        for track in things:
            assert math.isnan(track.velocity[0]) or math.isfinite(track.velocity[0])
            assert np.isfinite(track.box).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-25 * MS, 25 * MS), min_size=40, max_size=40))
def test_noise_of_the_stamps_cannot_multiply_the_velocity(noise):
    """At most the displacement in a quarter of a mean interval, whatever the noise."""
    frames = play([START + i * IMAGE + n for i, n in enumerate(noise)])
    assert all(0 <= v <= 4 * 300 for v in known(speeds(frames)))
    assert ids(frames) == {(0, 1)}
