"""A user's mistake never ends in a traceback: random command lines, files and numbers."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from bag_fixtures import bag_of
from dataset_fixtures import write_custom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_onnx import write_tiny_model

from video_knet_core.cli import app, main
from video_knet_core.cli.console import EXIT_FAULTS

FILES = [
    *("none", "none.onnx", "none.mcap", "empty.onnx", "empty.mcap", "empty.yaml", "empty.pth"),
    *("garbage.onnx", "garbage.mcap", "garbage.db3", "garbage.bag", "garbage.yaml", "garbage.png"),
    *("garbage.safetensors", "garbage.pth", "garbage.mp4", "garbage.npz", "folder", "folder.mcap"),
    *("folder.onnx", "folder.yaml", "folder.safetensors", "images", "bag", "custom", "tiny.onnx"),
    *("locked.onnx", "list.yaml", "dangling.onnx", "名前.onnx", "bad\udcff.onnx", "bad\udcff", ""),
    *("cut.mcap", "cut.onnx", "a" * 300, "~nobody/x", "/dev/null", ".", "..", "/proc/self/mem"),
]
NUMBERS = [
    *("0", "1", "2", "-1", "nan", "inf", "1e400", "1e308", "0.5", "", " 1", "1_000", "٣", "x"),
    *("9" * 30, "9" * 5000, "0x10", "2147483648", "1e9"),
]
WORDS = [
    *("auto", "torch", "onnxruntime-cpu", "all", "custom", "kitti_step", "coco_panoptic", "camvid"),
    *("val", "train", "embedding", "iou,embedding", "/camera/image_raw", "/none", "instances"),
    *("semantic", "sqlite3", "mcap", "ros1", "message", "file", "sm89", "sm1,,", "[", "*", "**"),
    *("64x96", "0x1", "99999x99999", "synthetic", "synthetic:x", "synthetic:" + "9" * 5000),
    *("9" * 12, "street_lite0", "kitti_step_r50", "\u202e", "a b", "-", "--", "cpu", "cuda:99"),
]
SLOW = {"--ray", "--workers", "--rerun", "--quiet", "--verbose", "--help"}
"""Options that are left out: they start processes or recordings, or are those of all commands."""


def known_options(command: Any) -> tuple[int, dict[str, bool]]:
    """Number of arguments of a command, and its options: whether they are flags."""
    options = {p.opts[0]: p.is_flag for p in command.params if p.opts[0].startswith("--")}
    arguments = len(command.params) - len(options)
    return arguments, {name: flag for name, flag in options.items() if name not in SLOW}


PROGRAM = typer.main.get_command(app).commands
GROUPS = ("eval", "models")
COMMANDS = {  # without `doctor`, which starts processes
    **{
        name: known_options(command)
        for name, command in PROGRAM.items()
        if name not in (*GROUPS, "doctor")
    },
    **{
        f"eval {name}": known_options(PROGRAM["eval"].commands[name])
        for name in ("camvid", "pasted", "dataset", "judges")
    },
    "models get": known_options(PROGRAM["models"].commands["get"]),
}
LIKELY = {  # what the parser may take, to get behind it
    "--backend": ["auto", "torch", "onnxruntime-cpu", "tensorrt"],
    "--threads": ["1"],
    "--tracker": ["iou", "raw"],
    "--tracking": ["birth_score=0.5", "reset_gap_s=no", "=", "a"],
    "--trackers": ["iou", "iou,raw", "embedding:overlap_weight=0", "iou:", "iou:a=b"],
    "--sets": ["synthetic", "custom", "custom,images"],
    "--start": ["0", "0.2", "99", "1e9"],
    "--duration": ["0", "0.2", "1e9"],
    "--every": ["1", "3", "2147483647"],
    "--split-frames": ["1", "2147483647"],
    "--outputs": ["instances", "semantic", "overlay", "detections"],
    "--storage": ["sqlite3"],
    "--format": ["mcap", "sqlite3", "ros1"],
    "--compression": ["chunk", "message", "file"],
    "--jpeg": ["1", "100"],
    "--topic": ["/camera/image_raw", "no topic"],
    "--topics": ["/camera/image_raw", "/a,/b"],
    "--size": ["1x1", "64x96"],
    "--precision": ["fp16"],
    "--workspace": ["1"],
    "--target": ["sm89"],
    "--split": ["val", "train"],
    "--device": ["cpu", "cuda", "cuda:99", "meta", "x"],
    "--sprites": ["all"],
    "--glob": ["*", "ba*", "*.mcap", "[", "**/*"],
}
GUARDS = {  # else a valid command line may run for hours
    "track": ["--max-frames", "2"],
    "make-bag": ["--max-frames", "2"],
    "bench": ["--frames", "1"],
    "eval pasted": ["--clips", "1", "--frames", "1"],
    "eval judges": ["--clips", "1", "--frames", "1"],
}
VALUES = st.sampled_from([*FILES, *NUMBERS, *WORDS]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with positional arguments and options of its own, whose values are anything."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    count, known = COMMANDS[name]
    words = draw(st.lists(VALUES, min_size=max(count - 1, 0), max_size=count + 1))
    for option in draw(st.lists(st.sampled_from(sorted(known)), max_size=5, unique=True)):
        words.append(option)
        if not known[option]:
            words.append(draw(st.sampled_from(LIKELY.get(option, FILES)) | VALUES))
    if "--out" in known and draw(st.integers(0, 4)):
        words += ["--out", draw(st.sampled_from(["new/out", "new", *FILES]))]
    if "--model" in known and draw(st.booleans()):
        words += ["--model", draw(st.sampled_from(["tiny.onnx", *FILES]))]
    return [*name.split(), *words, *GUARDS.get(name, [])]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A folder with files of every kind, most of them faulty."""
    folder = tmp_path_factory.mktemp("pristine")
    garbage = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    tiny = write_tiny_model(folder / "tiny.onnx").read_bytes()
    bag_of(folder, 4).rename(folder / "bag")
    (storage,) = (folder / "bag").glob("*.mcap")
    (folder / "images").mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"images/{number}.png"), np.zeros((48, 64, 3), np.uint8))
    write_custom(folder / "custom")
    for name in FILES:
        path = folder / name
        if name.startswith(("garbage", "名前", "bad")):
            path.write_bytes(garbage)
        elif name.startswith("empty"):
            path.touch()
        elif name.startswith("folder"):
            path.mkdir()
    (folder / "list.yaml").write_text("[1, {model: 3}]")
    (folder / "locked.onnx").write_bytes(tiny)
    (folder / "locked.onnx").chmod(0)
    (folder / "dangling.onnx").symlink_to("nowhere")
    (folder / "cut.onnx").write_bytes(tiny[: len(tiny) // 2])
    (folder / "cut.mcap").write_bytes(storage.read_bytes()[: storage.stat().st_size // 2])
    return folder


def run(command: list[str], pristine: Path, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in a fresh copy of the files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder, symlinks=True)
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(command)
            except SystemExit as stop:
                code = stop.code
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 200)),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(command=command_lines())
def test_any_command_line_ends_with_a_code_and_a_line(pristine, tmp_path, command):
    code, out, err = run([*command, "-q"], pristine, tmp_path / "files")
    assert code in (0, EXIT_FAULTS, 2), (command, err)
    assert "Traceback" not in err
    if code == 2:
        assert err.strip(), command
        assert not out or "Overview" in out, (command, out)
