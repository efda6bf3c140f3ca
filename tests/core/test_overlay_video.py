"""The video of results: what browsers need, times as in the source, finished whatever ends it."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from browser import Browser, find_browser

from video_knet_core.data.frames import open_frames
from video_knet_core.overlay_video import OverlayVideo

MS = 1_000_000
TICK = 17_000
"""Nanoseconds: the times in the file are whole ticks of 1/60000 s."""


def plain(level, height=64, width=96):
    return np.full((height, width, 3), (level, 60, 90), np.uint8)


def write(path, stamps, fps=10, height=64, width=96):
    with OverlayVideo(path, fps) as video:
        for number, stamp in enumerate(stamps):
            video.write(plain(40 + 20 * number % 200, height, width), stamp)
    return path


def stamps_of(path):
    return [stamp for _, stamp in open_frames(path)]


def boxes(path):
    """Names of the outermost boxes of an MP4 file, in order."""
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        size, name = struct.unpack(">I4s", data[position : position + 8])
        names.append(name.decode())
        position += size
    return names


def test_a_video_can_be_read_back_with_its_colours(tmp_path):
    path = tmp_path / "out.mp4"
    with OverlayVideo(path, 10) as video:
        for number, level in enumerate((40, 120, 200)):
            video.write(plain(level), number * 100 * MS)
    images = [image for image, _ in open_frames(path)]
    assert [image.shape for image in images] == [(64, 96, 3)] * 3
    means = np.array([image.mean(axis=(0, 1)) for image in images])
    np.testing.assert_allclose(means, [(level, 60, 90) for level in (40, 120, 200)], atol=5)


def test_equal_frames_give_equal_bytes_whatever_was_in_the_memory(tmp_path):
    """That of an encoder comes from what the process has freed; a run of equal bytes hides it."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (96, 64))
    noise = [rng.integers(0, 255, size, np.uint8) for size in rng.integers(1000, 300_000, 60)]
    files = set()
    for number in range(50):
        copies = [values.copy() for values in noise]
        kept = copies[number % 7 :: 7]
        del copies
        with OverlayVideo(tmp_path / "out.mp4", 10) as video:
            for t in range(45):
                video.write(np.roll(picture, 3 * t, axis=1), 100 * MS * t)
        files.add((tmp_path / "out.mp4").read_bytes())
        del kept
    assert len(files) == 1


def test_the_video_is_what_browsers_play(tmp_path):
    path = write(tmp_path / "out.mp4", [0, 100 * MS, 200 * MS])
    with av.open(str(path)) as container:
        (stream,) = container.streams
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert codec.extradata[3] <= 42  # level: of rate and size, not of the ticks of its clock
        assert stream.start_time == 0
    names = boxes(path)
    assert names.index("moov") < names.index("mdat")


@pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")
def test_chromium_plays_the_video(tmp_path):
    write(tmp_path / "out.mp4", [0, 50 * MS, 400 * MS], height=63, width=95)
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><video id=v src="out.mp4" muted></video>')
    script = """new Promise(done => {
      v.onerror = () => done("ERROR " + v.error.message)
      v.onended = () => done([v.videoWidth, v.videoHeight, v.duration > 0.35])
      v.play().catch(error => done("ERROR " + error))
    })"""
    with Browser() as browser:
        browser.open(page)
        result = browser.send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
    assert result["result"]["value"] == [96, 64, True]


@pytest.mark.parametrize("fps", [0.5, 10, 29.97, 1000, 90_000])
def test_frames_are_shown_at_their_stamps_whatever_the_usual_rate(tmp_path, fps):
    stamps = [0, 33 * MS, 967 * MS, 3033 * MS, 3034 * MS, 3967 * MS]
    shown = stamps_of(write(tmp_path / "out.mp4", [stamp + 10**18 for stamp in stamps], fps))
    np.testing.assert_allclose(shown, stamps, atol=TICK)


def test_stamps_that_stand_still_or_go_back_follow_each_other(tmp_path):
    stamps = [0, 100 * MS, 100 * MS, 99 * MS, 200 * MS, 300 * MS]
    shown = stamps_of(write(tmp_path / "out.mp4", stamps))
    assert shown == sorted(set(shown))
    np.testing.assert_allclose(shown[4:], stamps[4:], atol=TICK)


@pytest.mark.parametrize("jump", [-(10**18), 10**18, -5 * 10**9])
def test_a_clock_that_was_set_makes_no_pause(tmp_path, jump):
    stamps = [10**18, 10**18 + 100 * MS, 10**18 + jump, 10**18 + jump + 50 * MS]
    shown = stamps_of(write(tmp_path / "out.mp4", stamps))
    np.testing.assert_allclose(shown, [0, 100 * MS, 200 * MS, 250 * MS], atol=TICK)


def test_odd_sizes_become_even_by_repeating_the_last_row_and_column(tmp_path):
    path = write(tmp_path / "out.mp4", [0], height=63, width=95)
    ((image, _),) = open_frames(path)
    assert image.shape == (64, 96, 3)
    np.testing.assert_allclose(image[-1, -1], (40, 60, 90), atol=5)


def test_a_single_pixel_can_be_written(tmp_path):
    ((image, _),) = open_frames(write(tmp_path / "out.mp4", [0], height=1, width=1))
    assert image.shape == (2, 2, 3)


def test_an_error_between_frames_leaves_a_whole_video_and_no_other_file(tmp_path):
    path = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), OverlayVideo(path, 10) as video:
        video.write(plain(40), 0)
        video.write(plain(60), 100 * MS)
        assert not path.exists()
        raise KeyboardInterrupt
    assert len(stamps_of(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_without_frames_there_is_no_file_and_an_old_one_stays(tmp_path):
    path = write(tmp_path / "out.mp4", [0])
    before = path.read_bytes()
    with OverlayVideo(path, 10) as video:
        pass
    video.close()
    assert path.read_bytes() == before


def test_a_video_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "no such folder" / "out.mp4"
    with pytest.raises(OSError, match="no such folder"), OverlayVideo(path, 10) as video:
        video.write(plain(0), 0)


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    monkeypatch.setattr("video_knet_core.overlay_video._file_url", lambda path: "file:/dev/full")
    path = tmp_path / "out.mp4"
    with pytest.raises(OSError) as error, OverlayVideo(path, 10) as video:
        for number in range(50):
            video.write(np.random.default_rng(number).integers(0, 255, (64, 96, 3), np.uint8), 0)
    assert not isinstance(error.value, av.FFmpegError) and str(path) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_without_h264_another_encoder_is_used(tmp_path, monkeypatch, caplog):
    encoders = {"no_such_encoder": {}, "mpeg4": {}}
    monkeypatch.setattr("video_knet_core.overlay_video.ENCODERS", encoders)
    path = write(tmp_path / "out.mp4", [0, 100 * MS])
    assert len(stamps_of(path)) == 2
    assert "browsers will not play" in caplog.text


def test_all_frames_of_a_video_have_one_size(tmp_path):
    with OverlayVideo(tmp_path / "out.mp4", 10) as video:
        video.write(plain(0), 0)
        with pytest.raises(ValueError, match=r"\(96, 64\) .*got \(64, 96\)"):
            video.write(plain(0, 96, 64), 100 * MS)
    with pytest.raises(ValueError, match="fps"):
        OverlayVideo(tmp_path / "x.mp4", 0)
