"""The predictor over a scripted engine: sizes, labels, geometry, resets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from video_knet_core import predictor as predictor_module
from video_knet_core.engine.base import ModelInfo
from video_knet_core.epochs import epoch_of, new_epoch
from video_knet_core.predictor import VideoPredictor
from video_knet_core.types import ClassInfo, ClassTable, Detections, TrackState

CLASSES = ClassTable(
    tuple(
        ClassInfo(i, name, is_thing, (i, i, i))
        for i, (name, is_thing) in enumerate(
            [("road", False), ("person", True), ("sky", False), ("vehicle", True)]
        )
    )
)
ROAD, PERSON, SKY, VEHICLE = range(4)
FRAME = 100_000_000


class ScriptedRuntime:
    """Returns the same segments for every frame; the state counts the steps of the stream."""

    name = "scripted"

    def __init__(self, segments):
        self.info = ModelInfo("scripted", CLASSES, 64, 96)
        self.segments = segments
        self.images = []
        self.states = []

    def step(self, image, state):
        self.images.append(image)
        self.states.append(state)
        return self.segments, 1 if state is None else state + 1

    def close(self):
        pass


def segments(seed=0, slots=12, blobs=20):
    """Random blobs of 12 slots on a 32 x 48 map: classes 0..3, some slots empty."""
    rng = np.random.default_rng(seed)
    small = np.zeros((32, 48), np.uint8)
    for _ in range(blobs):
        y, x = rng.integers(0, 28), rng.integers(0, 40)
        small[y : y + rng.integers(2, 16), x : x + rng.integers(2, 20)] = rng.integers(0, slots + 1)
    return Detections(
        segment_map=small,
        class_ids=rng.integers(0, 4, slots),
        scores=rng.uniform(0.3, 1, slots).astype(np.float32),
        areas=np.bincount(small.ravel(), minlength=slots + 1)[1:],
        embeddings=rng.normal(size=(slots, 16)).astype(np.float32),
    )


def image(height=120, width=200):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def predictor(script=None):
    return VideoPredictor(ScriptedRuntime(script or segments()))


@pytest.mark.parametrize("size", [(64, 96), (375, 1242), (121, 77), (20, 30), (1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_table_agrees_with_the_pixels(size, seed):
    frame = predictor(segments(seed)).step(image(*size), 0)
    assert frame.labels.shape == size and frame.labels.dtype == np.uint16
    assert [t.label for t in frame.tracks] == list(range(1, len(frame.tracks) + 1))
    assert set(np.unique(frame.labels)) - {0} == {t.label for t in frame.tracks}
    for track in frame.tracks:
        ys, xs = np.nonzero(frame.labels == track.label)
        x, y, width, height = track.box
        assert track.area == len(xs)
        assert (x, y, width, height) == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        mask = frame.mask(track)
        np.testing.assert_array_equal(mask, frame.labels == track.label)
        in_box = frame.mask(track, in_box=True)
        np.testing.assert_array_equal(in_box, mask[y : y + height, x : x + width])
        assert track.centroid == pytest.approx((xs.mean(), ys.mean()))
        assert track.truncated == (
            x == 0 or y == 0 or x + width == size[1] or y + height == size[0]
        )


def test_labels_show_the_class_of_the_engines_map():
    script = segments()
    frame = predictor(script).step(image(64, 96), 0)
    class_of_slot = np.append(255, script.class_ids)
    expected = class_of_slot[script.segment_map].repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(frame.semantic_map(), expected)


def test_stuff_comes_first_by_class_then_things_by_track_id():
    script = segments()
    runtime = ScriptedRuntime(script)
    stream = VideoPredictor(runtime)
    stream.step(image(), 0)
    order = np.random.default_rng(9).permutation(12)
    runtime.segments = dataclasses.replace(
        script,
        segment_map=np.append(0, np.argsort(order) + 1)[script.segment_map].astype(np.uint8),
        class_ids=script.class_ids[order],
        scores=script.scores[order],
        areas=script.areas[order],
        embeddings=script.embeddings[order],
    )
    before, after = stream.step(image(), FRAME), stream.step(image(), 2 * FRAME)
    stuff = [t for t in after.tracks if not t.is_thing]
    things = [t.track_id for t in after.tracks if t.is_thing]
    assert [t.class_id for t in stuff] == [ROAD, SKY]
    assert things == sorted(things) and len(things) > 3
    assert after.tracks[: len(stuff)] == tuple(stuff)
    np.testing.assert_array_equal(before.track_id_map(), after.track_id_map())


def two_slots(class_id, scores):
    """Two slots of one class, one above the other."""
    small = np.zeros((32, 48), np.uint8)
    small[:8], small[20:] = 1, 2
    areas = np.array([8 * 48, 12 * 48])
    scores = np.array(scores, np.float32)
    return Detections(small, np.full(2, class_id), scores, areas, np.eye(2, dtype=np.float32))


def test_slots_of_one_stuff_class_become_one_row():
    (row,) = predictor(two_slots(ROAD, (0.6, 0.8))).step(image(64, 96), 5).tracks
    assert (row.class_id, row.track_id, row.area) == (ROAD, 0, 20 * 48 * 4)
    assert row.score == pytest.approx(0.8) and row.box == (0, 0, 96, 64)
    assert row.first_seen == row.last_seen == 5 and np.isnan(row.velocity).all()


def test_an_untracked_thing_keeps_its_pixels_and_comes_last():
    rows = predictor(two_slots(VEHICLE, (0.2, 0.8))).step(image(), 0).tracks
    assert [(t.label, t.track_id, t.class_id) for t in rows] == [(1, 1, VEHICLE), (2, 0, VEHICLE)]


def test_coasted_tracks_come_last_without_label_and_pixels():
    runtime = ScriptedRuntime(segments())
    stream = VideoPredictor(runtime)
    stream.step(image(), 0)
    visible = [t for t in stream.step(image(), FRAME).tracks if t.track_id]
    empty = dataclasses.replace(
        runtime.segments, segment_map=np.zeros((32, 48), np.uint8), areas=np.zeros(12, np.int64)
    )
    runtime.segments = empty
    frame = stream.step(image(), 2 * FRAME)
    assert not frame.labels.any()
    assert [t.track_id for t in frame.tracks] == [t.track_id for t in visible]
    assert all(t.state == TrackState.COASTED and t.label == t.area == 0 for t in frame.tracks)


def test_the_engine_gets_its_size_and_its_own_state():
    stream = predictor()
    for t in range(3):
        stream.step(image(301, 403), t * FRAME)
    assert {i.shape for i in stream.runtime.images} == {(64, 96, 3)}
    assert stream.runtime.states == [None, 1, 2]
    stream, picture = predictor(), image(64, 96)[:, ::-1]
    stream.step(picture, 0)
    np.testing.assert_array_equal(stream.runtime.images[0], picture)  # it has that size already
    assert stream.runtime.images[0].flags.c_contiguous


@pytest.mark.parametrize(
    ("second", "stamp"),
    [
        pytest.param(image(120, 201), FRAME, id="size"),
        pytest.param(image(), -600_000_000, id="time runs backwards"),
        pytest.param(image(), 6_000_000_000, id="gap"),
    ],
)
def test_a_break_in_the_stream_resets(second, stamp):
    stream = predictor()
    before = stream.step(image(), 0)
    after = stream.step(second, stamp)
    assert (before.epoch, after.epoch, stream.epoch) == (0, 1, 1)
    assert stream.runtime.states == [None, None]
    old, new = ({t.track_id for t in f.tracks} - {0} for f in (before, after))
    assert old and new and not old & new


def test_an_image_with_an_earlier_stamp_is_late():
    stream = predictor()
    assert not stream.is_late(-FRAME)
    stream.step(image(), 0)
    assert stream.is_late(-1) and stream.is_late(-4 * FRAME)
    assert not stream.is_late(0) and not stream.is_late(FRAME)
    assert not stream.is_late(-6 * FRAME)  # not late but another timeline


def test_a_clock_that_was_set_back_is_not_late_for_ever():
    stream = predictor()
    stream.step(image(), 0)
    late = [stream.is_late(-4 * FRAME + i) for i in range(6)]
    assert late == [True] * 4 + [False] * 2


@pytest.mark.parametrize("back", [1, 2_000_000, 4 * FRAME])
def test_a_late_image_is_taken_in_the_order_of_the_calls_and_keeps_the_ids(back):
    stream = predictor()
    frames = [stream.step(image(), stamp) for stamp in (FRAME, FRAME - back, 2 * FRAME)]
    assert [f.epoch for f in frames] == [0, 0, 0]
    assert frames[1].born == frames[2].born == ()
    assert stream.runtime.states == [None, 1, 2]


def test_the_stages_of_a_frame_are_timed(monkeypatch):
    """A clock that a resize, a step and an update of the tracker advance by known amounts."""
    now = [0.0]

    def slow(function, seconds):
        def run(*args, **kwargs):
            now[0] += seconds
            return function(*args, **kwargs)

        return run

    stream = predictor()
    monkeypatch.setattr("video_knet_core.predictor.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("video_knet_core.predictor.resize", slow(predictor_module.resize, 0.001))
    stuff = slow(predictor_module._stuff_regions, 0.004)
    monkeypatch.setattr("video_knet_core.predictor._stuff_regions", stuff)
    monkeypatch.setattr(stream.runtime, "step", slow(stream.runtime.step, 0.002))
    monkeypatch.setattr(stream._tracker, "update", slow(stream._tracker.update, 0.008))
    rows = slow(predictor_module.rows_without_track, 0.016)  # of stuff, after the tracker
    monkeypatch.setattr("video_knet_core.predictor.rows_without_track", rows)
    times = stream.step(image(), 0).times
    assert dataclasses.astuple(times) == pytest.approx((1, 2, 4 + 16, 8))


def test_live_epochs_are_random_and_exact_in_json():
    epochs = {new_epoch() for _ in range(100)}
    assert len(epochs) == 100 and max(epochs) < 2**48
    assert all(float(epoch + 10**6) == epoch + 10**6 for epoch in epochs)


def test_the_epoch_of_a_recording_is_that_of_all_it_depends_on():
    assert epoch_of(image(), 5, "model") == epoch_of(image().copy(), 5, "model") < 2**48
    others = [epoch_of(image(), 6, "model"), epoch_of(image(), 5), epoch_of(image()[:, ::-1], 5)]
    assert len({epoch_of(image(), 5, "model"), *others}) == 4


def test_a_reset_starts_a_new_epoch_which_can_be_given():
    stream = VideoPredictor(ScriptedRuntime(segments()), first_epoch=7)
    assert (stream.step(image(), 0).epoch, stream.next_epoch) == (7, 8)
    stream.reset(epoch=20)
    assert (stream.step(image(), 0).epoch, stream.next_epoch) == (20, 21)
    stream.reset()
    assert (stream.epoch, stream.step(image(), FRAME).epoch) == (21, 21)
    assert stream.runtime.states == [None] * 3


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_a_bad_image_is_rejected_and_the_stream_continues(bad):
    stream = predictor()
    stream.step(image(), 0)
    with pytest.raises(ValueError, match="image"):
        stream.step(bad, FRAME)
    with pytest.raises(ValueError, match="stamp"):
        stream.step(image(), 2**63)
    assert stream.step(image(), 2 * FRAME).epoch == 0
    assert stream.runtime.states == [None, 1]


def test_two_cameras_share_an_engine():
    runtime = ScriptedRuntime(segments())
    left, right = VideoPredictor(runtime), VideoPredictor(runtime)
    for t in range(2):
        left.step(image(), t * FRAME)
        right.step(image(50, 60), t * FRAME)
    assert runtime.states == [None, None, 1, 1]
    assert left.epoch == right.epoch == 0


@pytest.mark.parametrize("size", [(2048, 1024), (1242, 375), (480, 288), (320, 200)])
def test_thin_lines_are_averaged_not_lost_when_an_image_shrinks(size):
    width, height = size
    lines = np.zeros((height, width, 3), np.uint8)
    lines[:, ::4] = 255
    resized = predictor_module.resize(lines, 288, 480)
    assert resized.shape == (288, 480, 3)
    assert resized.mean() == pytest.approx(lines.mean(), rel=0.02)
    if width >= 4 * 480:  # all lines are thinner than the small image can resolve
        assert resized.std() < 0.2 * lines.std()


@pytest.mark.parametrize("size", [(2048, 1024), (1242, 375), (480, 288), (320, 200)])
def test_a_view_of_bgr_becomes_the_same_small_image(size):
    width, height = size
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    resized = predictor_module.resize(bgr[..., ::-1], 288, 480)
    np.testing.assert_array_equal(resized, predictor_module.resize(rgb, 288, 480))
    assert resized.flags.c_contiguous


def test_half_the_size_is_the_mean_of_four_pixels():
    image = np.random.default_rng(0).integers(0, 256, (576, 960, 3), np.uint8)
    mean = image.reshape(288, 2, 480, 2, 3).mean(axis=(1, 3))
    assert np.abs(predictor_module.resize(image, 288, 480) - mean).max() <= 0.5
