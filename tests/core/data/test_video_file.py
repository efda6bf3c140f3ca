"""Reading videos: the times in the file count, not its header."""

from __future__ import annotations

import os
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_knet_core.data.frames import open_frames
from video_knet_core.data.video_file import IncreasingTimes
from video_knet_core.image_files import FrameError

MS = 1_000_000
PAUSE = [*range(0, 1000, 100), *range(3000, 4000, 100)]
"""Milliseconds of frames with a pause of two seconds."""


def level(number):
    return 30 + 10 * number


def make_video(
    path, times=PAUSE, codec="libx264", form=None, b_frames=0, size=(96, 64), unit=1000, **options
):
    """A video of plain frames, a level each, at `times` in 1/`unit` s."""
    with av.open(str(path), "w", format=form, container_options=options) as container:
        times = list(times)
        stream = container.add_stream(codec, rate=Fraction(unit, times[1] - times[0]))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, unit)
        stream.codec_context.max_b_frames = b_frames
        for number, time in enumerate(times):
            pixels = np.full((size[1], size[0], 3), level(number), np.uint8)
            pixels[:, : size[0] // 2] = 0
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, unit)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stamps(source):
    return [stamp for _, stamp in source]


def levels(source):
    return [int(image[5, -5].mean()) for image, _ in source]


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("vfr.mp4", "libx264", 0),
        ("b_frames.mp4", "libx264", 2),
        ("vfr.mkv", "libx264", 2),
        ("vfr.webm", "libvpx", 0),
        ("vfr.ts", "libx264", 2),
    ],
)
def test_stamps_are_the_times_in_the_file(tmp_path, name, codec, b_frames):
    source = open_frames(make_video(tmp_path / name, codec=codec, b_frames=b_frames))
    np.testing.assert_allclose(stamps(source), [time * MS for time in PAUSE], atol=MS)
    np.testing.assert_allclose(levels(source), [level(n) for n in range(len(PAUSE))], atol=4)


def test_time_counts_from_the_first_frame_of_a_file_that_starts_later(tmp_path):
    times = [time + 7_000 for time in PAUSE]
    path = make_video(tmp_path / "late.mkv", times)
    assert stamps(open_frames(path)) == [time * MS for time in PAUSE]


def test_high_rates_are_kept(tmp_path):
    rate = 15_000
    source = open_frames(make_video(tmp_path / "fast.mp4", range(20), unit=rate))
    np.testing.assert_allclose(stamps(source), np.arange(20) * 1e9 / rate, atol=1000)
    assert source.fps == pytest.approx(rate)


def test_a_raw_stream_has_its_nominal_rate(tmp_path):
    path = make_video(tmp_path / "raw.h264", range(0, 1000, 100), form="h264", b_frames=2)
    source = open_frames(path)
    assert source.count is None
    assert stamps(source) == [round(n * 1e9 / source.fps) for n in range(10)]
    np.testing.assert_allclose(levels(source), [level(n) for n in range(10)], atol=4)


def test_frames_of_an_avi_with_b_frames_come_in_order(tmp_path):
    path = make_video(tmp_path / "b.avi", range(12), b_frames=2, unit=25)
    source = open_frames(path)
    np.testing.assert_allclose(stamps(source), np.arange(12) * 1e9 / 25, atol=MS)
    np.testing.assert_allclose(levels(source), [level(n) for n in range(12)], atol=4)


def test_a_live_stream_has_no_count_and_is_played_to_its_end(tmp_path):
    """Written as by a browser's recorder, which cannot go back to note duration and index."""
    path = make_video(tmp_path / "live.webm", codec="libvpx", form="webm", live="1")
    source = open_frames(path)
    assert source.count is None and not source.endless
    assert len(stamps(source)) == len(PAUSE)


@given(st.lists(st.none() | st.integers(-(10**12), 10**12), min_size=1), st.integers(0, 10**10))
def test_times_always_increase_from_zero(times, period):
    clock = IncreasingTimes(period, 10**9)
    result = [clock.add(time) for time in times]
    assert result[0] == 0 and result == sorted(set(result))


def test_equal_times_stay_before_the_next_one_and_missing_ones_follow_at_the_rate():
    clock = IncreasingTimes(100, 1000)
    times = [clock.add(t) for t in (5, 105, 105, 104, 205, None, 405)]
    assert times == [0, 100, 125, 150, 200, 300, 400]
    clock = IncreasingTimes(100, 1000)  # and of one that is set back
    assert [clock.add(t) for t in (50_000, 50_100, 0, 100, 250)] == [0, 100, 200, 300, 450]


# --- files ---------------------------------------------------------------------------------------


def test_a_pipe_is_played_once(tmp_path):
    video, pipe = make_video(tmp_path / "a.mkv"), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(video.read_bytes()))
    writer.start()
    source = open_frames(pipe)
    assert stamps(source) == [time * MS for time in PAUSE]
    writer.join()
    with pytest.raises(FrameError, match="only once"):
        next(iter(source))


@pytest.mark.parametrize("name", ["12:30:05.mp4", "http:a.mp4", "100%d.mp4", "with space ü.mp4"])
def test_names_are_no_addresses(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a.mp4").rename(tmp_path / name)
    assert len(stamps(open_frames(name))) == len(PAUSE)


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_video(tmp_path / "a.mp4")
    assert len(stamps(open_frames("~/a.mp4"))) == len(PAUSE)


def test_a_rotation_in_the_metadata_is_applied(tmp_path):
    """The matrix of the track header, as phones write it: shown turned clockwise."""
    path = make_video(tmp_path / "a.mp4", [0, 100])
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    minus_one = (-(1 << 16)).to_bytes(4, "big", signed=True)
    assert data[matrix : matrix + 4] == one
    data[matrix : matrix + 20] = zero + one + zero + minus_one + zero
    path.write_bytes(data)
    ((image, _), _) = open_frames(path)
    assert image.shape == (96, 64, 3)  # the black left half is on top
    assert image[10].max() < 10 and image[-10].min() > 20


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "song.mka"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("flac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 4096), np.int16), "s16", "stereo")
        frame.rate, frame.pts = 44100, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with pytest.raises(FrameError, match="expected a video stream, got audio"):
        open_frames(path)


def test_a_text_is_no_video(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing to see\n" * 100)
    with pytest.raises(FrameError, match=r"notes\.txt"):
        open_frames(path)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_an_empty_or_cut_header_is_named(tmp_path, size):
    path = make_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FrameError, match=r"a\.mp4 is not a video that FFmpeg can read"):
        open_frames(path)


def test_damaged_frames_are_left_out_counted_and_named(tmp_path, caplog):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(10):
            pixels = np.full((48, 64, 3), level(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    third = [n for n in range(len(data)) if data.startswith(b"IDAT", n)][2]
    data[third + 4 : third + 12] = b"x" * 8
    path.write_bytes(data)
    source = open_frames(path)
    assert levels(source) == [level(n) for n in range(10) if n != 2]
    assert stamps(source) == [n * 40 * MS for n in range(10) if n != 2]
    assert f"{path}: left out 1 damaged frames" in caplog.text


def test_a_file_that_is_cut_off_is_played_up_to_there(tmp_path, caplog):
    path = make_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    played = stamps(open_frames(path))
    assert 5 < len(played) < len(PAUSE)
    assert played == [time * MS for time in PAUSE[: len(played)]]
