"""Overlays of results."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from video_knet_core.geometry import LabelMap, OverlappingMasks
from video_knet_core.types import (
    ClassTable,
    PanopticFrame,
    StageTimes,
    Track,
    TrackState,
    TrackTable,
)
from video_knet_core.visualize import overlay, track_color

CLASSES = ClassTable.from_rows(
    [
        {"name": "road", "is_thing": False, "color": [128, 64, 128]},
        {"name": "vehicle", "is_thing": True, "color": [0, 0, 142]},
    ]
)
ROAD, VEHICLE = 0, 1


def track(label: int, track_id: int, box: tuple[int, int, int, int], coasted=False) -> Track:
    x, y, w, h = box
    state = TrackState.COASTED if coasted else TrackState.CONFIRMED
    return Track(
        label=label, track_id=track_id, class_id=VEHICLE if track_id else ROAD,
        is_thing=track_id > 0, state=state, score=0.9, track_score=0.9, age=3, first_seen=0,
        last_seen=0, box=box, centroid=(x + w / 2, y + h / 2), velocity=(0.0, 0.0),
        area=0 if coasted else w * h, truncated=False,
    )  # fmt: skip


def frame_of(labels, *tracks: Track, masks=None) -> PanopticFrame:
    table = TrackTable.of(tracks)
    return PanopticFrame(0, LabelMap.of(labels), table, (), (), 0, StageTimes(1, 2, 3, 4), masks)


def scene(*vehicles: tuple[int, tuple[int, int, int, int]], extra: tuple[Track, ...] = ()):
    """Road in the lower half of [120, 160], vehicles given as (track id, box)."""
    labels = np.zeros((120, 160), np.uint16)
    labels[60:] = 1
    tracks = [track(1, 0, (0, 60, 160, 60))]
    for label, (track_id, box) in enumerate(vehicles, 2):
        x, y, w, h = box
        labels[y : y + h, x : x + w] = label
        tracks.append(track(label, track_id, box))
    return frame_of(labels, *tracks, *extra)


GREY = np.full((120, 160, 3), 100, np.uint8)
GREY.flags.writeable = False


def test_track_colours_are_stable_bright_and_far_apart():
    assert track_color(12) == track_color(12)
    colors = np.array([track_color(i + 1) for i in range(12)])
    assert colors.max(1).min() > 200
    for a, b in itertools.combinations(colors, 2):
        assert np.abs(a - b).sum() > 40


def test_segments_are_tinted_and_the_rest_is_left_alone():
    frame = scene((5, (40, 50, 60, 50)))
    drawn = overlay(GREY, frame, CLASSES)
    assert drawn.dtype == np.uint8 and drawn.shape == GREY.shape
    np.testing.assert_array_equal(drawn[:40], GREY[:40])
    road = (np.array([128, 64, 128]) + 100) / 2
    np.testing.assert_allclose(drawn[110, 10], road, atol=1)
    np.testing.assert_allclose(drawn[95, 45], (np.array(track_color(5)) + 100) / 2, atol=1)


def test_a_view_of_bgr_is_drawn_on_as_rgb_is():
    rgb = np.random.default_rng(0).integers(0, 256, GREY.shape, np.uint8)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    frame = scene((5, (40, 50, 60, 50)))
    np.testing.assert_array_equal(
        overlay(bgr[..., ::-1], frame, CLASSES), overlay(rgb, frame, CLASSES)
    )


def test_things_have_light_contours_and_stuff_has_dark_ones():
    drawn = overlay(GREY, scene((5, (40, 50, 60, 50))), CLASSES)
    np.testing.assert_array_equal(drawn[80, 40], (255, 255, 255))
    np.testing.assert_array_equal(drawn[80, 99], (255, 255, 255))
    assert drawn[59, 10].max() < 60


def test_the_name_is_written_on_the_instance():
    box = (20, 30, 120, 80)
    named = overlay(GREY, scene((12, box)), CLASSES)
    x, y, w, h = box
    inner = named[y + 3 : y + h - 3, x + 3 : x + w - 3]
    assert (inner == 255).all(2).any() and (inner == 0).all(2).any()


def test_small_instances_have_no_name():
    drawn = overlay(GREY, scene((12, (80, 80, 5, 4))), CLASSES)
    assert not (drawn == 0).all(2).any()


def test_coasted_tracks_are_not_drawn():
    lost = track(0, 9, (10, 10, 90, 40), coasted=True)
    np.testing.assert_array_equal(
        overlay(GREY, scene(extra=(lost,)), CLASSES), overlay(GREY, scene(), CLASSES)
    )


def test_overlapping_masks_lie_over_each_other_the_smallest_on_top():
    """The small one is behind the large one in the label map, and hidden there."""
    whole = np.zeros((2, 120, 160), np.uint8)
    whole[0, 60:80, 60:90], whole[1, 20:100, 40:140] = 1, 1
    front = 2 * whole[1].astype(np.uint16)
    tracks = track(1, 7, (60, 60, 30, 20)), track(2, 5, (40, 20, 100, 80))
    masks = OverlappingMasks(whole, LabelMap.of(front).upsampling)
    drawn = overlay(GREY, frame_of(front, *tracks, masks=masks), CLASSES)
    for (y, x), track_id in {(77, 62): 7, (90, 60): 5}.items():
        np.testing.assert_allclose(drawn[y, x], (np.array(track_color(track_id)) + 100) / 2, atol=1)
    np.testing.assert_array_equal(drawn[60, 75], (255, 255, 255))  # its contour
    np.testing.assert_array_equal(drawn[110], GREY[110])  # background


def test_classes_alone_are_tinted_and_have_no_names():
    stuff = track(1, 0, (0, 0, 160, 120))
    drawn = overlay(GREY, frame_of(np.ones((120, 160), np.uint16), stuff), CLASSES)
    np.testing.assert_allclose(drawn, np.full_like(drawn, 0) + [114, 82, 114], atol=1)


def test_a_frame_without_segments_is_the_image():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    frame = frame_of(np.zeros((60, 80), np.uint16))
    np.testing.assert_array_equal(overlay(image, frame, CLASSES), image)


def test_an_image_of_another_size_is_rejected():
    with pytest.raises(ValueError, match="image: expected"):
        overlay(np.zeros((60, 80, 3), np.uint8), scene(), CLASSES)


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("vehicle", "vehicle"), ("Bär", "Bar"), ("汽车", "class 1"), ("машина", "class 1")],
)
def test_names_that_opencv_cannot_draw_are_drawn_as_numbers(name, drawn, monkeypatch):
    """OpenCV's fonts have ASCII letters alone, and draw a question mark for every other byte."""
    texts = []
    monkeypatch.setattr(cv2, "putText", lambda picture, text, *rest: texts.append(text))
    rows = CLASSES.to_rows()
    rows[VEHICLE]["name"] = name
    frame = scene((7, (20, 20, 100, 60)))
    overlay(np.zeros((120, 160, 3), np.uint8), frame, ClassTable.from_rows(rows))
    assert set(texts) == {f"{drawn} 7"}
