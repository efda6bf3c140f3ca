"""The files of `video-knet track`: complete whatever ends it, and nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from video_knet_core.cli import main
from video_knet_core.data.frames import open_frames
from video_knet_core.output_files import OutputError
from video_knet_core.overlay_video import OverlayVideo
from video_knet_core.recording import Recording, track_video

MS = 1_000_000
STAMPS = [0, 33 * MS, 967 * MS, 3033 * MS]


@pytest.fixture
def video(tmp_path):
    """A video with a pause, called as one of the results is."""
    (tmp_path / "in").mkdir()
    with OverlayVideo(tmp_path / "in/overlay.mp4", 30) as writer:
        for stamp in STAMPS:
            writer.write(np.full((50, 70, 3), 100, np.uint8), stamp)
    return tmp_path / "in/overlay.mp4"


def snapshot(folder):
    """File -> its bytes, or where a link points to."""
    paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return {p: os.readlink(p) if p.is_symlink() else p.read_bytes() for p in paths}


def lines(out):
    return [json.loads(line) for line in (out / "tracks.jsonl").read_text().splitlines()]


def test_stamps_and_the_overlay_have_the_times_of_the_source(video, runtime, tmp_path):
    track_video(open_frames(video), runtime, tmp_path / "out")
    stamps = [line["stamp"] for line in lines(tmp_path / "out")]
    np.testing.assert_allclose(stamps, STAMPS, atol=17_000)
    shown = [stamp for _, stamp in open_frames(tmp_path / "out/overlay.mp4")]
    np.testing.assert_allclose(shown, stamps, atol=17_000)


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("linked", [False, True])
def test_the_input_is_never_replaced_by_the_overlay(linked, video, model, tmp_path, capsys):
    out = tmp_path / "out" if linked else video.parent
    if linked:
        out.mkdir()
        (out / "overlay.mp4").symlink_to(video)
    before = snapshot(tmp_path)
    assert main(["track", str(video), "--out", str(out), "--model", str(model)]) == 2
    assert "is the input" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def images(folder, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:06d}.png"), np.full((50, 70, 3), 90, np.uint8))
    return folder


def test_images_are_never_replaced_by_labels(runtime, tmp_path):
    source = images(tmp_path / "labels")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError):
        track_video(open_frames(source), runtime, tmp_path)
    assert snapshot(tmp_path) == before


def test_results_that_are_the_input_of_the_next_run_stay(video, runtime, tmp_path):
    """Also by links to single images of them."""
    out = tmp_path / "out"
    track_video(open_frames(video), runtime, out)
    links = tmp_path / "links"
    links.mkdir()
    for path in (out / "labels").iterdir():
        (links / path.name).symlink_to(path)
    before = snapshot(tmp_path)
    for source in (out / "overlay.mp4", out / "labels", links):
        with pytest.raises(OutputError, match="is the input"):
            track_video(open_frames(source), runtime, out)
    assert snapshot(tmp_path) == before


def test_results_may_lie_beside_or_below_the_input(runtime, tmp_path):
    source = images(tmp_path / "images")
    before = snapshot(source)
    for out in (source, source / "result"):
        track_video(open_frames(source), runtime, out)
        assert len(lines(out)) == 3
    assert before.items() <= snapshot(source).items()


# --- foreign files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["overlay.mp4", "tracks.jsonl", "labels/000000.png", "labels/a.png", "labels"]
)
def test_files_that_are_no_earlier_result_are_never_replaced(name, video, runtime, tmp_path):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    with pytest.raises(OutputError, match=r"is no earlier result|expected a folder"):
        track_video(open_frames(video), runtime, tmp_path / "out")
    assert path.read_text() == "mine\n"


def test_a_second_run_replaces_the_first_and_nothing_else(video, runtime, tmp_path):
    out = tmp_path / "out"
    track_video(open_frames(video), runtime, out)
    mine = [out / name for name in ("notes.txt", "labels/notes.txt", "labels/a.png")]
    for path in mine:
        path.write_text("mine")
    track_video(open_frames(video), runtime, out, max_frames=2)
    assert len(lines(out)) == 2 and len(list(open_frames(out / "overlay.mp4"))) == 2
    assert [path.name for path in sorted((out / "labels").glob("0*.png"))] == [
        "000000.png",
        "000001.png",
    ]
    assert [path.read_text() for path in mine] == ["mine"] * 3


def test_two_runs_into_one_folder_exclude_each_other(video, runtime, tmp_path):
    classes = runtime.info.classes
    with (
        Recording(tmp_path / "out", 10, classes),
        pytest.raises(OutputError, match="another process"),
    ):
        track_video(open_frames(video), runtime, tmp_path / "out")
    track_video(open_frames(video), runtime, tmp_path / "out")


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_all_files_have_the_same_frames(number, model, tmp_path):
    out = tmp_path / "out"
    command = ["track", "synthetic:1", "--out", str(out), "--model", str(model), "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "video_knet_core.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (out / "labels/000003.png").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    report, error = process.communicate()
    assert process.returncode == 128 + number
    assert error == "video-knet track: interrupted\n"
    count = len(lines(out))
    assert count >= 3
    assert len(list((out / "labels").iterdir())) == count
    assert len(list(open_frames(out / "overlay.mp4"))) == count
    assert f"{count} frames" in report and "stopped early" in report
    assert {path.name for path in out.iterdir()} == {"labels", "overlay.mp4", "tracks.jsonl"}


def test_a_home_folder_may_be_written_as_a_tilde(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images(tmp_path / "images")
    assert main(["track", "~/images", "--out=~/out", "--model", str(model)]) == 0
    assert len(lines(tmp_path / "out")) == 3
