"""Folders of images, depth images and a calibration as sources of frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml

from video_knet_core.data.frame_source import Intrinsics
from video_knet_core.data.frames import RgbdFolder, open_frames
from video_knet_core.image_files import FrameError

CAMERA = Intrinsics(fx=50.0, fy=60.0, cx=31.5, cy=23.5)


def calibration(**changes) -> str:
    content = {
        "image_width": 64,
        "image_height": 48,
        "camera_name": "front",
        "camera_matrix": {"rows": 3, "cols": 3, "data": [50.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1]},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
    }
    return yaml.safe_dump(content | changes)


@pytest.fixture
def folder(tmp_path):
    """Two frames, 9 and 10, with depths of 1.5 m and 2.5 m; unknown in the upper left corner."""
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    for number, depth in ((9, 1500), (10, 2500)):
        cv2.imwrite(str(tmp_path / f"rgb/{number}.png"), np.full((48, 64, 3), number, np.uint8))
        millimetres = np.full((48, 64), depth, np.uint16)
        millimetres[0, 0] = 0
        cv2.imwrite(str(tmp_path / f"depth/{number}.png"), millimetres)
    (tmp_path / "camera_info.yaml").write_text(calibration())
    return tmp_path


def check(source) -> None:
    views = list(source.views())
    assert source.intrinsics == CAMERA and source.count == 2
    assert [(view.stamp, view.image[0, 0, 0]) for view in views] == [(0, 9), (200_000_000, 10)]
    for view, metres in zip(views, (1.5, 2.5), strict=True):
        assert view.depth.dtype == np.float32 and view.pose is None
        assert view.depth[0, 0] == 0
        np.testing.assert_allclose(view.depth[1:], metres)


def test_a_folder_of_images_and_depth_gives_metres_and_the_camera(folder):
    source = open_frames(folder, fps=5.0)
    assert isinstance(source, RgbdFolder) and source.path == folder
    check(source)
    assert [stamp for _, stamp in source] == [0, 200_000_000]


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_depth_in_metres(folder, suffix):
    for number, metres in ((9, 1.5), (10, 2.5)):
        (folder / f"depth/{number}.png").unlink()
        depth = np.full((48, 64), metres, np.float32)
        depth[0, 0] = np.nan
        path = folder / f"depth/{number}{suffix}"
        np.save(path, depth) if suffix == ".npy" else cv2.imwrite(str(path), depth)
    check(open_frames(folder, fps=5.0))


def test_files_of_other_names_belong_together_by_their_order(folder):
    for number in (9, 10):
        (folder / f"depth/{number}.png").rename(folder / f"depth/depth_{number}.png")
    (folder / "rgb").rename(folder / "color")
    check(open_frames(folder, fps=5.0))


def test_depth_is_read_only_on_request(folder):
    (folder / "depth/9.png").write_bytes(b"broken")
    requests = iter((False, True))
    first, second = open_frames(folder).views(lambda: next(requests))
    assert first.depth is None and second.depth is not None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("depth/9.png", np.zeros((48, 64), np.uint8), "16 bits .* got uint8"),
        ("depth/9.png", np.zeros((24, 64), np.uint16), r"expected 64 x 48 .*9\.png, got 64 x 24"),
        ("depth/9.png", b"broken", "depth image .* got none"),
        ("rgb/9.png", np.zeros((24, 64, 3), np.uint8), "expected 64 x 48 .*yaml, got 64 x 24"),
        ("depth/11.png", np.zeros((48, 64), np.uint16), "each of 2 images, got 3; '11'"),
        ("camera_info.yaml", b"image_width: 64", "image_height"),
        ("camera_info.yaml", b"64", "expected a camera calibration"),
        (
            "camera_info.yaml",
            calibration(distortion_coefficients={"data": [-0.2, 0, 0, 0, 0]}).encode(),
            "expected rectified images",
        ),
        (
            "camera_info.yaml",
            calibration(camera_matrix={"data": [1, 0, 0, 0, 0, 0, 0, 0, 1]}).encode(),
            r"expected \[fx, 0, cx",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(folder, name, content, message):
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        cv2.imwrite(str(folder / name), content)
    with pytest.raises(FrameError, match=message) as error:
        list(open_frames(folder).views())
    assert str(folder) in str(error.value)


def test_a_missing_calibration_is_named(folder):
    (folder / "camera_info.yaml").unlink()
    with pytest.raises(FrameError, match=r"camera_info\.yaml"):
        open_frames(folder)


def test_an_array_with_objects_is_not_loaded(folder):
    (folder / "depth/9.png").unlink()
    np.save(folder / "depth/9.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(FrameError, match="got none"):
        list(open_frames(folder).views())
