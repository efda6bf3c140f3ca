"""Tracks seen from above: where they were, in which axes, and how little of it is kept."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bag_fixtures import bag_of, depth_bag_of
from report_pages import ReportPage

from video_knet_core.geometry import LabelMap
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.camera import UNTIMED, Processed
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.replay.report.birds_eye_view import BirdsEyeView, birds_eye_view
from video_knet_core.replay.report.collect import CameraNotes
from video_knet_core.replay.report.track_places import MOST_POINTS, PLACE_COLUMNS, ThinnedPath
from video_knet_core.replay.report.track_timeline import MOST_TRACKS, TrackFiles
from video_knet_core.spatial.objects import OBJECT_DTYPE, ObjectTable, RangeSource
from video_knet_core.types import (
    ClassInfo,
    ClassTable,
    PanopticFrame,
    StageTimes,
    Track,
    TrackState,
    TrackTable,
)
from video_knet_core.visualize import track_color

ROAD, CAR = ClassInfo(0, "road", False, (128, 64, 128)), ClassInfo(1, "car", True, (0, 0, 142))
CLASSES = ClassTable((ROAD, CAR))
IMAGE = np.zeros((8, 10, 3), np.uint8)
TIMES = StageTimes(1.0, 20.0, 1.0, 1.0)
FORWARD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
"""Pose of a camera that looks along x of a fixed frame with z up."""
Places = Mapping[int, tuple[float, float, float]]
"""By track id."""


def objects(places: Places, frame_id: str, pose=FORWARD, source=RangeSource.DEPTH) -> ObjectTable:
    rows = np.zeros(len(places), OBJECT_DTYPE)
    rows["track_id"] = [*places]
    rows["position"] = np.reshape([*places.values()], (-1, 3))
    rows["range"] = np.linalg.norm(rows["position"] - pose[:3, 3], axis=1)
    rows["velocity"], rows["source"] = np.nan, source
    return ObjectTable(rows, frame_id, camera_pose=pose)


def result(number: int, table: ObjectTable | None, ids=(7,)) -> Processed:
    """A frame of the camera `camera` with confirmed cars."""
    known = dict(score=0.9, track_score=0.9, age=1, first_seen=0, last_seen=0, truncated=False)
    place = dict(box=(0, 0, 2, 2), centroid=(1.0, 1.0), velocity=(0.0, 0.0), area=4)
    rows = [
        Track(label, track_id, 1, True, TrackState.CONFIRMED, **known, **place)
        for label, track_id in enumerate(ids, 1)
    ]
    labels = np.zeros(IMAGE.shape[:2], np.uint16)
    frame = PanopticFrame(
        number * 10**8, LabelMap.of(labels), TrackTable.of(rows), (), (), 0, UNTIMED
    )
    header = SimpleNamespace(frame_id="camera")
    return Processed(number, 0, header, IMAGE, frame, TIMES, table)


def notes_of(*tables: ObjectTable | None, classes=CLASSES, on_end=lambda track: None):
    """What is kept of a frame for each table."""
    notes = CameraNotes(classes, 1, on_end)
    for number, table in enumerate(tables):
        ids = table.rows["track_id"].tolist() if table else [7]
        notes.add(number / 10, result(number, table, ids))
    return notes


def view_of(*tables: ObjectTable | None) -> BirdsEyeView:
    view = birds_eye_view(notes_of(*tables), CLASSES, "0")
    assert view is not None
    return view


def on_page(view: BirdsEyeView, name: str) -> np.ndarray:
    """[2] points to the right and down of the mark at the last place of a track or the camera."""
    found = re.search(rf'<g class="last {name}">.*?<use ([^>]*)>', view.svg, re.DOTALL)
    assert found
    return np.array([float(re.search(rf'\b{axis}="([\d.]+)"', found[1])[1]) for axis in "xy"])


def ticks(view: BirdsEyeView, axis: str) -> np.ndarray:
    """[n, 2] points on the page, and metres beside them."""
    pattern = rf'<g class="{axis}tick_\d+">.*?<use [^>]*\b{axis}="([\d.]+)".*?>(-?\d+) m</text>'
    return np.array(re.findall(pattern, view.svg, re.DOTALL), float)


def in_metres(view: BirdsEyeView, name: str) -> list[float]:
    """Numbers on the axis to the side and on that up the page, of a mark."""
    place = on_page(view, name)
    lines = [np.polyfit(*ticks(view, axis).T, 1) for axis in "xy"]
    return [float(np.polyval(line, at)) for line, at in zip(lines, place, strict=True)]


# --- axes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame_id", "place", "pose", "numbers"),
    [
        ("camera", (2.0, 0.5, 10.0), np.eye(4), [2, 10]),
        ("/camera", (2.0, 0.5, 10.0), np.eye(4), [2, 10]),
        ("odom", (10.0, -2.0, 0.5), FORWARD, [-2, 10]),
    ],
)
def test_an_object_ahead_and_to_the_right_is_above_and_right_of_the_camera(
    frame_id, place, pose, numbers
):
    view = view_of(objects({7: place}, frame_id, pose))
    assert in_metres(view, "track-7") == pytest.approx(numbers, abs=0.05)
    assert in_metres(view, "camera") == pytest.approx([0, 0], abs=0.05)
    right, down = on_page(view, "track-7") - on_page(view, "camera")
    assert right > 0 > down
    assert right / -down == pytest.approx(2 / 10, abs=0.01)  # a metre is a metre


@pytest.mark.parametrize("far", [(0.5, 0.0, 80.0), (300.0, 0.0, 2.0), (0.0, 0.0, 0.0), (5e6, 0, 9)])
def test_the_grid_has_a_few_lines_on_each_axis(far):
    view = view_of(objects({7: (0.0, 0.0, 1.0), 8: far}, "camera", np.eye(4)))
    steps = [np.unique(np.diff(ticks(view, axis)[:, 1])) for axis in "xy"]
    assert len(steps[0]) == 1 and steps[0] == steps[1]
    assert all(2 <= len(ticks(view, axis)) <= 12 for axis in "xy")


def test_the_path_of_a_camera_in_a_fixed_frame_is_drawn_and_its_mark_looks_ahead():
    left = FORWARD.copy()
    left[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # along y
    left[:3, 3] = 4, 3, 1
    tables = [objects({7: (9.0, 9.0, 0.0)}, "odom", pose) for pose in (FORWARD, left)]
    view = view_of(*tables)
    assert in_metres(view, "camera") == pytest.approx([3, 4], abs=0.05)
    assert 'class="path camera"' in view.svg and not view.places.stands_still
    mark = re.search(r'<g class="last camera">.*?<path [^>]*d="([^"]*)"', view.svg, re.DOTALL)
    outline = np.array(re.findall(r"[ML] (\S+) (\S+)", mark[1]), float)
    tip = outline[np.argmin(outline[:, 0])]
    assert tip[0] < -5 and tip[1] == pytest.approx(0)  # to the left on the page


# --- what is drawn -------------------------------------------------------------------------------


def test_a_track_has_its_colour_and_a_name_and_its_range_a_source():
    tables = [
        objects({7: (10.0, step, 0.0), 9: (20.0, 0.0, 0.0)}, "odom", source=RangeSource.GROUND)
        for step in range(5)
    ]
    view = view_of(*tables)
    assert "car 7" in view.svg and "car 9" in view.svg
    assert "#{:02x}{:02x}{:02x}".format(*track_color(7)) in view.svg
    assert view.tracks == 2 and view.sources == ["ground"]


def test_names_that_would_lie_over_each_other_are_left_out():
    view = view_of(objects({n: (10.0 + 0.01 * n, 0.0, 0.0) for n in range(1, 9)}, "odom"))
    assert 1 <= len(re.findall(r">car \d</text>", view.svg)) <= 2
    assert len(re.findall('class="last track', view.svg)) == 8


def test_a_name_is_text_and_nothing_else():
    hostile = dataclasses.replace(CAR, name='<b>$\\frac{"')
    classes = ClassTable((ROAD, hostile))
    notes = notes_of(objects({7: (9.0, 0.0, 0.0)}, "odom"), classes=classes)
    view = birds_eye_view(notes, classes, "0")
    assert view is not None
    page = ReportPage(view.svg)
    assert f"{hostile.name} 7" in page.words and "b" not in {tag for tag, _ in page.elements}


def test_without_places_there_is_no_view():
    predicted = objects({7: (9.0, 0.0, 0.0)}, "odom", source=RangeSource.NONE)
    for tables in ([], [None], [objects({}, "odom")], [predicted]):
        assert birds_eye_view(notes_of(*tables), CLASSES, "0") is None


def test_after_a_change_of_the_frame_the_places_are_of_the_new_one():
    view = view_of(
        objects({7: (9.0, 0.0, 0.0)}, "odom"), objects({7: (1.0, 0.0, 5.0)}, "camera", np.eye(4))
    )
    assert view.places.frame_id == "camera" and len(view.places.path.points) == 1
    assert in_metres(view, "track-7") == pytest.approx([1, 5], abs=0.05)


# --- the size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, MOST_POINTS, MOST_POINTS + 1, 10_000])
def test_of_a_long_path_evenly_spread_points_and_both_ends_are_kept(count):
    path = ThinnedPath()
    for n in range(count):
        path.add(np.array([n, 0.0, 0.0]))
    kept = path.points[:, 0]
    assert min(count, MOST_POINTS // 2) <= len(kept) <= MOST_POINTS + 1
    assert kept[:1].tolist() == [0.0][:count] and kept[-1:].tolist() == [count - 1.0][:count]
    assert len(np.unique(np.diff(kept[:-1]))) <= 1


def test_the_view_of_very_many_tracks_and_frames_stays_small():
    ids = range(1, MOST_TRACKS + 51)
    tables = [
        objects({n: (n + np.sin(frame), n % 17 + frame / 9, 0.0) for n in ids}, "odom")
        for frame in range(MOST_POINTS + 10)
    ]
    view = view_of(*tables)
    assert view.tracks == MOST_TRACKS and len(view.svg) < 500_000


def test_equal_places_give_equal_text():
    tables = [objects({7: (9.0, n, 0.0), 8: (3.0, n / 2, 0.0)}, "odom") for n in range(9)]
    assert view_of(*tables).svg == view_of(*tables).svg


# --- the table of tracks -------------------------------------------------------------------------


def test_the_table_of_tracks_has_places_in_metres(tmp_path):
    tables = [objects({7: (n, 2.0, 1.0)}, "odom") for n in (4.0, 6.0)]
    tables[1].rows["velocity"] = 3.0, 4.0, 0.0
    files = TrackFiles(tmp_path, CLASSES)
    files.finish(("/c", t) for t in [*notes_of(*tables).tracks.living()])
    (row,) = json.loads((tmp_path / "tracks.json").read_text())
    assert [row[name] for name in PLACE_COLUMNS] == [
        *("odom", 5.0, 2.0, 1.0, 6.0, 2.0, 1.0),
        *(pytest.approx(np.sqrt(21), abs=1e-3), 5.0, "depth"),
    ]


def test_a_track_without_a_place_has_empty_columns(tmp_path):
    files = TrackFiles(tmp_path, CLASSES)
    files.finish(("/c", t) for t in notes_of(None).tracks.living())
    (row,) = json.loads((tmp_path / "tracks.json").read_text())
    assert {row[name] for name in PLACE_COLUMNS} == {None}
    (line,) = csv.DictReader((tmp_path / "tracks.csv").open())
    assert {line[name] for name in PLACE_COLUMNS} == {""}


# --- of a replay ---------------------------------------------------------------------------------


def page_of(bag: Path, runtime, out: Path, **settings: str) -> ReportPage:
    replay(bag, runtime, out, ReplaySettings(topics=("/camera/image_raw",), **settings))
    return ReportPage((out / "report.html").read_text())


def test_a_page_has_the_view_where_there_is_depth(runtime, tmp_path):
    bag = depth_bag_of(tmp_path, 6)
    for settings in ({}, {"target_frame": "odom", "odometry": "/odometry"}):
        found = page_of(bag, runtime, tmp_path / str(len(settings)), **settings)
        assert "Bird's-eye view" in found.words and "vehicle 1" in found.words
        assert "range from depth" in found.words
        frame = "the frame odom" if settings else "relative to the camera (camera)"
        assert frame in found.text
    (row,) = json.loads((tmp_path / "2/tracks.json").read_text())
    assert row["last_position_x"] == pytest.approx(10 + 5, abs=0.5)  # the camera drives 5 m


def test_a_page_without_depth_has_no_view(runtime, tmp_path):
    found = page_of(bag_of(tmp_path, 6), runtime, tmp_path / "out")
    assert "Bird's-eye view" not in found.words
