"""Replays: every frame once, the same bytes every time, damage named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from bag_cases import TEXT
from bag_fixtures import PERIOD, TOPIC, bag_of, changed_bag, drive, read_all, storage_file
from mcap.reader import make_reader
from replay_results import ALL, TABLES, digests, result_of

from video_knet_core.bags.definitions import (
    IMAGE,
    read_cdr,
    ros2_types,
)
from video_knet_core.bags.making import DELAY, FIRST_STAMP, BagFormat, make_bag
from video_knet_core.cli import main
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings

FORMS = [
    BagFormat("sqlite3"),
    BagFormat("sqlite3", "message"),
    BagFormat("mcap"),
    BagFormat("mcap", "chunk"),
    BagFormat("mcap", "file"),
    BagFormat("ros1"),
    BagFormat("ros1", "chunk"),
    BagFormat("mcap", jpeg=95),
    BagFormat("ros1", jpeg=95),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.format}-{form.compression}")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_counts_stamps_and_topics_of_the_round_trip(form, storage, runtime, tmp_path):
    settings = ReplaySettings(storage=storage, split_frames=4)
    summary = replay(bag_of(tmp_path, 10, form), runtime, tmp_path / "out", settings)
    assert (summary.frames, summary.failed, summary.damage) == (10, 0, "")
    result = result_of(tmp_path / "out")
    assert {topic: len(times) for topic, times in result.times.items()} == {
        "/video_knet/class_map": 1,
        "/video_knet/instances": 10,
        "/video_knet/panoptic/image": 10,
    }
    stamps = [FIRST_STAMP + number * PERIOD for number in range(10)]
    tables = result.tables["/video_knet/instances"]
    assert [nanoseconds(table.header.stamp) for table in tables] == stamps
    assert result.times["/video_knet/instances"] == [stamp + DELAY for stamp in stamps]
    assert [table.sequence for table in tables] == list(range(10))
    assert [row.track_id for table in tables for row in table.instances if row.is_thing] == [1] * 10
    assert all(table.skipped == 0 for table in tables)
    assert len({table.tracker_epoch for table in tables}) == 1


def test_metadata_in_a_file_names_the_recording(runtime, tmp_path):
    replay(bag_of(tmp_path, 2), runtime, tmp_path / "out")
    with (tmp_path / "out/bag/bag_0000.mcap").open("rb") as file:
        (record,) = make_reader(file).iter_metadata()
    (text,) = record.metadata.values()
    assert yaml.safe_load(text)["relative_file_paths"] == ["bag.mcap"]
    assert [path.name for path in (tmp_path / "out").glob("**/*partial*")] == []


def test_rosbags_reads_the_parts_as_one_bag(runtime, tmp_path):
    from rosbags.highlevel import AnyReader

    for storage in ("mcap", "sqlite3"):
        out = tmp_path / storage
        settings = ReplaySettings(include_input_topics=True, storage=storage, split_frames=4)
        replay(bag_of(out / "source", 10), runtime, out / "result", settings)
        with AnyReader([out / "result/bag"]) as reader:
            assert reader.message_count == 31
            assert sum(1 for _ in reader.messages()) == 31
            assert reader.topics[TOPIC].msgcount == 10
            connection = next(c for c in reader.connections if c.msgtype == TABLES)
            (*_, (_, _, data)) = reader.messages([connection])
            assert reader.deserialize(data, TABLES).instances[1].class_name == "vehicle"
            latched = next(c for c in reader.connections if c.topic.endswith("class_map"))
            assert latched.ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"


def test_merge_copies_every_message_of_every_topic(runtime, tmp_path):
    def add_texts(rows):
        for number, row in enumerate(rows):
            yield row
            yield (*TEXT[:2], row[2] + number, TEXT[3])

    path = changed_bag(tmp_path, 10, add_texts)
    settings = ReplaySettings(include_input_topics=True, split_frames=4)
    replay(path, runtime, tmp_path / "out", settings)
    expected = {(m.topic.name, m.time, bytes(m.data)) for m in read_all(path)}
    found = {(m.topic.name, m.time, bytes(m.data)) for m in read_all(tmp_path / "out/bag")}
    assert len(expected) == 20 and expected <= found and len(found) == 41


@pytest.mark.parametrize("output", ["instances", "overlay/image"])
def test_a_camera_that_is_called_like_an_output_is_not_copied(output, runtime, tmp_path, caplog):
    topic, out = f"/video_knet/{output}", tmp_path / "out"
    path = bag_of(tmp_path, 3, topics=(topic,))
    settings = ReplaySettings(include_input_topics=True, outputs=("instances", "overlay"))
    assert replay(path, runtime, out, settings).frames == 3
    assert f"{topic} is not copied: the replay makes topics there" in caplog.text
    counts = Counter((m.topic.name, m.topic.type) for m in read_all(out / "bag"))
    assert counts == {
        ("/video_knet/class_map", "video_knet_ros/msg/ClassMap"): 1,
        ("/video_knet/instances", TABLES): 3,
        ("/video_knet/overlay/image", IMAGE): 3,
    }


def test_several_cameras_in_one_pass_each_have_their_own_tracks_and_topics(runtime, tmp_path):
    topics = ("/front/image_raw", "/rear/image_raw")
    path = bag_of(tmp_path, 6, topics=topics)
    replay(path, runtime, tmp_path / "out", ReplaySettings(topics=topics, tracks=True))
    tables = result_of(tmp_path / "out").tables
    assert {name: len(found) for name, found in tables.items()} == {
        "/front/instances": 6,
        "/rear/instances": 6,
    }
    for name, found in tables.items():
        assert [table.sequence for table in found] == list(range(6))
        assert {row.track_id for table in found for row in table.instances} == {0, 1}, name
    assert (tmp_path / "out/tracks/front.jsonl").is_file()


def test_two_runs_give_the_same_bytes_in_every_file(runtime, tmp_path):
    path = bag_of(tmp_path, 20)
    for name in ("first", "second"):
        replay(path, runtime, tmp_path / name, ALL)
    found = digests(tmp_path / "first")
    assert found == digests(tmp_path / "second")
    # bag, metadata, labels, overlay, tracks, journal, tables of tracks
    assert len(found) == 3 + 1 + 20 + 3 + 1 + 1 + 2


def test_the_size_of_the_parts_changes_no_message(runtime, tmp_path):
    path = bag_of(tmp_path, 20)
    for part in (3, 1000):
        replay(path, runtime, tmp_path / str(part), ReplaySettings(split_frames=part))
    small, large = (
        [(m.topic.name, m.time, bytes(m.data)) for m in read_all(tmp_path / name / "bag")]
        for name in ("3", "1000")
    )
    assert small == large


@pytest.mark.parametrize("form", ["mcap", "sqlite3", "ros1"])
def test_a_truncated_bag_is_processed_up_to_the_damage_which_is_named(
    form, model, tmp_path, capsys
):
    path = bag_of(tmp_path, 300, BagFormat(form))
    file = storage_file(path)
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size * 3 // 4)
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    assert main(command) == 1
    report = capsys.readouterr().out
    assert "the bag is damaged; it was read up to there" in report and str(file) in report
    frames = len(result_of(tmp_path / "out").tables["/video_knet/instances"])
    assert 110 <= frames <= 225 and report.startswith(f"{frames} frames")
    journal = json.loads((tmp_path / "out/replay.json").read_text())
    assert str(file) in journal["damage"]
    assert (
        "The bag is damaged; it was read up to there" in (tmp_path / "out/report.html").read_text()
    )


def test_images_that_cannot_be_used_are_named_counted_and_left_out(runtime, tmp_path, caplog):
    def spoil(rows):
        for number, (name, kind, received, data) in enumerate(rows):
            if number == 2:
                data = data[:-100]  # the sequence announces more bytes than there are
            if number == 4:
                data = data[:9]
            if number == 6:
                at = data.index(b"rgb8")
                data = data[:at] + b"16UC" + data[at + 4 :]
            if number == 8:  # less data than the size needs
                message = read_cdr(data, kind)
                message.data = message.data[:-10]
                data = bytes(ros2_types().serialize_cdr(message, kind))
            yield name, kind, received, data

    path = changed_bag(tmp_path, 10, spoil)
    summary = replay(path, runtime, tmp_path / "out")
    assert (summary.frames, summary.failed, summary.damage) == (6, 4, "")
    assert "4 images could not be used" in str(summary)
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [0, 1, 3, 5, 7, 9]
    reasons = {
        2: "are no sensor_msgs/msg/Image",
        6: "unknown encoding '16UC'",
        8: "expected 10500 bytes for",
    }
    for number, words in reasons.items():
        seconds = number * PERIOD * 1e-9
        assert f"{TOPIC}: the image received at {seconds:.1f} s is left out: " in caplog.text
        assert words in caplog.text


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_the_bag(model, tmp_path):
    """Peak of what Python and NumPy allocate in a replay of 100 and of 1000 frames.

    benchmarks/replay.py measures the memory of the process.
    """
    peaks = []
    for frames in (100, 1000):
        make_bag({TOPIC: drive(frames)}, tmp_path / f"in{frames}")
        code = (
            "import sys, tracemalloc; from video_knet_core.cli import main;"
            "tracemalloc.start(); main(sys.argv[1:]);"
            "print('peak', tracemalloc.get_traced_memory()[1], file=sys.stderr)"
        )
        command = ["replay", str(tmp_path / f"in{frames}"), "--out", str(tmp_path / f"o{frames}")]
        command += ["--model", str(model), "--split-frames", "50"]
        result = subprocess.run(
            [sys.executable, "-c", code, *command], capture_output=True, text=True
        )
        (peak,) = re.findall(r"peak (\d+)", result.stderr)
        peaks.append(int(peak) / 1e6)
    assert peaks[1] - peaks[0] < 5, peaks
