"""Replays of recordings by other programs: what is taken, what is copied, what is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from bag_cases import NONE, TEXT, THREE, emptied, half, split, zstd_file
from bag_fixtures import (
    FIRST,
    PERIOD,
    TOPIC,
    Row,
    image_row,
    image_rows,
    read_all,
    write_db3,
    write_mcap,
)

from video_knet_core.bags.definitions import IDL, UNKNOWN_HASH, Embedded, decode
from video_knet_core.bags.opening import open_bag
from video_knet_core.bags.writing import recorded_qos
from video_knet_core.cli import main
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplayError, ReplaySettings

CAMERAS = ("/front/image_raw", "/rear/image_raw")
MERGE = ReplaySettings(include_input_topics=True)


def numbers(out: Path, name: str) -> list[int]:
    """Sequence numbers of the frames of a camera in the results."""
    return [m.time for m in read_all(out / "bag") if m.topic.name == f"{name}/instances"]


def copied(out: Path, name: str) -> list[bytes]:
    return [bytes(m.data) for m in read_all(out / "bag") if m.topic.name == name]


def two_cameras(frames: int, interleaved: bool) -> list[Row]:
    """Images of both cameras, of the same times, in turn or one camera after the other."""
    rows = [image_row(n, topic=topic) for topic in CAMERAS for n in range(frames)]
    return sorted(rows, key=lambda row: row[2]) if interleaved else rows


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_mcap, write_db3], ids=["mcap", "sqlite3"])
@pytest.mark.parametrize("interleaved", [True, False], ids=["in turn", "one after the other"])
def test_a_start_and_a_duration_hold_for_each_camera(interleaved, write, runtime, tmp_path):
    """Also where the channels are defined only in chunks before the start."""
    path = write(tmp_path / "a", two_cameras(200, interleaved))
    settings = ReplaySettings(topics=CAMERAS, start=18.95, duration=0.5)
    summary = replay(path, runtime, tmp_path / "out", settings)
    assert (summary.frames, summary.damage, summary.empty) == (10, "", ())
    expected = [FIRST + n * PERIOD for n in range(190, 195)]
    for camera in ("/front", "/rear"):
        assert numbers(tmp_path / "out", camera) == expected


def test_a_camera_without_images_in_the_chosen_time_is_named(runtime, tmp_path, caplog):
    rows = [image_row(n, topic=CAMERAS[0]) for n in range(20)]
    rows += [image_row(n, topic=CAMERAS[1]) for n in range(5)]
    path = write_mcap(tmp_path / "a.mcap", rows)
    settings = ReplaySettings(topics=CAMERAS, start=1)
    summary = replay(path, runtime, tmp_path / "out", settings)
    assert (summary.frames, summary.empty) == (10, CAMERAS[1:])
    assert CAMERAS[1] in str(summary) and CAMERAS[1] in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        ReplaySettings(start=100.0),
        ReplaySettings(start=1e9),
        ReplaySettings(start=0.92, duration=0.05),
        ReplaySettings(duration=0.0),
    ],
    ids=repr,
)
def test_a_choice_without_any_image_is_an_error_and_writes_nothing(settings, runtime, tmp_path):
    late = (*TEXT[:2], FIRST + 2 * 10**9, TEXT[3])
    path = write_mcap(tmp_path / "a.mcap", [*image_rows(10), late])
    with pytest.raises(ReplayError):
        replay(path, runtime, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_a_duration_behind_the_end_is_all_there_is(runtime, tmp_path):
    path = write_mcap(tmp_path / "a.mcap", image_rows(10))
    assert replay(path, runtime, tmp_path / "out", ReplaySettings(duration=1e9)).frames == 10


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("first", [0, -5])
def test_receive_times_of_0_and_before_are_times(first, storage, runtime, tmp_path):
    times = [max((n + first) * PERIOD, min(first, 0) * PERIOD) for n in range(15)]
    path = write_db3(tmp_path / "a.db3", [image_row(n, time) for n, time in enumerate(times)])
    summary = replay(path, runtime, tmp_path / "out", ReplaySettings(storage=storage))
    assert (summary.frames, summary.damage) == (15, "")
    assert numbers(tmp_path / "out", "/video_knet") == [max(time, 0) for time in times]


# --- damage --------------------------------------------------------------------------------------


def test_an_empty_last_file_is_named_and_the_rest_replayed(model, tmp_path, capsys):
    path = split(THREE, emptied("a_2.mcap"))(tmp_path)
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    assert main(command) == 1
    report = capsys.readouterr().out
    assert report.startswith("4 frames") and str(path / "a_2.mcap") in report


def test_two_replays_of_a_damaged_compressed_file_name_it_and_are_the_same(runtime, tmp_path):
    path = half(zstd_file(write_mcap(tmp_path / "a.mcap", image_rows(80), compression=NONE)))
    for name in ("first", "second"):
        summary = replay(path, runtime, tmp_path / name)
        assert 0 < summary.frames < 80 and str(path) in summary.damage
    first, second = (tmp_path / name / "replay.json" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert str(path) in json.loads(first.read_text())["damage"]


# --- copies --------------------------------------------------------------------------------------

STATE = (
    "# a state\nint32 a\nstd_msgs/Header header\n"
    + "=" * 80
    + "\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    + "=" * 80
    + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)
STATE_IDL = f"{IDL}my/msg/State\nmodule my {{ module msg {{ struct State {{ long a; }}; }}; }};\n"
KIND = "my/msg/State"
DATA = b"\0\1\0\0" + struct.pack("<iiI", 7, 1, 2) + struct.pack("<I", 2) + b"x\0"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (STATE, "ros2msg"),
        (STATE.replace("\n", "\r\n"), "ros2msg"),
        (STATE.replace("\n", "\r\n", 3), "ros2msg"),
        (STATE_IDL, "ros2idl"),
        (STATE_IDL.replace("\n", "\r\n"), "ros2idl"),
        (STATE_IDL.partition("State\n")[2], "ros2idl"),
        ("what is this?", "ros2msg"),
    ],
    ids=["msg", "CRLF", "some CRLF", "IDL", "IDL, CRLF", "IDL without a head", "unknown"],
)
def test_a_topic_is_copied_whatever_its_definition_looks_like(text, encoding, runtime, tmp_path):
    rows = [row for n in range(4) for row in (image_row(n), ("/state", KIND, FIRST + n, DATA))]
    encodings = ("cdr", encoding)
    path = write_mcap(tmp_path / "a.mcap", rows, encodings=encodings, definitions={KIND: text})
    (topic,) = (topic for topic in open_bag(path).contents().topics if topic.name == "/state")
    embedded = Embedded(topic)
    assert "\r" not in embedded.definition
    if encoding == "ros2msg":  # the first rosbags 0.11 has no hashes of `long`
        assert (embedded.hash == UNKNOWN_HASH) == (text == "what is this?")
    assert replay(path, runtime, tmp_path / "out", MERGE).frames == 4
    assert copied(tmp_path / "out", "/state") == [DATA] * 4
    (again,) = {m.topic for m in read_all(tmp_path / "out/bag") if m.topic.name == "/state"}
    assert again.definition == embedded.definition


@pytest.mark.parametrize("text", ["a: 2020-13-45", "[" * 1000, "a: !!int x", 'a: !!timestamp "x"'])
def test_no_text_in_place_of_yaml_stops_a_replay(text, runtime, tmp_path):
    path = tmp_path / "in"
    path.mkdir()
    write_mcap(path / "a.mcap", [image_row(n) for n in range(4)])
    (path / "metadata.yaml").write_text(text)
    assert replay(path, runtime, tmp_path / "out", MERGE).frames == 4
    assert recorded_qos(text) == []


FULL = (
    "- {history: 1, depth: 5, reliability: 1, durability: 1, deadline: {sec: 1, nsec: 2},"
    " lifespan: {sec: 3, nsec: 4}, liveliness: 1, liveliness_lease_duration: {sec: 5, nsec: 6},"
    " avoid_ros_namespace_conventions: false}"
)


@pytest.mark.parametrize(
    ("qos", "depths"),
    [
        (FULL, [5]),
        (FULL.replace("history: 1", "history: keep_last"), [5]),
        ("", []),
        ("- history: 1\n  depth: 5\n  reliability: 1\n  durability: 2", []),
        (FULL.replace("depth: 5", "depth: five"), []),
        (FULL.replace("{sec: 1, nsec: 2}", "{sec: 1}"), []),
        (FULL.replace("history: 1", "history: [1]"), []),
        ("history: 1", []),
        ("- a: [", []),
        ("5", []),
        ("\x00", []),
    ],
)
def test_qos_that_cannot_be_used_is_the_default(qos, depths, runtime, tmp_path):
    assert [profile.depth for profile in recorded_qos(qos)] == depths
    path = write_mcap(tmp_path / "a.mcap", image_rows(2), qos=qos)
    assert replay(path, runtime, tmp_path / "out", MERGE).frames == 2
    assert len(copied(tmp_path / "out", TOPIC)) == 2


def test_a_second_definition_of_a_type_is_named_and_its_topic_left_out(runtime, tmp_path, caplog):
    def another(writer):
        schema = writer.register_schema(KIND, "ros2msg", b"float64 other")
        channel = writer.register_channel("/other", "cdr", schema)
        writer.add_message(channel, FIRST, DATA, FIRST)

    rows = [*image_rows(2), ("/state", KIND, FIRST, DATA)]
    definitions = {KIND: STATE}
    path = write_mcap(tmp_path / "a.mcap", rows, definitions=definitions, before_end=another)
    assert replay(path, runtime, tmp_path / "out", MERGE).frames == 2
    assert copied(tmp_path / "out", "/state") == [DATA]
    assert copied(tmp_path / "out", "/other") == []
    assert "/other" in caplog.text and KIND in caplog.text


def test_messages_of_another_type_on_the_topic_of_a_camera_are_no_images(runtime, tmp_path, caplog):
    rows = [row for n in range(4) for row in ((TOPIC, *TEXT[1:]), image_row(n))]
    path = write_mcap(tmp_path / "a.mcap", rows)
    summary = replay(path, runtime, tmp_path / "out", MERGE)
    assert (summary.frames, summary.failed) == (4, 0)
    copies = [m for m in read_all(tmp_path / "out/bag") if m.topic.name == TOPIC]
    assert [int(decode(m).data[1]) for m in copies] == [0, 1, 2, 3]
    assert TEXT[1] in caplog.text


def test_a_stamp_that_results_cannot_have_costs_its_image(model, tmp_path, capsys):
    rows = image_rows(3)
    topic, kind, time, data = rows[1]
    wrong = data[:4] + struct.pack("<iI", 2**31 - 1, 2**32 - 1) + data[12:]
    path = write_mcap(tmp_path / "a.mcap", [rows[0], (topic, kind, time, wrong), rows[2]])
    assert main(["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]) == 1
    output = capsys.readouterr()
    assert output.out.startswith("2 frames") and "expected seconds of 32 bits" in output.err
