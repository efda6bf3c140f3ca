"""What all commands of `video-knet` do with bad input, and what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from video_knet_core.cli import main

REPO = Path(__file__).parents[3]


BAD_INPUT = [
    "info none.onnx",
    "info .",
    "info none.yaml",
    "info none.onnx --size 64x96",
    "track none.mp4 --out out",
    "train none.yaml --out out",
    "export none.safetensors out.onnx",
    "import-checkpoint none.pth out.safetensors --config none.yaml",
    "eval camvid --root none",
    "eval dataset custom none",
    "replay none.mcap --out out",
    "replay --glob none*.mcap --out out",
]


@pytest.mark.parametrize("line", BAD_INPUT)
def test_bad_input_is_one_line_before_any_engine_is_opened(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    output = capsys.readouterr()
    (error,) = output.err.splitlines()
    assert error.startswith(f"video-knet {line.split()[0]}") and output.out == ""


def test_a_model_with_other_classes_cannot_be_evaluated(model, capsys):
    assert main(["eval", "synthetic", "--model", str(model)]) == 2
    assert "class 1: expected 'sidewalk' (stuff), got 'vehicle' (thing)" in capsys.readouterr().err


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


def test_the_command_is_a_module_too():
    command = [sys.executable, "-m", "video_knet_core.cli", "info", "none.txt"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("video-knet info: expected a model file .yaml")


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
