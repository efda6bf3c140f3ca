"""Which topics, times and outputs a replay takes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bag_cases import TEXT
from bag_fixtures import PERIOD, bag_of, write_mcap
from replay_results import TABLES, failure, result_of
from tiny_onnx import write_tiny_model

from video_knet_core.bags.making import FIRST_STAMP
from video_knet_core.engine.selector import open_runtime
from video_knet_core.messages.result_messages import nanoseconds
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.replay_settings import ReplaySettings
from video_knet_core.replay.selection import node_names
from video_knet_core.tasks import TASKS


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


def test_start_and_duration_are_seconds_of_the_recording(runtime, tmp_path):
    settings = ReplaySettings(start=0.45, duration=0.5)
    replay(bag_of(tmp_path, 20), runtime, tmp_path / "out", settings)
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [5, 6, 7, 8, 9]


def test_every_third_image_counts_two_that_were_skipped(runtime, tmp_path):
    replay(bag_of(tmp_path, 10), runtime, tmp_path / "out", ReplaySettings(every=3))
    tables = result_of(tmp_path / "out").tables["/video_knet/instances"]
    numbers = [(nanoseconds(t.header.stamp) - FIRST_STAMP) // PERIOD for t in tables]
    assert numbers == [0, 3, 6, 9]
    assert [table.skipped for table in tables] == [0, 2, 2, 2]


def test_what_cannot_be_chosen_is_named_with_what_is_there(model, tmp_path, capsys):
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
    path = write_mcap(tmp_path / "a.mcap", [TEXT])
    command = ["replay", str(path), "--out", str(tmp_path / "out"), "--model", str(model)]
    line = failure(command, capsys)
    assert "there are no images in it, only /status (std_msgs/msg/String, 1 messages)" in line


@pytest.mark.parametrize(
    ("task", "output"),
    [("semantic", "instances"), ("semantic", "panoptic"), ("instance", "semantic")],
)
def test_an_output_that_the_task_has_not_is_an_error_that_lists_those_it_has(
    task, output, tmp_path, capsys
):
    model = write_tiny_model(tmp_path / "tiny.onnx", task)
    command = ["replay", str(bag_of(tmp_path, 1)), "--out", str(tmp_path / "out")]
    line = failure([*command, "--model", str(model), "--outputs", output], capsys)
    there = ", ".join(TASKS[task].outputs)
    expected = f"tiny is a model of task {task}, which has no output {output}; it has {there}"
    assert line.endswith(expected) and not (tmp_path / "out").exists()


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
