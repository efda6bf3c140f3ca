from __future__ import annotations

import subprocess
import sys
from itertools import islice

import cv2
import numpy as np
import pytest

from video_knet_core.data.frames import open_frames
from video_knet_core.image_files import FrameError


def picture(red, height=48, width=64):
    """RGB, plain, with the red channel telling the frames apart."""
    image = np.full((height, width, 3), (0, 60, 120), np.uint8)
    image[..., 0] = red
    return image


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (64, 48))
    for red in (0, 100, 200):
        writer.write(picture(red)[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for name, red in (("b.png", 100), ("a.jpg", 0), ("c.PNG", 200)):
        cv2.imwrite(str(path / name), picture(red)[..., ::-1])
    for other in ("notes.txt", "._b.png", ".d.png", "Thumbs.db"):
        (path / other).write_text("no image")
    return path


def check_three_frames(source, fps):
    frames = list(source)
    assert source.fps == fps and source.count == 3 and not source.endless
    assert [stamp for _, stamp in frames] == [round(i * 1e9 / fps) for i in range(3)]
    for (image, _), red in zip(frames, (0, 100, 200), strict=True):
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        np.testing.assert_allclose(image.mean(axis=(0, 1)), (red, 60, 120), atol=6)


def test_a_video_file_has_its_own_rate_and_gives_rgb(video):
    check_three_frames(open_frames(video, fps=3.0), fps=20.0)


def test_a_folder_plays_by_name_and_skips_other_files(folder):
    check_three_frames(open_frames(folder, fps=5.0), fps=5.0)


def test_a_source_starts_anew_each_time(video, folder):
    for source in (open_frames(video), open_frames(folder)):
        first, second = list(source), list(source)
        assert len(first) == len(second) == 3
        np.testing.assert_array_equal(first[0][0], second[0][0])


def test_the_synthetic_street_depends_on_its_seed():
    assert open_frames("synthetic").endless
    image, stamp = next(islice(open_frames("synthetic:3", fps=4.0), 2, None))
    again, _ = next(islice(open_frames("synthetic:3", fps=4.0), 2, None))
    other, _ = next(islice(open_frames("synthetic", fps=4.0), 2, None))
    assert stamp == 500_000_000 and image.dtype == np.uint8 and image.shape[2] == 3
    np.testing.assert_array_equal(image, again)
    assert (image != other).any()


def test_views_of_the_synthetic_street_have_depth_and_pose():
    source = open_frames("synthetic:3", fps=4.0)
    image, stamp = next(islice(source, 1, None))
    first, view = islice(source.views(), 2)
    assert view.stamp == stamp
    np.testing.assert_array_equal(view.image, image)
    assert view.depth is not None and view.depth.shape == image.shape[:2]
    assert first.pose is not None and view.pose is not None
    assert view.pose[0, 3] > first.pose[0, 3]
    assert source.intrinsics is not None and source.intrinsics.cx == image.shape[1] / 2


def test_depth_of_the_synthetic_street_is_rendered_only_on_request():
    requests = iter((True, False, True))
    views = list(islice(open_frames("synthetic:3").views(lambda: next(requests)), 3))
    assert [view.depth is not None for view in views] == [True, False, True]
    plain = islice(open_frames("synthetic:3"), 3)
    for view, (image, _) in zip(views, plain, strict=True):
        np.testing.assert_array_equal(view.image, image)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("no/such.mp4", {}, r"no video 'no/such\.mp4'"),
        *((name, {}, "synthetic") for name in ("synthetic:", "synthetic:x", "synthetic7")),
        ("97", {}, "no webcam 97"),
        (".", {}, "holds no images"),
        (".", {"fps": 0}, "above 0, got 0"),
    ],
)
def test_sources_that_cannot_be(source, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FrameError, match=message):
        open_frames(source, **options)


def test_a_broken_image_in_a_folder(folder):
    (folder / "b.png").write_bytes(b"truncated")
    source = iter(open_frames(folder))
    next(source)
    with pytest.raises(FrameError, match=r"b\.png is not an image"):
        next(source)


def numbered(folder, names):
    folder.mkdir()
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), picture(10 * number))
    return folder


def test_numbered_images_play_in_the_order_of_their_numbers(tmp_path):
    names = [f"{number}.png" for number in range(1, 13)]
    frames = list(open_frames(numbered(tmp_path / "images", names)))
    assert [image[0, 0, 2] for image, _ in frames] == [10 * number for number in range(12)]


@pytest.mark.parametrize("missing", ["av", "natsort"])
def test_a_package_that_a_camera_does_not_need_is_named(missing, tmp_path, video):
    """As on a robot whose packages came with ROS."""
    numbered(tmp_path / "images", ["9.png", "10.png"])
    source = video if missing == "av" else tmp_path / "images"
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from video_knet_core.data.frames import FrameError, open_frames\n"
        "try: open_frames(sys.argv[1])\n"
        "except FrameError as error: print(error)\n"
    )
    words = subprocess.check_output([sys.executable, "-c", code, source], text=True)
    assert words == f"{source}: needs the package {missing}, see docs/how-to/install.md\n"
