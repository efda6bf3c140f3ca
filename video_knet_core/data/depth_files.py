"""The files of an RGB-D folder: which depth image belongs to which image, and their camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError, parse_yaml
from ..image_files import FrameError, is_image, read_pixels
from ..natural_order import is_hidden, natural_order
from .frame_source import Intrinsics

IMAGES = ("rgb", "color", "image")
"""Names of the folder of images; the first one that is there is taken."""
DEPTH = "depth"
CALIBRATION = "camera_info.yaml"


def is_rgbd_folder(folder: Path) -> bool:
    """Whether a folder holds one of images and one of depth images."""
    return (folder / DEPTH).is_dir() and any((folder / name).is_dir() for name in IMAGES)


def find_images(folder: Path) -> Path:
    """The folder of images in a folder that `is_rgbd_folder`."""
    return next(folder / name for name in IMAGES if (folder / name).is_dir())


def find_depth(folder: Path, images: Sequence[Path]) -> list[Path]:
    """Depth files of `images`; FrameError unless there is one for each."""
    names = {path.stem for path in images}
    files = natural_order(path for path in (folder / DEPTH).iterdir() if _is_depth(path.name))
    by_name = {path.stem: path for path in files}
    if by_name.keys() == names:
        files = [by_name[path.stem] for path in images]
    if len(files) != len(images):
        single = min(by_name.keys() ^ names)
        raise FrameError(
            f"{folder / DEPTH}: expected a depth image for each of {len(images)} images, "
            f"got {len(files)}; {single!r} is the first name without another"
        )
    return files


def _is_depth(name: str) -> bool:
    return is_image(name) or (name.endswith(".npy") and not is_hidden(name))


def read_depth(path: Path) -> NDArray[np.float32]:
    """[H, W] metres, 0 = unknown; FrameError if the file is no depth image."""
    pixels = _read_array(path) if path.suffix == ".npy" else read_pixels(path, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
        got = "none" if pixels is None else f"{pixels.dtype} of the shape {pixels.shape}"
        raise FrameError(
            f"{path}: expected a depth image of 16 bits [mm] or 32-bit floats [m], got {got}"
        )
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) * np.float32(1e-3)
    return np.where(np.isfinite(pixels) & (pixels > 0), pixels, np.float32(0))


def _read_array(path: Path) -> NDArray | None:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def expect_size(path: Path, pixels: NDArray, size: tuple[int, ...], reason: str) -> None:
    """FrameError unless pixels [H, W, ...] have this size (H, W)."""
    if pixels.shape[:2] != size:
        height, width = pixels.shape[:2]
        raise FrameError(f"{path}: expected {size[1]} x {size[0]} {reason}, got {width} x {height}")


def read_calibration(path: Path) -> tuple[tuple[int, int], Intrinsics]:
    """Height and width, and the camera of them, by a calibration file of ROS.

    Of it image_width, image_height and camera_matrix are used. FrameError if the file cannot be
    read, or has a distortion.
    """
    try:
        content = parse_yaml(path.read_bytes())
        matrix = _numbers(content["camera_matrix"]["data"])
        distortion = _numbers(content.get("distortion_coefficients", {}).get("data", []))
        size = int(content["image_height"]), int(content["image_width"])
    except (OSError, ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FrameError(
            f"{path}: expected a camera calibration of ROS with image_width, image_height and "
            f"camera_matrix, got {error!r}"
        ) from None
    if any(distortion):
        raise FrameError(
            f"{path}: expected rectified images, without distortion, got distortion_coefficients "
            f"{distortion}: rectify the images, and set the distortion to 0"
        )
    if len(matrix) != 9 or min(matrix[0], matrix[4]) <= 0 or matrix[1] or matrix[3]:
        raise FrameError(
            f"{path}: camera_matrix: expected [fx, 0, cx, 0, fy, cy, 0, 0, 1], got {matrix}"
        )
    return size, Intrinsics(fx=matrix[0], fy=matrix[4], cx=matrix[2], cy=matrix[5])


def _numbers(values: Any) -> list[float]:
    """ValueError or TypeError unless they are finite numbers."""
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"numbers {numbers}")
    return numbers
