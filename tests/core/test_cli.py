"""The `video-knet` command, run as a user runs it, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tiny_onnx import write_tiny_model

from video_knet_core.cli import main
from video_knet_core.data.frames import open_frames


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def folder(tmp_path):
    """Five images of 50 x 70: a red block in the lower left, one column further each time."""
    path = tmp_path / "images"
    path.mkdir()
    for t in range(5):
        image = np.zeros((50, 70, 3), np.uint8)
        image[30:, 10 + t : 40 + t, 2] = 255
        cv2.imwrite(str(path / f"{t}.png"), image)
    return path


def track(folder, model, out, *options):
    return main(["track", str(folder), "--out", str(out), "--model", str(model), *options])


def test_track_writes_labels_that_agree_with_the_table(folder, model, tmp_path):
    out = tmp_path / "out"
    assert track(folder, model, out) == 0
    lines = [json.loads(line) for line in (out / "tracks.jsonl").read_text().splitlines()]
    assert [line["stamp"] for line in lines] == [k * 100_000_000 for k in range(5)]
    for line in lines:
        labels = cv2.imread(str(out / f"labels/{line['frame']:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16 and labels.shape == (50, 70)
        road, vehicle = line["tracks"]
        assert (road["class_name"], road["track_id"]) == ("road", 0)
        assert (vehicle["class_name"], vehicle["track_id"]) == ("vehicle", 1)
        for row in (road, vehicle):
            assert row["area"] == (labels == row["label"]).sum()
    states = [line["tracks"][1]["state"] for line in lines]
    assert states == ["tentative"] + ["confirmed"] * 4
    assert lines[0]["born"] == [1] and lines[0]["tracks"][1]["velocity"] is None
    assert lines[4]["tracks"][1]["velocity"][0] > 0


def test_track_makes_a_video_that_can_be_read_and_a_summary(folder, model, tmp_path, capsys):
    out = tmp_path / "out"
    track(folder, model, out)
    frames = list(open_frames(out / "overlay.mp4"))
    assert len(frames) == 5 and frames[0][0].shape == (50, 70, 3)
    report = capsys.readouterr().out
    assert "5 frames in" in report and "tracks: 1 vehicle" in report and str(out) in report


def test_max_frames_and_a_second_run_replaces_the_first(folder, model, tmp_path):
    track(folder, model, tmp_path / "out")
    assert track(folder, model, tmp_path / "out", "--max-frames", "2") == 0
    assert len(list((tmp_path / "out/labels").iterdir())) == 2
    assert len((tmp_path / "out/tracks.jsonl").read_text().splitlines()) == 2


def test_a_broken_frame_keeps_what_came_before(folder, model, tmp_path, capsys):
    (folder / "3.png").write_bytes(b"broken")
    assert track(folder, model, tmp_path / "out") == 2
    assert "3.png is not an image" in capsys.readouterr().err
    assert len((tmp_path / "out/tracks.jsonl").read_text().splitlines()) == 3
    assert len(list(open_frames(tmp_path / "out/overlay.mp4"))) == 3


def test_images_of_two_sizes_are_no_video(folder, model, tmp_path, capsys):
    cv2.imwrite(str(folder / "2.png"), np.zeros((40, 70, 3), np.uint8))
    assert track(folder, model, tmp_path / "out") == 2
    assert "frame 2 is (40, 70), those before it are (50, 70)" in capsys.readouterr().err


def test_info_tells_classes_size_and_switches(model, capsys):
    assert main(["info", str(model)]) == 0
    report = capsys.readouterr().out
    assert "64 x 96" in report and "fusion on" in report
    assert "0 stuff road" in report and "1 thing vehicle" in report


def no_model(folder, tmp_path):
    return ["info", str(tmp_path / "none.onnx")]


def no_video(folder, tmp_path):
    return ["track", "none.mp4", "--out", str(tmp_path / "out")]


def no_config(folder, tmp_path):
    return ["train", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out")]


def no_checkpoint(folder, tmp_path):
    return ["export", str(tmp_path / "none.safetensors"), str(tmp_path / "out.onnx")]


def not_camvid(folder, tmp_path):
    return ["eval", "camvid", "--root", str(tmp_path / "none")]


@pytest.mark.parametrize("arguments", [no_model, no_video, no_config, no_checkpoint, not_camvid])
def test_bad_input_is_one_line_and_exit_code_2(arguments, folder, model, tmp_path, capsys):
    command = arguments(folder, tmp_path)
    if command[0] in ("track", "eval"):
        command += ["--model", str(model)]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"video-knet {command[0]}: ")


def test_a_model_with_other_classes_cannot_be_evaluated(model, capsys):
    assert main(["eval", "synthetic", "--model", str(model)]) == 2
    assert "its classes must be ['road', 'sidewalk'" in capsys.readouterr().err


@pytest.mark.parametrize("frames", ["0", "-3", "x"])
def test_impossible_numbers_are_usage_errors(frames, folder, model, tmp_path):
    with pytest.raises(SystemExit) as stop:
        track(folder, model, tmp_path / "out", "--max-frames", frames)
    assert stop.value.code == 2


def test_tracking_imports_no_torch_and_no_ros():
    """In a fresh interpreter, because this one may hold them already."""
    code = (
        "import sys, video_knet_core.cli, video_knet_core.recording, video_knet_core.evaluation,"
        "video_knet_core.engine.onnx_runtime;"
        "print(sorted({'torch', 'rclpy', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
