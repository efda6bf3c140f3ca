"""Interrupted and complete replays, and what else is in their folders."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bag_fixtures import bag_of
from replay_results import ALL, digests, interrupted
from tiny_onnx import TASKS, metadata, write_model

from video_knet_core.cli import main
from video_knet_core.engine.selector import open_runtime
from video_knet_core.output_files import OutputError, exclusive
from video_knet_core.recording import Recording
from video_knet_core.replay import products
from video_knet_core.replay.bag_replay import replay
from video_knet_core.replay.job_record import FinishedError
from video_knet_core.replay.replay_settings import ReplayError, ReplaySettings
from video_knet_core.tasks import TASKS as FACTS
from video_knet_core.tracking import tracker_settings

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
    command += ["--backend", runtime.name]
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


def test_the_command_gives_the_figures_of_a_complete_replay(model, tmp_path, capsys):
    command = ["replay", str(bag_of(tmp_path, 5)), "--out", str(tmp_path / "out")]
    command += ["--model", str(model), "--backend", "onnxruntime-cpu", "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(command) == 2
    assert main([*command, "--resume"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {name: first[name] for name in again} and again["frames"] == 5


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


def test_results_of_a_model_of_the_same_name_from_another_checkpoint_are_others(model, tmp_path):
    path, out = bag_of(tmp_path, 10), tmp_path / "out"
    replay(path, open_runtime(model, "onnxruntime-cpu"), out)
    trained = json.dumps(metadata(checkpoint_sha256="1"))
    other = open_runtime(write_model(tmp_path / "tiny.onnx", trained), "onnxruntime-cpu")
    with pytest.raises(ReplayError, match="but checkpoint was '0' and is '1'"):
        replay(path, other, out, resume=True)


def test_another_tracker_with_the_same_settings_is_another_replay(runtime, tmp_path):
    path, out = bag_of(tmp_path, 2), tmp_path / "out"
    replay(path, runtime, out, tracking=tracker_settings("iou"))
    with pytest.raises(ReplayError, match="tracker"):
        replay(path, runtime, out, tracking=tracker_settings("kernels"), resume=True)
