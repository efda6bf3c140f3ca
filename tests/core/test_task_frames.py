"""What the predictor makes of the tasks semantic and instance, over a scripted engine."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
from core_trackers import CORE_TRACKERS

from video_knet_core.data.frames import open_frames
from video_knet_core.engine.base import ModelInfo
from video_knet_core.evaluate.instances import instances
from video_knet_core.predictor import VideoPredictor
from video_knet_core.recording import track_video
from video_knet_core.tracking import tracker_settings
from video_knet_core.types import ClassInfo, ClassTable, Detections, TrackState

FRAME = 100_000_000
SIZE = (90, 150)
"""Of the camera's images; the engine's map is 32 x 48."""
PICTURE = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)


def table(is_thing):
    names = ("cat", "dog", "bird")
    return ClassTable(tuple(ClassInfo(i, n, is_thing, (i, i, i)) for i, n in enumerate(names)))


class Scripted:
    """An engine that returns `script(t)` for frame t; its state is t + 1."""

    name = "scripted"

    def __init__(self, task, script):
        self.info = ModelInfo("scripted", table(task == "instance"), 64, 96, task)
        self._script = script

    def step(self, image, state):
        t = 0 if state is None else int(np.asarray(state).flat[0])
        return self._script(t), np.full((1, 1), t + 1, np.float32)

    def close(self):
        pass


def image(t=0):
    """A picture that moves to the right as the boxes do."""
    return np.tile(np.roll(PICTURE, 4 * t, axis=1), (2, 2, 1))[: SIZE[0], : SIZE[1]]


def classes_of_pixels(t):
    """Task semantic: three classes, the third of which has no pixel; the border between the others
    moves."""
    small = np.ones((32, 48), np.uint8)
    small[:, 20 + t :] = 2
    return Detections(
        segment_map=small,
        class_ids=np.arange(3),
        scores=np.array([0.9, 0.6, 0.0], np.float32),
        areas=np.bincount(small.ravel(), minlength=4)[1:],
        embeddings=np.zeros((3, 0), np.float32),
        kernels=np.ones((3, 4), np.float32),
    )


BOXES = {0: (2, 4, 24, 20), 2: (6, 8, 12, 8), 3: (16, 6, 20, 24)}
"""Slot -> x, y, width, height in the map. That of slot 2 lies inside that of slot 0, which lies
behind a part of that of slot 3; slots 1 and 4 are empty."""


def overlapping_masks(t):
    """Task instance: slot 2 is behind slot 0 everywhere. All move by two positions a frame."""
    masks, small = np.zeros((5, 32, 48), np.uint8), np.zeros((32, 48), np.uint8)
    for slot in (2, 0, 3):
        x, y, width, height = BOXES[slot]
        x += 2 * t
        masks[slot, y : y + height, x : x + width] = 1
        small[masks[slot] > 0] = slot + 1
    return Detections(
        segment_map=small,
        class_ids=np.array([0, 0, 1, 2, 0]),
        scores=np.array([0.9, 0.1, 0.8, 0.7, 0.1], np.float32),
        areas=masks.sum(axis=(1, 2), dtype=np.int64),
        embeddings=10 * np.eye(5, 8, dtype=np.float32),
        kernels=10 * np.eye(5, 16, dtype=np.float32),
        masks=masks,
    )


def predictor(task, association="embedding"):
    script = classes_of_pixels if task == "semantic" else overlapping_masks
    return VideoPredictor(Scripted(task, script), tracker_settings(association))


def enlarged(small):
    """The map position under the centre of each pixel of the image."""
    rows = (2 * np.arange(SIZE[0]) + 1) * 32 // (2 * SIZE[0])
    columns = (2 * np.arange(SIZE[1]) + 1) * 48 // (2 * SIZE[1])
    return small[rows][:, columns]


# --- semantic -----------------------------------------------------------------------------------


def test_a_semantic_frame_has_a_row_for_each_class_that_is_seen():
    frame = predictor("semantic").step(image(), 7)
    assert [(t.label, t.class_id, t.track_id) for t in frame.tracks] == [(1, 0, 0), (2, 1, 0)]
    assert [t.score for t in frame.tracks] == pytest.approx([0.9, 0.6])
    assert not any(t.is_thing for t in frame.tracks)
    expected = enlarged(classes_of_pixels(0).segment_map - 1)
    np.testing.assert_array_equal(frame.semantic_map(), expected)
    assert not frame.track_id_map().any() and frame.masks is None
    for track in frame.tracks:
        np.testing.assert_array_equal(frame.mask(track), frame.labels == track.label)
        assert track.area == (frame.labels == track.label).sum()


@pytest.mark.parametrize("association", CORE_TRACKERS)
def test_classes_are_not_tracked_whatever_the_association(association):
    stream = predictor("semantic", association)
    frames = [stream.step(image(t), t * FRAME) for t in range(3)]
    assert all(frame.born == frame.ended == () for frame in frames)
    assert [len(frame.tracks) for frame in frames] == [2, 2, 2]
    assert stream.step(image(), 100 * FRAME).epoch == 1  # a gap of seconds is a reset all the same


# --- instance -----------------------------------------------------------------------------------


def test_masks_of_instances_are_whole_and_so_is_their_geometry():
    frame = predictor("instance").step(image(), 0)
    assert [(t.label, t.class_id) for t in frame.tracks] == [(1, 0), (2, 1), (3, 2)]
    for track, slot in zip(frame.tracks, (0, 2, 3), strict=True):
        mask = frame.mask(track)
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, enlarged(overlapping_masks(0).masks[slot]) > 0)
        ys, xs = np.nonzero(mask)
        assert track.area == len(xs)
        assert track.box == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert track.centroid == pytest.approx((xs.mean(), ys.mean()))
    scored = {found.class_id: found.mask.area for found in instances(frame)}
    assert scored == {track.class_id: track.area for track in frame.tracks}


def test_labels_show_the_frontmost_instance_and_background():
    frame = predictor("instance").step(image(), 0)
    label_of_slot = np.array([0, 1, 0, 2, 3, 0])
    expected = enlarged(label_of_slot[overlapping_masks(0).segment_map])
    np.testing.assert_array_equal(frame.labels, expected)
    assert 2 not in frame.labels and 0 in frame.labels


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_the_mask_in_the_box_is_that_part_of_the_mask(task):
    frame = predictor(task).step(image(), 0)
    for track in frame.tracks:
        x, y, width, height = track.box
        expected = frame.mask(track)[y : y + height, x : x + width]
        np.testing.assert_array_equal(frame.mask(track, in_box=True), expected)


def test_a_coasted_track_has_no_pixels():
    stream = predictor("instance")
    for t in range(2):
        stream.step(image(t), t * FRAME)
    seen, empty = overlapping_masks(2), np.zeros((5, 32, 48), np.uint8)
    gone = dataclasses.replace(seen, segment_map=empty[0], masks=empty, areas=np.zeros(5, np.int64))
    stream.runtime._script = lambda t: gone
    frame = stream.step(image(2), 2 * FRAME)
    assert [t.state for t in frame.tracks] == [TrackState.COASTED] * 3
    assert not any(frame.mask(track).any() for track in frame.tracks)
    assert not any(frame.mask(track, in_box=True).any() for track in frame.tracks)


@pytest.mark.parametrize("association", CORE_TRACKERS)
def test_overlapping_instances_keep_their_ids_by_every_association(association):
    """Also the one that no pixel of the map shows."""
    stream = predictor("instance", association)
    ids = [
        {track.class_id: track.track_id for track in stream.step(image(t), t * FRAME).tracks}
        for t in range(5)
    ]
    assert ids[1:] == ids[:-1] and sorted(ids[0].values()) == [1, 2, 3]


# --- kept on disk ---------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for t in range(3):
        cv2.imwrite(str(folder / f"{t}.png"), image(t))
    return open_frames(folder)


def recorded(out, t):
    """Labels and rows of a frame."""
    line = json.loads((out / "tracks.jsonl").read_text().splitlines()[t])
    return cv2.imread(str(out / f"labels/{t:06d}.png"), cv2.IMREAD_UNCHANGED), line["tracks"]


def test_a_recording_of_classes_has_no_tracks(video, tmp_path):
    summary = track_video(video, Scripted("semantic", classes_of_pixels), tmp_path / "out")
    assert "3 frames" in str(summary) and "tracks:" not in str(summary)
    labels, rows = recorded(tmp_path / "out", 2)
    assert [(row["class_name"], row["track_id"]) for row in rows] == [("cat", 0), ("dog", 0)]
    assert [row["area"] for row in rows] == [(labels == row["label"]).sum() for row in rows]


def test_a_recording_of_instances_has_their_tracks_and_frontmost_labels(video, tmp_path):
    summary = track_video(video, Scripted("instance", overlapping_masks), tmp_path / "out")
    assert "tracks: 1 cat, 1 dog, 1 bird" in str(summary)
    labels, rows = recorded(tmp_path / "out", 2)
    assert {row["class_name"]: row["track_id"] for row in rows} == {"cat": 1, "dog": 2, "bird": 3}
    assert set(np.unique(labels)) == {0, 1, 3}  # the dog is behind the cat
