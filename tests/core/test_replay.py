"""Replays: every frame once, the same bytes every time, whatever comes between."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from bag_fixtures import PERIOD, TOPIC, bag_of, block, drive, read_all, rewritten, storage_file
from tiny_onnx import TASKS, metadata, write_model, write_tiny_model

from video_knet_core.bags.definitions import (
    DETECTIONS,
    IMAGE,
    LABEL_INFO,
    decode,
    message_types,
    read_cdr,
    ros2_types,
)
from video_knet_core.bags.making import DELAY, FIRST_STAMP, BagFormat, make_bag
from video_knet_core.cli import main
from video_knet_core.config import TrackingConfig
from video_knet_core.data.frames import open_frames
from video_knet_core.engine.selector import open_runtime
from video_knet_core.messages.result_messages import Conversions, nanoseconds
from video_knet_core.output_files import OutputError, exclusive
from video_knet_core.overlay_video import OverlayVideo
from video_knet_core.recording import Recording
from video_knet_core.replay import bag_replay, products
from video_knet_core.replay.background import AHEAD, read_ahead
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.job_record import FinishedError
from video_knet_core.replay.replay_settings import ReplayError, ReplaySettings
from video_knet_core.replay.selection import node_names
from video_knet_core.tasks import TASKS as FACTS

ALL = ReplaySettings(
    outputs=("instances", "panoptic", "semantic", "overlay"),
    include_input_topics=True,
    overlay=True,
    labels=True,
    tracks=True,
    split_frames=7,
)
TABLES = "video_knet_ros/msg/TrackedInstanceArray"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def runtime(model):
    return open_runtime(model)


@dataclass
class Result:
    """What is in the bag of a replay."""

    times: dict[str, list[int]] = field(default_factory=dict)
    """Topic -> receive times."""
    tables: dict[str, list] = field(default_factory=dict)
    """Topic -> tables."""


def result_of(out: Path) -> Result:
    result = Result()
    for message in read_all(out / "bag"):
        result.times.setdefault(message.topic.name, []).append(message.time)
        if message.topic.type == TABLES:
            table = read_cdr(message.data, TABLES)
            result.tables.setdefault(message.topic.name, []).append(table)
    return result


def digests(folder: Path) -> dict[str, str]:
    """File -> hash of its content; that of the report and `rerun/` depends on the time."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "report.html")
    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest() for path in files
    }


def content(path: Path) -> bytes:
    """The bytes of a file; of a video the times and pixels of its frames.

    The encoder gives a few other bytes for the same frames in rare cases.
    """
    if path.suffix != ".mp4":
        return path.read_bytes()
    with av.open(str(path)) as video:
        frames = [(f.pts, f.to_ndarray(format="yuv420p").tobytes()) for f in video.decode(video=0)]
    return repr(frames).encode()


# --- what goes in comes out ----------------------------------------------------------------------

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
    store = ros2_types()

    def add_imu(rows):
        imu = default_imu()
        for number, row in enumerate(rows):
            data = bytes(store.serialize_cdr(imu, "sensor_msgs/msg/Imu"))
            yield row
            yield "/imu", "sensor_msgs/msg/Imu", row[2] + number, data

    path = rewritten(bag_of(tmp_path, 10), add_imu)
    settings = ReplaySettings(include_input_topics=True, split_frames=4)
    replay(path, runtime, tmp_path / "out", settings)
    wanted = {(m.topic.name, m.time, bytes(m.data)) for m in read_all(path)}
    found = {(m.topic.name, m.time, bytes(m.data)) for m in read_all(tmp_path / "out/bag")}
    assert len(wanted) == 20 and wanted <= found and len(found) == 41


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


def default_imu():
    types = ros2_types().types
    vector, zeros = types["geometry_msgs/msg/Vector3"](x=1.0, y=2.0, z=3.0), np.zeros(9)
    header = message_types().Header(stamp=message_types().Time(sec=1, nanosec=2), frame_id="imu")
    return types["sensor_msgs/msg/Imu"](
        header=header,
        orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=zeros,
        angular_velocity=vector,
        angular_velocity_covariance=zeros,
        linear_acceleration=vector,
        linear_acceleration_covariance=zeros,
    )


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


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        (["/a/b/image_raw"], ["/video_knet"]),
        (["/front/image_raw", "/rear/image/compressed"], ["/front", "/rear"]),
        (["/r/left/image", "/r/right/image"], ["/r/left", "/r/right"]),
        (["/c/image_raw", "/c/image_rect"], ["/c/image_raw", "/c/image_rect"]),
        (["/image", "/other"], ["/image", "/other"]),
        (["/../../x/image", "/y/image"], ["/__/__/x", "/y"]),
        (["/a b/image", "/a_b/image"], ["/a_b/image", "/a_b/image_2"]),
        (["/图", "/_", "/__2", "/像"], ["/_", "/__3", "/__2", "/__4"]),
    ],
)
def test_cameras_are_named_after_their_topics(topics, names):
    assert list(node_names(topics).values()) == names


# --- tasks ---------------------------------------------------------------------------------------

USUAL = {
    "panoptic": {"class_map": 1, "instances": 3, "panoptic/image": 3},
    "semantic": {"class_map": 1, "semantic/image": 3},
    "instance": {"class_map": 1, "instances": 3, "panoptic/image": 3},
}


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    """Task -> an engine with a small model of it."""
    folder = tmp_path_factory.mktemp("tasks")
    return {
        task: open_runtime(write_tiny_model(folder / f"{task}.onnx", task), "onnxruntime-cpu")
        for task in TASKS
    }


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_usual_outputs_of_its_own(task, runtimes, tmp_path):
    replay(bag_of(tmp_path, 3), runtimes[task], tmp_path / "out")
    times = result_of(tmp_path / "out").times
    assert {topic: len(found) for topic, found in times.items()} == {
        f"/video_knet/{topic}": count for topic, count in USUAL[task].items()
    }
    assert times[max(times)] == [FIRST_STAMP + n * PERIOD + DELAY for n in range(3)]


@pytest.mark.parametrize(
    ("task", "output", "there"),
    [
        ("semantic", "instances", "semantic, overlay"),
        ("semantic", "panoptic", "semantic, overlay"),
        ("instance", "semantic", "instances, detections, panoptic, overlay"),
    ],
)
def test_an_output_that_the_task_has_not_is_an_error_that_lists_those_it_has(
    task, output, there, tmp_path, capsys
):
    model = write_tiny_model(tmp_path / "tiny.onnx", task)
    command = ["replay", str(bag_of(tmp_path, 1)), "--out", str(tmp_path / "out")]
    line = failure([*command, "--model", str(model), "--outputs", output], capsys)
    wanted = f"tiny is a model of task {task}, which has no output {output}; it has {there}"
    assert line.endswith(wanted) and not (tmp_path / "out").exists()


def test_files_of_a_semantic_model_have_classes_and_no_ids(runtimes, tmp_path):
    out, settings = tmp_path / "out", ReplaySettings(labels=True, tracks=True, overlay=True)
    replay(bag_of(tmp_path, 3), runtimes["semantic"], out, settings)
    for line in (out / "tracks/video_knet.jsonl").open():
        frame = json.loads(line)
        image = cv2.imread(str(out / f"labels/video_knet/{frame['frame']:06d}.png"))
        semantic, high, low = cv2.split(image[..., ::-1])
        assert not high.any() and not low.any()
        assert [(row["class_id"], row["track_id"], row["area"]) for row in frame["tracks"]] == [
            (class_id, 0, (semantic == class_id).sum()) for class_id in range(3)
        ]
    assert len(list(open_frames(out / "overlay/video_knet/0000.mp4"))) == 3


def test_label_files_of_an_instance_model_show_the_one_in_front(runtimes, tmp_path):
    out, settings = tmp_path / "out", ReplaySettings(labels=True, tracks=True)
    replay(bag_of(tmp_path, 3), runtimes["instance"], out, settings)
    for line in (out / "tracks/video_knet.jsonl").open():
        frame = json.loads(line)
        image = cv2.imread(str(out / f"labels/video_knet/{frame['frame']:06d}.png"))
        semantic, _, track = cv2.split(image[..., ::-1])
        front, behind = frame["tracks"]
        assert [row["track_id"] for row in (front, behind)] == [1, 2]
        assert (track == 1).sum() == front["area"] and 0 < (track == 2).sum() < behind["area"]
        assert (semantic[track == 1] == 0).all() and (semantic[track == 2] == 1).all()
        assert (semantic[track == 0] == 255).all() and (track == 0).any()


def test_detections_come_with_the_names_of_their_classes_and_need_no_vision_msgs(runtime, tmp_path):
    outputs = ("instances", "detections")
    replay(bag_of(tmp_path, 3), runtime, tmp_path / "out", ReplaySettings(outputs=outputs))
    messages = read_all(tmp_path / "out/bag")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    found = [read_cdr(m.data, DETECTIONS) for m in messages if m.topic.type == DETECTIONS]
    for table, message in zip(tables, found, strict=True):
        (row,) = (row for row in table.instances if row.is_thing)
        (detection,) = message.detections
        assert message.header == detection.header == table.header
        assert detection.id == f"{table.tracker_epoch}/{row.track_id}"
        centre, box = detection.bbox.center.position, detection.bbox
        assert (box.size_x, box.size_y) == (row.roi.width, row.roi.height)
        assert centre.x - box.size_x / 2 == row.roi.x_offset
        assert centre.y - box.size_y / 2 == row.roi.y_offset
        (result,) = detection.results
        assert result.hypothesis.class_id == "1"
        assert result.hypothesis.score == pytest.approx(0.8)
    (names,) = (read_cdr(m.data, LABEL_INFO) for m in messages if m.topic.type == LABEL_INFO)
    assert [(c.class_id, c.class_name) for c in names.class_map] == [(0, "road"), (1, "vehicle")]


def test_the_types_of_vision_msgs_have_the_hashes_of_version_4():
    for kind, digest in (
        (DETECTIONS, "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"),
        (LABEL_INFO, "3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"),
    ):
        assert ros2_types().hash_rihs01(kind) == f"RIHS01_{digest}"


# --- the same every time -------------------------------------------------------------------------


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


def wait_for_frames(out: Path, process: subprocess.Popen, frames: int) -> None:
    """Until so many label images are there, or the replay has ended."""
    end = time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < end, "the replay does not get on"
        if len(list(out.glob("unfinished/labels/*/*.png"))) >= frames:
            return
        time.sleep(0.001)


KILLED = """
import os, signal, sys
from video_knet_core.cli import main
from video_knet_core.predictor import VideoPredictor

frames, calls = (int(sys.argv.pop(1)) for _ in range(2))
step = VideoPredictor.step

def count_calls(*_):
    global calls
    calls -= 1
    if calls <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

def count_frames(*arguments):
    global frames
    frames -= 1
    if frames == 0:
        sys.setprofile(count_calls)
    return step(*arguments)

VideoPredictor.step = count_frames
sys.exit(main(sys.argv[1:]))
"""
"""The command line, killed so many function calls after the start of its n-th frame."""


@pytest.mark.slow
def test_a_replay_that_is_killed_gives_what_an_undisturbed_one_does(model, runtime, tmp_path):
    path, out, rng = bag_of(tmp_path, 50), tmp_path / "out", random.Random(1)
    replay(path, runtime, tmp_path / "whole", ALL)
    command = ["replay", str(path), "--out", str(out), "--model", str(model)]
    command += ["--split-frames", "7", "--include-input-topics", "--overlay", "--labels"]
    command += ["--tracks", "--resume", "--outputs", ",".join(ALL.outputs)]
    for frames in (12, 40):
        moment = frames, rng.randrange(5000)
        killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, moment), *command])
        assert killed.returncode == -signal.SIGKILL
        assert not (out / "replay.json").exists() and (out / "unfinished").is_dir()
    assert main(command) == 0
    assert digests(out) == digests(tmp_path / "whole")


def test_results_whose_move_was_interrupted_are_moved_and_not_made_again(
    runtime, tmp_path, monkeypatch
):
    path, out, rename = bag_of(tmp_path, 20), tmp_path / "out", Path.replace
    replay(path, runtime, tmp_path / "whole", ALL)
    moved = []

    def fail_late(source, target):
        if target.is_relative_to(out) and not target.is_relative_to(out / "unfinished"):
            moved.append(target)
            if len(moved) == 10:
                raise OSError("the disk is gone")
        return rename(source, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk is gone"):
        patched.setattr(Path, "replace", fail_late)
        replay(path, runtime, out, ALL)
    assert not (out / "replay.json").exists()
    with pytest.raises(FinishedError) as finished:
        replay(path, runtime, out, ALL, resume=True)
    assert finished.value.record.frames == 20
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize("task", TASKS)
def test_an_interrupted_replay_is_done_again(task, runtimes, tmp_path):
    path, out, runtime = bag_of(tmp_path, 20), tmp_path / "out", runtimes[task]
    settings = replace(ALL, outputs=FACTS[task].outputs)
    replay(path, runtime, tmp_path / "whole", settings)
    interrupted(path, runtime, out, settings)
    assert replay(path, runtime, out, settings, resume=True).frames == 20
    assert digests(out) == digests(tmp_path / "whole")


def test_a_full_disk_ends_a_replay_which_can_be_resumed(runtime, tmp_path, monkeypatch):
    path, out = bag_of(tmp_path, 20), tmp_path / "out"
    replay(path, runtime, tmp_path / "whole", ALL)

    def write_step(folder, camera, name, *maps):
        if name == "000009":
            raise OSError("no space left on device")
        return real_write_step(folder, camera, name, *maps)

    real_write_step = products.write_step
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(products, "write_step", write_step)
        replay(path, runtime, out, ALL)
    assert replay(path, runtime, out, ALL, resume=True).frames == 20
    assert digests(out) == digests(tmp_path / "whole")


def test_files_that_were_opened_are_closed_when_a_later_one_cannot_be(
    runtime, tmp_path, monkeypatch
):
    topics = ("/front/image_raw", "/rear/image_raw")
    path = bag_of(tmp_path, 2, topics=topics)
    made, closed = [], []

    class Failing(products.CameraFiles):
        def __init__(self, *arguments):
            if made:
                raise OSError("too many open files")
            made.append(self)
            super().__init__(*arguments)

        def close(self):
            closed.append(self)
            super().close()

    monkeypatch.setattr(bag_replay, "CameraFiles", Failing)
    with pytest.raises(OSError, match="too many open files"):
        replay(path, runtime, tmp_path / "out", ReplaySettings(topics=topics, tracks=True))
    assert made == closed and made[0]._lines.closed


# --- choosing ------------------------------------------------------------------------------------


def test_start_and_duration_are_seconds_of_the_recording(runtime, tmp_path):
    settings = ReplaySettings(start=0.45, duration=0.5)
    replay(bag_of(tmp_path, 20), runtime, tmp_path / "out", settings)
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [5, 6, 7, 8, 9]


def test_every_third_image_tells_of_two_that_were_passed_over(runtime, tmp_path):
    replay(bag_of(tmp_path, 10), runtime, tmp_path / "out", ReplaySettings(every=3))
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [0, 3, 6, 9]
    assert [table.skipped for table in tables] == [0, 2, 2, 2]


# --- order ---------------------------------------------------------------------------------------


def image_row(number: int, stamp: int, received: int):
    """Topic, type, time and bytes of an image."""
    convert, types = Conversions(message_types()), message_types()
    header = types.Header(stamp=convert.time_message(stamp), frame_id="camera")
    message = convert.image_message(header, "rgb8", block(number))
    return TOPIC, IMAGE, received, bytes(ros2_types().serialize_cdr(message, IMAGE))


def stamped(tmp_path, stamps: list[float]) -> Path:
    """A bag of images with these stamps in seconds, received one after the other."""
    rows = [image_row(n, round(s * 1e9), (n + 1) * PERIOD) for n, s in enumerate(stamps)]
    return rewritten(bag_of(tmp_path, 1), lambda _: rows)


def seen(tmp_path, stamps: list[float], runtime) -> tuple[list[float], list[int]]:
    """Stamps of the tables of a bag with these stamps, and epochs after the first one."""
    replay(stamped(tmp_path, stamps), runtime, tmp_path / "out")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    epochs = [t.tracker_epoch - tables[0].tracker_epoch for t in tables]
    return [nanoseconds(t.header.stamp) / 1e9 for t in tables], epochs


def test_images_that_overtook_each_other_are_put_in_the_order_of_their_stamps(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [1, 1.1, 1.3, 1.4, 1.2, 1.5, 1.7, 1.6], runtime)
    assert stamps == [1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7] and set(epochs) == {0}


def test_stamps_that_go_back_far_reset_the_tracker_as_in_the_live_node(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [5, 5.1, 5.2, 1, 1.1, 5, 5.1], runtime)
    assert stamps == [5, 5.1, 5.2, 1, 1.1, 5, 5.1]
    assert epochs == [0, 0, 0, 1, 1, 1, 1]  # a gap of less than 5 s forward is none


def test_an_image_that_is_too_late_to_be_put_in_order_is_left_out(runtime, tmp_path):
    stamps = [1 + 0.05 * n for n in range(12)]
    late = [*stamps[:7], 1.02, *stamps[7:]]
    summary = replay(stamped(tmp_path, late), runtime, tmp_path / "out")
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert [nanoseconds(t.header.stamp) / 1e9 for t in tables] == pytest.approx(stamps)
    assert summary.late == sum(t.skipped for t in tables) == 1 and "1 images were" in str(summary)
    assert len({t.tracker_epoch for t in tables}) == 1


def test_one_wrong_stamp_costs_no_ids(runtime, tmp_path):
    _, epochs = seen(tmp_path, [5, 5.1, 5.2, 95.3, 5.4, 5.5, 5.6], runtime)
    assert epochs == [0, 0, 0, 1, 0, 0, 0]
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert [len(t.born) for t in tables] == [1, 0, 0, 1, 0, 0, 0]


def first_epoch(out, runtime, path, tracking=None, **settings):
    replay(path, runtime, out, ReplaySettings(**settings), tracking)
    epoch = result_of(out).tables["/video_knet/instances"][0].tracker_epoch
    assert 0 < epoch < 2**48
    return epoch


def test_the_epoch_is_the_same_for_the_same_results_and_no_other(runtime, tmp_path):
    """Of a whole bag, with other products, of another start, of other images, of other settings."""
    path = stamped(tmp_path, [1, 1.1, 1.2, 1.3])
    (tmp_path / "other").mkdir()
    other = stamped(tmp_path / "other", [1, 1.1, 1.2, 1.4][::-1])
    whole = first_epoch(tmp_path / "a", runtime, path)
    assert first_epoch(tmp_path / "b", runtime, path, report=False, tracks=True) == whole
    assert first_epoch(tmp_path / "c", runtime, path, duration=0.2) == whole
    different = {
        first_epoch(tmp_path / "d", runtime, path, start=0.1),
        first_epoch(tmp_path / "e", runtime, path, every=2),
        first_epoch(tmp_path / "f", runtime, other),
        first_epoch(tmp_path / "g", runtime, path, TrackingConfig(max_coast_s=1.0)),
    }
    assert len(different) == 4 and whole not in different


def test_recordings_that_begin_alike_have_different_epochs(runtime, tmp_path):
    """As two runs of a simulation: the first image, all times, names and sizes are the same."""

    def turned(rows):
        return [
            (*row[:3], row[3] if number < 3 else row[3][:-9] + bytes(9))
            for number, row in enumerate(rows)
        ]

    epochs = []
    for name, change in (("a", list), ("b", turned), ("c", list)):
        (tmp_path / name).mkdir()
        path = rewritten(bag_of(tmp_path / name, 4), change)
        epochs.append(first_epoch(tmp_path / name / "out", runtime, path))
    assert epochs[0] == epochs[2] != epochs[1]


def test_equal_stamps_stay_in_the_order_of_their_arrival(runtime, tmp_path):
    path = stamped(tmp_path, [1, 1, 1, 1.1])
    replay(path, runtime, tmp_path / "out", ReplaySettings(include_input_topics=True))
    copies = [m for m in read_all(tmp_path / "out/bag") if m.topic.name == TOPIC]
    assert [int(decode(m).data[1]) for m in copies] == [0, 1, 2, 3]
    assert len(result_of(tmp_path / "out").tables["/video_knet/instances"]) == 4


def test_an_image_without_a_stamp_counts_from_when_it_was_received(runtime, tmp_path):
    stamps, epochs = seen(tmp_path, [0, 0, 0], runtime)
    assert stamps == [0, 0, 0] and epochs == [0, 0, 0]
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    assert tables[2].instances[1].velocity_x == pytest.approx(10, rel=0.1)  # a pixel in 0.1 s


# --- reading ahead -------------------------------------------------------------------------------


def test_reading_is_a_little_ahead_and_an_error_comes_in_its_turn():
    made = []

    def items():
        for number in range(6):
            made.append(number)
            yield number
        raise OSError("the disk is gone")

    taken = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in read_ahead(items()):
            taken.append(item)
            assert len(made) <= item + 1 + AHEAD
    assert taken == made == [0, 1, 2, 3, 4, 5]


def test_what_is_read_ahead_is_closed_in_the_thread_that_reads():
    threads = []

    def items():
        try:
            while True:
                threads.append(threading.current_thread())
                yield len(threads)
        finally:
            threads.append(threading.current_thread())

    reading = read_ahead(items())
    assert next(reading) == 1
    reading.close()
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()


def test_other_messages_between_the_images_do_not_pile_up(runtime, tmp_path, monkeypatch):
    sizes = []

    def watched(batches):
        for batch in read_ahead(batches):
            sizes.append(sum(len(message.data) for message, _ in batch))
            yield batch

    def add_scans(rows):
        yield from rows
        yield from (("/scan", "std_msgs/msg/String", rows[-1][2] + n, text) for n in range(50))

    monkeypatch.setattr(bag_replay, "read_ahead", watched)
    text = bytes(ros2_types().serialize_cdr(string("x" * 100_000), "std_msgs/msg/String"))
    path = rewritten(bag_of(tmp_path, 10), add_scans)
    assert (
        replay(path, runtime, tmp_path / "out", ReplaySettings(include_input_topics=True)).frames
        == 10
    )
    assert sum(sizes) > 5_000_000 and max(sizes) < bag_replay.BATCH + 2 * len(text)
    assert len(result_of(tmp_path / "out").times["/scan"]) == 50


def string(text: str):
    return ros2_types().types["std_msgs/msg/String"](data=text)


# --- damage --------------------------------------------------------------------------------------


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
                data = data[:-100]  # the sequence says more than there is
            if number == 4:
                data = data[:9]
            if number == 6:
                at = data.index(b"rgb8")
                data = data[:at] + b"16UC" + data[at + 4 :]
            yield name, kind, received, data

    path = rewritten(bag_of(tmp_path, 10), spoil)
    summary = replay(path, runtime, tmp_path / "out")
    assert (summary.frames, summary.failed, summary.damage) == (7, 3, "")
    assert "3 images could not be used" in str(summary)
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [0, 1, 3, 5, 7, 8, 9]
    for number, words in ((2, "are no sensor_msgs/msg/Image"), (6, "unknown encoding '16UC'")):
        seconds = number * PERIOD * 1e-9
        assert f"{TOPIC}: the image received at {seconds:.1f} s is left out: " in caplog.text
        assert words in caplog.text


def test_an_image_with_too_little_data_for_its_size_is_left_out(runtime, tmp_path, caplog):
    def shorten(rows):
        store = ros2_types()
        for number, (name, kind, received, data) in enumerate(rows):
            if number == 1:
                message = read_cdr(data, kind)
                message.data = message.data[:-10]
                data = bytes(store.serialize_cdr(message, kind))
            yield name, kind, received, data

    path = rewritten(bag_of(tmp_path, 3), shorten)
    assert replay(path, runtime, tmp_path / "out").frames == 2
    assert "expected 10500 bytes for" in caplog.text


# --- files beside the bag ------------------------------------------------------------------------


def test_labels_tracks_and_overlay_agree_with_the_bag(runtime, tmp_path):
    out = tmp_path / "out"
    replay(bag_of(tmp_path, 10), runtime, out, ALL)
    tables = result_of(out).tables["/video_knet/instances"]
    lines = [json.loads(line) for line in (out / "tracks/video_knet.jsonl").open()]
    assert [line["stamp"] for line in lines] == [nanoseconds(t.header.stamp) for t in tables]
    for line, table in zip(lines, tables, strict=True):
        assert [row["area"] for row in line["tracks"]] == [row.area for row in table.instances]
        path = out / f"labels/video_knet/{line['frame']:06d}.png"
        semantic, high, low = cv2.split(cv2.imread(str(path))[..., ::-1])
        road, vehicle = line["tracks"]
        assert (semantic == 0).sum() == road["area"] and (semantic == 1).sum() == vehicle["area"]
        assert ((high == 0) & (low == 1) & (semantic == 1)).sum() == vehicle["area"]
    videos = [list(open_frames(path)) for path in sorted((out / "overlay/video_knet").iterdir())]
    assert [len(frames) for frames in videos] == [7, 3] and videos[0][0][0].shape == (50, 70, 3)


# --- bad input -----------------------------------------------------------------------------------


def failure(command: list[str], capsys) -> str:
    """The one line of a command that cannot be done."""
    assert main(command) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_what_cannot_be_chosen_is_told_with_what_is_there(model, tmp_path, capsys):
    two = ("/front/image_raw", "/rear/image_raw")
    path = bag_of(tmp_path / "two", 2, topics=two)
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    listed = ", ".join(f"{name} (sensor_msgs/msg/Image, 2 messages)" for name in two)
    assert f"name one or more of its topics: {listed}" in failure(command, capsys)
    line = failure([*command, "--topics", "/side"], capsys)
    assert f"there is no topic /side; images are on {listed}" in line
    replay(path, open_runtime(model), tmp_path / "done", ReplaySettings(topics=two[:1]))
    command[1] = str(tmp_path / "done/bag")
    line = failure([*command, "--topics", "/video_knet/instances"], capsys)
    assert f"/video_knet/instances is {TABLES} as cdr, expected one of images" in line
    assert not (tmp_path / "out").exists()


def test_a_bag_without_images_lists_what_it_has(model, tmp_path, capsys):
    imu = bytes(ros2_types().serialize_cdr(default_imu(), "sensor_msgs/msg/Imu"))
    path = rewritten(bag_of(tmp_path, 1), lambda _: [("/imu", "sensor_msgs/msg/Imu", 1, imu)])
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    line = failure(command, capsys)
    assert "there are no images in it, only /imu (sensor_msgs/msg/Imu, 1 messages)" in line


def test_an_existing_output_is_never_overwritten(runtime, tmp_path):
    path, out = bag_of(tmp_path, 10), tmp_path / "out"
    replay(path, runtime, out)
    before = digests(out)
    for resume in (False, True):
        with pytest.raises(ReplayError, match="holds a finished replay of 10 frames"):
            replay(path, runtime, out, resume=resume)
    with pytest.raises(ReplayError, match="holds other files"):
        replay(path, runtime, path)
    with pytest.raises(ReplayError, match="but every was 1 and is 2"):
        replay(path, runtime, out, ReplaySettings(every=2), resume=True)
    assert digests(out) == before
    interrupted(path, runtime, tmp_path / "part", ReplaySettings())
    before = digests(tmp_path / "part")
    with pytest.raises(ReplayError, match="an interrupted replay: --resume"):
        replay(path, runtime, tmp_path / "part")
    assert digests(tmp_path / "part") == before


@pytest.mark.parametrize(("name", "value"), [("task", []), ("format", 1), ("other", 1)])
def test_a_record_with_a_wrong_value_is_one_line(name, value, runtime, tmp_path):
    path, out = bag_of(tmp_path, 1), tmp_path / "out"
    replay(path, runtime, out)
    record = json.loads((out / "replay.json").read_text())
    (out / "replay.json").write_text(json.dumps(record | {name: value}))
    with pytest.raises(ReplayError, match=name):
        replay(path, runtime, out, resume=True)


def test_files_nested_too_deeply_are_one_line(runtime, tmp_path):
    path, out = bag_of(tmp_path, 1), tmp_path / "out"
    out.mkdir()
    for name in ("replay.json", "tracks.jsonl"):
        (out / name).write_text("[" * 100_000)
    with pytest.raises(ReplayError, match="replay.json is damaged"):
        replay(path, runtime, out, resume=True)
    with pytest.raises(OutputError, match="no earlier result"):
        Recording(out, 10.0, runtime.info.classes)


def interrupted(path, runtime, out, settings):
    """Replay until Ctrl-C at the fourth frame."""
    steps = itertools.count()

    class Interrupted:
        name, info = runtime.name, runtime.info

        def step(self, image, state):
            if next(steps) == 3:
                raise KeyboardInterrupt
            return runtime.step(image, state)

    with pytest.raises(KeyboardInterrupt):
        replay(path, Interrupted(), out, settings)


def test_results_may_lie_in_the_folder_of_the_recording(runtime, tmp_path):
    """What is beside the recorded files, results or notes, is none of the recording."""
    path, settings = bag_of(tmp_path, 10), ReplaySettings(split_frames=2)
    out = path / "result"
    interrupted(path, runtime, out, settings)
    for name in ("notes.txt", ".DS_Store", "._in.mcap"):
        (path / name).write_text("mine")
    assert replay(path, runtime, out, settings, resume=True).frames == 10


def test_files_of_others_in_the_results_are_left_alone(runtime, tmp_path):
    path, out, settings = bag_of(tmp_path, 10), tmp_path / "out", ReplaySettings(split_frames=2)
    out.mkdir()
    (out / ".DS_Store").write_text("mine")
    interrupted(path, runtime, out, settings)
    (out / "bag").mkdir()
    mine = [out / name for name in (".DS_Store", "notes.txt", "bag/notes.txt")]
    for file in mine:
        file.write_text("mine")
    replay(path, runtime, out, settings, resume=True)
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert not list(out.rglob("*.partial")) and not (out / "unfinished").exists()


def test_two_replays_into_one_folder_exclude_each_other(runtime, tmp_path):
    path, out = bag_of(tmp_path, 3), tmp_path / "out"
    with exclusive(out), pytest.raises(OutputError, match="another process is writing"):
        replay(path, runtime, out)
    assert list(out.iterdir()) == []
    assert replay(path, runtime, out).frames == 3


def test_overlays_are_shown_at_the_stamps_of_the_images(runtime, tmp_path):
    replay(bag_of(tmp_path, 4), runtime, tmp_path / "out", ReplaySettings(overlay=True))
    (video,) = (tmp_path / "out/overlay/video_knet").iterdir()
    shown = [stamp for _, stamp in open_frames(video)]
    np.testing.assert_allclose(shown, [stamp for _, stamp in drive(4)], atol=17_000)


def test_results_of_a_model_of_the_same_name_from_another_checkpoint_are_others(model, tmp_path):
    path, out = bag_of(tmp_path, 10), tmp_path / "out"
    replay(path, open_runtime(model, "onnxruntime-cpu"), out)
    trained = json.dumps(metadata(checkpoint_sha256="1"))
    other = open_runtime(write_model(tmp_path / "tiny.onnx", trained), "onnxruntime-cpu")
    with pytest.raises(ReplayError, match="but checkpoint was '0' and is '1'"):
        replay(path, other, out, resume=True)


def test_what_is_no_bag_is_one_line(model, tmp_path, capsys):
    command = ["replay", "none.mcap", "--out", str(tmp_path / "out"), "--model", str(model)]
    assert failure(command, capsys) == "video-knet replay: no bag none.mcap"


def test_replay_needs_rosbags_only_when_it_runs(model):
    code = (
        "import sys; sys.modules['rosbags'] = None;"
        "from video_knet_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "replay", "in", "--out", "out", "--model", str(model)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.endswith("needs rosbags: pip install 'video_knet_ros[replay]'\n")


# --- make-bag ------------------------------------------------------------------------------------


def test_make_bag_of_the_synthetic_street(tmp_path, capsys):
    command = ["make-bag", "synthetic:3", "--out", str(tmp_path / "bag"), "--max-frames", "2"]
    assert main(command) == 0
    assert "2 images on /camera/image_raw" in capsys.readouterr().out
    wanted = [image for image, _ in zip(open_frames("synthetic:3"), range(2), strict=False)]
    for message, (image, _) in zip(read_all(tmp_path / "bag"), wanted, strict=True):
        assert np.array_equal(decode(message).data.reshape(image.shape), image)


def test_make_bag_keeps_the_times_of_a_video(tmp_path):
    stamps = [0, 33_000_000, 967_000_000, 3_033_000_000]
    with OverlayVideo(tmp_path / "a.mp4", 30) as video:
        for stamp in stamps:
            video.write(np.zeros((48, 64, 3), np.uint8), stamp)
    assert main(["make-bag", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "bag")]) == 0
    times = [message.time for message in read_all(tmp_path / "bag")]
    np.testing.assert_allclose(np.array(times) - times[0], stamps, atol=17_000)


def test_make_bag_that_cannot_end_or_has_another_name_is_refused(tmp_path, capsys):
    command = ["make-bag", "synthetic", "--out", str(tmp_path / "bag")]
    assert "never ends: give --max-frames" in failure(command, capsys)
    command += ["--max-frames", "1", "--format", "ros1"]
    assert "expected NAME.bag for ros1, got bag" in failure(command, capsys)


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
