"""What all commands of `video-knet` do with bad input, and what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
from bag_fixtures import bag_of

from video_knet_core.cli import main

BAD_INPUT = {
    "info none.onnx": "none.onnx",
    "info .": "expected a model file .yaml",
    "info none.yaml": "none.yaml",
    "info none.onnx --size 64x96": "--size",
    **{f"info --size={size}": "--size" for size in ("0x96", "64", "64x", "-64x96", "64x96x3")},
    "info --size 640000x96": "at most 16384 pixels",
    "info -q -v": "--quiet",
    "track none.mp4 --out out": "none.mp4",
    "track none.mp4 --out out --json": "none.mp4",
    "track images --out out": "images",
    "track {images} --out out --model {model} --backend torch": "",
    **{
        f"track none.mp4 --out out --max-frames {count}": f"expected 1..2147483647, got {count};"
        for count in ("0", "-3", "x")
    },
    "train none.yaml --out out": "none.yaml",
    "export none.safetensors out.onnx": "",
    "import-checkpoint none.pth out.safetensors --config none.yaml": "none.yaml",
    "eval camvid --root none": "none",
    "eval dataset custom none": "none",
    "eval dataset custom none --predictions none --spoilt": "--spoilt",
    "eval judges --root none --sets mine": "'val'",
    "eval judges --root none --trackers embedding:weight=0": "got 'weight'",
    "eval synthetic --trackers iou,embedding:overlap_weight=x": "overlap_weight",
    "eval synthetic -q --model {model}": "class 1: expected 'sidewalk' (stuff), got 'vehicle'",
    "replay none.mcap --out out": "none.mcap",
    "replay --glob none*.mcap --out out": "none*.mcap",
    "replay {bag} --out out --topics /none": "/none",
    "replay in.mcap --out out --split-frames 0": "split",
    "replay in.mcap --out out --start nan": "start",
    "replay in.mcap --out out --duration -1": "duration",
    "make-bag {images} --format ros1 --out out": "NAME.bag",
    "make-bag synthetic --out out": "--max-frames",
}
"""Command line -> what its error names; empty where that is torch on a machine without it."""


@pytest.mark.parametrize("line", BAD_INPUT)
def test_bad_input_is_one_line_before_any_engine_is_opened(
    line, model, images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    bag = bag_of(tmp_path, 3) if "{bag}" in line else ""
    (tmp_path / "images").mkdir()
    assert main(line.format(model=model, images=images, bag=bag).split()) == 2
    output = capsys.readouterr()
    (error,) = output.err.splitlines()
    assert error.startswith(f"video-knet {line.split()[0]}") and BAD_INPUT[line] in error
    assert output.out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["eval"], ["nope"], ["track", "--no"], ["info", "a", "b"]])
def test_bad_usage_is_one_line_that_names_the_help(words, capsys):
    assert main(words) == 2
    output = capsys.readouterr()
    assert output.out == "" and len(output.err.splitlines()) == 1 and "--help" in output.err


def test_names_are_printed_whatever_the_encoding_of_the_terminal(model, tmp_path):
    path = tmp_path / "汽车.onnx"
    path.write_bytes(model.read_bytes())
    command = [sys.executable, "-m", "video_knet_core.cli", "info", str(path)]
    for encoding, name in (("ascii", r"\u6c7d\u8f66.onnx"), ("utf-8", "汽车.onnx")):
        variables = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=variables)
        assert done.returncode == 0 and name in done.stdout.decode()


def test_tracking_imports_no_torch_and_no_ros():
    """In a fresh interpreter, because this one may hold them already."""
    code = (
        "import sys, video_knet_core.cli, video_knet_core.recording;"
        "import video_knet_core.evaluate.clips, video_knet_core.evaluate.dataset_evaluation;"
        "import video_knet_core.engine.onnx_runtime;"
        "print(sorted({'torch', 'rclpy', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_module_that_an_installed_package_lacks_is_one_line(tmp_path, monkeypatch, capsys):
    error = ModuleNotFoundError("No module named 'cv2.no'", name="cv2.no")
    monkeypatch.setattr("video_knet_core.data.frames.open_frames", Mock(side_effect=error))
    assert main(["track", "synthetic", "--out", str(tmp_path / "out"), "-q"]) == 2
    assert capsys.readouterr().err == "video-knet track: the installed cv2 has no module cv2.no\n"


def test_a_missing_package_is_one_line(tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from video_knet_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["track", "synthetic", "--out", tmp_path / "out", "--max-frames", "1", "--quiet"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    line = "video-knet track: needs av: pip install av\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
