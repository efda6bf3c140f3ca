"""The page of a replay: complete, small, harmless, and the same after an interruption."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bag_fixtures import bag_of, changed_bag
from browser import DESK, PHONE, TABLET, Browser, find_browser
from report_pages import ReportPage

from video_knet_core.geometry import LabelMap
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.camera import UNTIMED, Processed
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.replay.report.collect import (
    MOST_PICTURES,
    Latency,
    ReplayReport,
    ReportFacts,
    quantiles,
)
from video_knet_core.replay.report.page import page, write_page
from video_knet_core.replay.report.track_places import PLACE_COLUMNS
from video_knet_core.replay.report.track_timeline import MOST_SPANS, MOST_TRACKS
from video_knet_core.replay.time_bins import MOST_BINS, TimeBins
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

TOPIC = "/camera/image_raw"
PERIOD = 100_000_000
ROAD, CAR = ClassInfo(0, "road", False, (128, 64, 128)), ClassInfo(1, "car", True, (0, 0, 142))
TIMES = StageTimes(1.0, 20.0, 1.0, 1.0)
CONFIRMED, TENTATIVE, COASTED = TrackState.CONFIRMED, TrackState.TENTATIVE, TrackState.COASTED
IMAGE = np.zeros((8, 10, 3), np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Reports write the table of their tracks into the working folder."""
    monkeypatch.chdir(tmp_path)


def row(label: int, info: ClassInfo, track_id: int = 0, state=CONFIRMED) -> Track:
    seen = dict(score=0.9, track_score=0.9, age=1, first_seen=0, last_seen=0, truncated=False)
    place = dict(box=(0, 0, 2, 2), centroid=(1.0, 1.0), velocity=(0.0, 0.0), area=4)
    return Track(label, track_id, info.id, info.is_thing, state, **seen, **place)


def result(number: int, *rows: Track, ended=(), epoch=0, map_=None) -> Processed:
    """A frame; each label has two columns of the image from the left on, the rest has none."""
    labels = np.zeros(IMAGE.shape[:2], np.uint16) if map_ is None else map_
    if map_ is None:
        for track in rows:
            labels[:, 2 * (track.label - 1) % 10 : 2 * track.label] = track.label
    frame = PanopticFrame(
        number * PERIOD, LabelMap.of(labels), TrackTable.of(rows), (), tuple(ended), epoch, UNTIMED
    )
    return Processed(number, 0, None, IMAGE, frame, TIMES)


def new_report(*classes: ClassInfo, topics=(TOPIC,), bag="drive") -> ReplayReport:
    table = ClassTable(classes or (ROAD, CAR))
    nodes = {topic: "/video_knet" for topic in topics}
    return ReplayReport(ReportFacts(bag, "tiny", "onnxruntime-cpu", table, nodes, 0, {}), Path())


def cameras_of(report: ReplayReport, failed=0, failures=(), late=0, left_out=None):
    """What a page has of each camera beside the notes of its frames."""
    found = SimpleNamespace(failed=failed, failures=failures, late=late)
    found.left_out = left_out or TimeBins(2)
    return dict.fromkeys(report.cameras, found)


def page_of(report: ReplayReport, damage="", **left_out) -> ReportPage:
    return ReportPage(page(report, damage, cameras_of(report, **left_out)))


def fed(report: ReplayReport, results: list[Processed]) -> ReplayReport:
    for each in results:
        report.add(TOPIC, each.number * PERIOD, each)
    return report


def bars(found: ReportPage) -> list[dict[str, str | None]]:
    return [each for each in found.of_class("track") if "head" not in str(each["class"])]


# --- tracks --------------------------------------------------------------------------------------


def test_each_confirmed_track_has_a_bar_in_its_colour_and_a_line_of_text():
    rows = [row(1, ROAD), row(2, CAR, 7), row(3, CAR, 9), row(4, CAR, 11, TENTATIVE)]
    report = fed(new_report(), [result(0, *rows), result(1, *rows[:2], ended=[9, 11])])
    found = page_of(report)
    assert len(bars(found)) == 2
    colors = {each.get("fill") for tag, each in found.elements if tag == "rect"}
    assert {"#{:02x}{:02x}{:02x}".format(*track_color(track_id)) for track_id in (7, 9)} <= colors
    assert "car 7" in found.words and "car 9" in found.words and "car 11" not in found.words
    assert "1 more ended before they were confirmed" in found.text
    assert "0.0 s – 0.1 s" in found.text and "2 frames" in found.text


def test_a_track_out_of_sight_has_a_gap():
    car, coasted = row(1, CAR, 1), row(0, CAR, 1, COASTED)
    states = [car, car, coasted, coasted, car]
    report = fed(new_report(), [result(number, each) for number, each in enumerate(states)])
    (line,) = report.cameras[TOPIC].tracks.longest()
    assert line.spans == [[0.0, 0.1], [pytest.approx(0.4), pytest.approx(0.4)]]
    assert ", 1 gap" in page_of(report).text.replace(" ,", ",")


def test_of_a_track_that_flickers_the_longest_gaps_are_kept():
    report = new_report()
    for number in range(0, 200, 2):
        number += 10 * (number > 100)
        report.add(TOPIC, number * PERIOD, result(number, row(1, CAR, 1)))
    (line,) = report.cameras[TOPIC].tracks.longest()
    assert len(line.spans) == MOST_SPANS and line.frames == 100
    gaps = [b[0] - a[1] for a, b in zip(line.spans, line.spans[1:], strict=False)]
    assert max(gaps) == pytest.approx(1.2)


def test_of_very_many_tracks_the_longest_are_shown_and_the_page_stays_small():
    at_once, sizes = 20, []
    for count in (MOST_TRACKS, 5000):
        report = new_report()
        for number in range(count // at_once + 1):
            first = number * at_once + 1
            new = [row(1, CAR, first + k) for k in range(at_once) if first + k <= count]
            old = [row(1, CAR, first - 1)] if number else []  # of each frame, one is seen again
            ended = range(first - at_once - 1, first - 1)
            report.add(TOPIC, number * PERIOD, result(number, *old, *new, ended=ended))
        text = page(report, "", cameras_of(report))
        assert len(bars(ReportPage(text))) == MOST_TRACKS
        sizes.append(len(text))
    assert f"The {MOST_TRACKS} longest of 5,000 tracks" in text
    longest = report.cameras[TOPIC].tracks.longest()
    assert {line.frames for line in longest} == {2}
    assert sizes[1] < 1.2 * sizes[0] < 200_000
    assert len(report.cameras[TOPIC].tracks.living()) <= at_once + 1


# --- from a track to its frame -------------------------------------------------------------------


def links(found: ReportPage) -> list[dict[str, str | None]]:
    return [each for tag, each in found.elements if tag == "a" and "#frame" in str(each["href"])]


def test_each_track_has_a_link_to_the_first_picture_with_it():
    rows = {n: [row(1, CAR, 1), *([row(2, CAR, 2)] if n >= 3 else [])] for n in range(6)}
    found = page_of(fed(new_report(), [result(n, *rows[n]) for n in rows]))
    assert [each["href"] for each in links(found)] == ["#frame-0-0", "#frame-0-3"]
    assert {each.get("id") for _, each in found.elements} >= {"frame-0-0", "frame-0-3"}


def test_a_track_without_a_picture_has_a_link_to_the_nearest_one():
    def rows(number):
        return [row(1, CAR, 1)] if number == 97 else []

    report = fed(new_report(), [result(number, *rows(number)) for number in range(200)])
    assert 97 not in [picture.number for picture in report.cameras[TOPIC].pictures.kept]
    (link,) = links(page_of(report))
    assert link["href"] == "#frame-0-96" and "nearest" in str(link["title"])


def test_links_of_several_cameras_lead_to_their_own_pictures():
    topics = ("/front/image_raw", "/rear/image_raw")
    report = new_report(topics=topics)
    for topic in topics:
        report.add(topic, 0, result(0, row(1, CAR, 1)))
    found = page_of(report)
    assert [each["href"] for each in links(found)] == ["#frame-0-0", "#frame-1-0"]
    ids = [each["id"] for _, each in found.elements if "id" in each]
    assert len(ids) == len(set(ids))


# --- stamps --------------------------------------------------------------------------------------


def stamped(stamps: list[int], epochs=None) -> ReplayReport:
    """A report of frames that were received 0.1 s apart, with these stamps."""
    report = new_report()
    for number, (stamp, epoch) in enumerate(zip(stamps, epochs or [0] * len(stamps), strict=True)):
        each = result(number, row(1, CAR, 1), epoch=epoch)
        frame = dataclasses.replace(each.frame, stamp=stamp)
        report.add(TOPIC, number * PERIOD, each._replace(frame=frame))
    return report


def test_regular_stamps_have_no_gaps_and_no_resets():
    found = page_of(stamped([n * PERIOD for n in range(20)]))
    assert "10 Hz" in found.text and "There are no gaps and no resets." in found.text
    assert not found.of_class("mark")


def test_gaps_and_resets_are_named_with_their_times_and_marked():
    stamps = [n * PERIOD + (2_000_000_000 if n >= 12 else 0) for n in range(20)]
    report = stamped(stamps, [0] * 15 + [1] * 5)
    notes = report.cameras[TOPIC].stamps
    assert notes.gaps() == [(pytest.approx(2.1), pytest.approx(1.2))]
    assert notes.resets == [pytest.approx(1.5)] and notes.reset_count == 1
    found = page_of(report)
    assert "2.1 s until 1.2 s" in found.text and "at 1.5 s" in found.text
    assert [each["class"] for each in found.of_class("mark")] == ["mark reset"]
    edges, largest = notes.over_time(100)
    assert np.nanmax(largest) == pytest.approx(2100) and len(edges) == len(largest) + 1


@pytest.mark.parametrize(
    "stamps", [[0] * 10, [5] * 10, [10**9 - n for n in range(10)], [n // 5 for n in range(10)], [7]]
)
def test_stamps_that_stand_still_go_back_or_come_in_bunches_make_a_page_too(stamps):
    found = page_of(stamped(stamps))
    assert "nan" not in found.text.lower() and "inf " not in found.text


def test_images_that_were_left_out_are_marked_on_the_time_axis():
    report = fed(new_report(), [result(number, row(1, ROAD)) for number in range(50)])
    bins = TimeBins(2)
    bins.row(1.0)[0] += 3
    bins.row(2.0)[1] += 1
    bins.row(3.0)[1] += 1
    found = page_of(report, failed=3, failures=["a"], late=2, left_out=bins)
    assert [each["class"] for each in found.of_class("mark")] == [
        *("mark failed", "mark late", "mark late"),
    ]
    assert "2 left out because they came after" in found.text


# --- the table of tracks -------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_confirmed_track_as_csv_and_as_json(tmp_path):
    report = new_report()
    car = dataclasses.replace(row(1, CAR, 7), box=(1, 2, 3, 4), area=12, score=0.5)
    grown = dataclasses.replace(car, box=(2, 2, 3, 4), area=20, score=1.0)
    fed(report, [result(0, car, row(2, CAR, 8, TENTATIVE)), result(1, grown), result(2, ended=[7])])
    fed(report, [result(3, row(1, CAR, 9))])
    report.finish()
    with (tmp_path / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [each["track_id"] for each in rows] == ["7", "9"]  # as they ended
    first, _ = json.loads((tmp_path / "tracks.json").read_text())
    texts = {name: "" if value is None else str(value) for name, value in first.items()}
    assert texts == rows[0]
    assert first == {
        **dict.fromkeys(PLACE_COLUMNS),
        **{"camera": "/video_knet", "epoch": 0, "track_id": 7, "class_id": 1, "class": "car"},
        **{"first_s": 0.0, "last_s": 0.1, "first_stamp": 0, "last_stamp": PERIOD},
        **{"first_frame": 0, "last_frame": 1, "frames": 2, "mean_score": 0.75},
        **{"first_x": 1, "first_y": 2, "first_width": 3, "first_height": 4},
        **{"last_x": 2, "last_y": 2, "last_width": 3, "last_height": 4, "max_area": 20},
    }


def test_a_replay_leaves_the_table_and_no_report_leaves_none(runtime, tmp_path):
    path = bag_of(tmp_path, 10)
    replay(path, runtime, tmp_path / "out")
    (only,) = json.loads((tmp_path / "out/tracks.json").read_text())
    assert (only["frames"], only["first_s"], only["last_s"]) == (10, 0.0, 0.9)
    replay(path, runtime, tmp_path / "none", ReplaySettings(report=False))
    left = {path.name for path in (tmp_path / "none").iterdir()}
    assert left == {"bag", "replay.json"}


def test_a_track_is_resumed_after_an_epoch_of_one_wrong_stamp():
    epochs = [7, 7, 8, 7, 7]
    frames = [result(n, row(1, CAR, 1 + epoch % 7), epoch=epoch) for n, epoch in enumerate(epochs)]
    tracks = fed(new_report(), frames).cameras[TOPIC].tracks
    assert [(t.epoch, t.track_id, t.frames) for t in tracks.longest()] == [(7, 1, 4), (8, 2, 1)]
    assert sum(tracks.counts()) == 2


# --- classes -------------------------------------------------------------------------------------


def shown_shares(found: ReportPage) -> list[float]:
    return [float(word.removesuffix(" %")) for word in found.words if re.match(r"[\d.]+ %$", word)]


def test_class_shares_are_those_of_the_pixels_and_sum_to_100_percent():
    report = fed(new_report(), [result(0, row(1, ROAD), row(2, CAR, 1)), result(1, row(1, ROAD))])
    edges, shares = report.cameras[TOPIC].shares_over_time(100)
    assert edges[0] == 0 and edges[-1] > 0.1
    assert shares == pytest.approx(np.array([[0.7, 0.2, 0.1]]))
    assert sum(shown_shares(page_of(report))[-3:]) == pytest.approx(100)


def test_frames_of_a_semantic_model_have_no_tracks():
    sky = ClassInfo(1, "sky", False, (70, 130, 180))
    report = fed(new_report(ROAD, sky), [result(n, row(1, ROAD), row(2, sky)) for n in range(3)])
    found = page_of(report)
    assert "there are no tracks" in found.text and not bars(found)
    assert "no instances" in found.text and {"road", "sky"} <= set(found.words)


def test_shares_of_instances_that_overlap_are_of_the_pixels_in_front():
    person = ClassInfo(1, "person", True, (220, 20, 60))
    car = ClassInfo(0, "car", True, (0, 0, 142))
    front = np.ones(IMAGE.shape[:2], np.uint16)
    front[:, 5:] = 2
    rows = [dataclasses.replace(row(1, car, 1), area=80), row(2, person, 2), row(3, car, 3)]
    report = fed(new_report(car, person), [result(0, *rows, map_=front)])  # 3 is quite hidden
    assert report.mean_shares() == pytest.approx([0, 0.5, 0.5])
    assert len(bars(page_of(report))) == 3


def test_sums_over_time_do_not_depend_on_how_often_the_bins_grew():
    bins = TimeBins(1)
    times = np.linspace(0, 20_000, 5000)
    for seconds in times:
        bins.row(seconds)[0] += 1
    expected = np.bincount((times / bins.width).astype(int), minlength=MOST_BINS)
    assert bins.sums[:, 0].tolist() == expected.tolist() and bins.width == 128


# --- times and frames ----------------------------------------------------------------------------


def test_quantiles_of_the_inference_time_are_right_to_two_percent():
    latency, rng = Latency(), np.random.default_rng(0)
    samples = rng.gamma(4.0, 10.0, 5000)
    for number, milliseconds in enumerate(samples):
        latency.add(number * 0.1, milliseconds)
    expected = np.quantile(samples, [0.5, 0.9, 0.99])
    assert quantiles(latency.histogram) == pytest.approx(expected, rel=0.02)
    edges, over_time = latency.over_time(50)
    assert 25 <= len(over_time) <= 50 and len(edges) == len(over_time) + 1
    assert np.median(over_time[:, 0]) == pytest.approx(expected[0], rel=0.05)


@pytest.mark.parametrize("count", [1, MOST_PICTURES, 500])
def test_a_few_frames_are_chosen_evenly(count):
    report = fed(new_report(), [result(number, row(1, ROAD)) for number in range(count)])
    numbers = [picture.number for picture in report.cameras[TOPIC].pictures.kept]
    assert min(count, MOST_PICTURES // 2 + 1) <= len(numbers) <= MOST_PICTURES
    assert np.diff([*numbers, count]).max() == np.diff(numbers).max(initial=1)
    assert len(set(np.diff(numbers))) <= 1
    found = page_of(report)
    images = [each for tag, each in found.elements if tag == "img" and each.get("src")]
    assert len(images) == len(numbers) and all(each["alt"] for each in images)


def test_cameras_share_the_room_for_frames_and_have_sections_of_their_own():
    topics = ("/front/image_raw", "/rear/image_raw", "/left/image_raw", "/right/image_raw")
    report = new_report(topics=topics)
    for number in range(100):
        for topic in topics[:3]:
            report.add(topic, number * PERIOD, result(number, row(1, CAR, 1)))
    found = page_of(report)
    assert len(found.of_class("frame")) == 6 and len(bars(found)) == 3
    headings = [word for word in found.words if word in topics]
    assert all(headings.count(topic) >= 4 for topic in topics)
    assert found.words.count("No frames.") == 4  # tracks, stamps, classes, times of the last camera


# --- what may go wrong ---------------------------------------------------------------------------


def test_names_from_the_bag_and_the_model_are_text_and_nothing_else():
    hostile = "</title><script>alert('x')</script><img src=//e.x onerror=\"a&amp;b\">$bag"
    classes = (
        dataclasses.replace(ROAD, name=hostile),
        dataclasses.replace(CAR, name=hostile + "2"),
    )
    report = new_report(*classes, topics=(hostile, TOPIC), bag=hostile)
    for topic in (hostile, TOPIC):
        report.add(topic, 0, result(0, row(1, classes[0]), row(2, classes[1], 1)))
    found = page_of(report, damage=hostile, failed=1, failures=[hostile])
    assert found.text.count(hostile) >= 10
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not any(
        "onerror" in each or "//e.x" in str(each.get("src")) for _, each in found.elements
    )


def test_damage_and_images_left_out_are_described():
    report = fed(new_report(), [result(0, row(1, ROAD))])
    text = page_of(report, "drive.mcap: byte 17 is wrong", failed=12, failures=["a", "b"]).text
    assert "The bag is damaged; it was read up to there: drive.mcap: byte 17 is wrong" in text
    assert f"{TOPIC}: 12 images could not be used. The first 2 of them:" in text


def test_the_time_of_an_image_that_is_left_out_is_that_of_the_recording(runtime, tmp_path):
    def cut(rows):
        start = 1_700_000_000 * 10**9
        return [
            (name, kind, time + start, data[: -50 if number == 4 else None])
            for number, (name, kind, time, data) in enumerate(rows)
        ]

    replay(changed_bag(tmp_path, 8, cut), runtime, tmp_path / "out")
    text = ReportPage((tmp_path / "out/report.html").read_text()).text
    assert "the image received at 0.4 s is left out" in text and "170000" not in text


def test_a_file_name_that_is_no_text_is_no_obstacle(tmp_path):
    report = fed(new_report(bag="drive\udcff.mcap"), [result(0, row(1, ROAD))])
    write_page(report, "", cameras_of(report))
    assert "drive?.mcap" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_without_a_frame_is_a_page_too():
    assert "No frames." in page_of(new_report()).words


# --- of a replay ---------------------------------------------------------------------------------


def test_a_replay_leaves_a_page_that_requests_nothing(runtime, tmp_path):
    replay(bag_of(tmp_path, 20), runtime, tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text()
    found = ReportPage(text)
    assert "Replay of in" in found.words and len(bars(found)) == 1
    assert "default-src 'none'" in text and "http:" not in text and "https:" not in text
    sources = [each[key] for _, each in found.elements for key in ("src", "href") if key in each]
    assert all(str(source).startswith(("data:", "#", "tracks.")) for source in sources)


# --- in a browser --------------------------------------------------------------------------------


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium")
def test_in_a_browser_the_page_is_quiet_fits_and_its_frames_can_be_enlarged(runtime, tmp_path):
    topics = ("/front/image_raw", "/rear/image_raw")
    replay(
        bag_of(tmp_path, 30, topics=topics),
        runtime,
        tmp_path / "out",
        ReplaySettings(topics=topics),
    )
    path = tmp_path / "out/report.html"
    with Browser() as browser:
        for size in (PHONE, TABLET, DESK):
            browser.open(path, size)
            root = "document.documentElement"
            assert browser.run(f"{root}.scrollWidth") == browser.run(f"{root}.clientWidth")
            tables = "[...document.querySelectorAll('.scroll table')]"
            assert browser.run(f"{tables}.every(t => t.scrollWidth <= t.parentElement.clientWidth)")
            browser.run("document.querySelector('.track a').click()")
            assert browser.run("document.querySelector('figure:target img').naturalWidth > 0")
            assert browser.run("[...document.images].every(i => !i.src || i.naturalWidth > 0)")
            browser.run("document.querySelectorAll('button.frame')[1].focus()")
            browser.press("Enter")
            assert browser.run("document.getElementById('viewer').open")
            first = browser.run("document.getElementById('large').src")
            browser.press("ArrowRight")
            assert browser.run("document.getElementById('large').src") != first
            browser.press("Escape")
            assert not browser.run("document.getElementById('viewer').open")
            assert browser.run("document.activeElement.className") == "frame"
            assert browser.requests() == [path.as_uri()] and browser.complaints() == []
