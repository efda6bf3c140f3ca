"""Where frames come from: a video file, a folder of images (with depth images or without), a webcam
or the synthetic street.

    for image, stamp in open_frames("drive.mp4"):
        ...

Each source gives RGB uint8 [H, W, 3] and a stamp in nanoseconds, and starts from its first frame
each time it is iterated. Stamps of a video file are the times in the file, from 0 on; those of
images and streets count from 0 by the frame rate; those of a webcam are the wall clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from ..image_files import IMAGE_SUFFIXES, FrameError, is_image, read_image, to_rgb
from ..natural_order import natural_order
from ..output_files import expanded
from . import depth_files
from .frame_source import DEFAULT_FPS, Frame, FrameSource, Intrinsics, View

if TYPE_CHECKING:
    from synthetic_street import SyntheticStreet


def open_frames(source: str | Path, fps: float = DEFAULT_FPS) -> FrameSource:
    """Open a video file, a folder of images, a webcam by its index ("0"), or "synthetic"
    ("synthetic:7" for the street of seed 7); FrameError if it cannot be read.

    `fps` is the frame rate of image folders and of the synthetic street.
    """
    if not 0 < fps < math.inf:
        raise FrameError(f"expected a frame rate above 0, got {fps}")
    path, name = expanded(source), str(source)
    try:
        if path.is_dir():
            is_rgbd = depth_files.is_rgbd_folder(path)
            return RgbdFolder(path, fps) if is_rgbd else ImageFolder(path, fps)
        if path.exists():  # a file, a pipe or /dev/stdin
            from .video_file import VideoFile

            return VideoFile(path)
    except ModuleNotFoundError as error:  # a robot with a camera needs neither PyAV nor natsort
        raise FrameError(
            f"{path}: needs the package {error.name}, see docs/how-to/install.md"
        ) from None
    if name.isdecimal() and len(name) < 10:
        return _Webcam(int(name))
    kind, _, seed = name.partition(":")
    if kind == "synthetic" and (name == kind or (seed.isdecimal() and len(seed) < 20)):
        return _SyntheticStreetFrames(int(seed or 0), fps)
    raise FrameError(
        f"no video {name!r}: neither a file, a folder, a webcam index nor 'synthetic[:seed]'"
    )


class ImageFolder(FrameSource):
    """The images of a folder by name, in natural order: 1, 2, 10."""

    def __init__(self, folder: Path, fps: float = DEFAULT_FPS) -> None:
        self.path, self.fps = folder, fps
        self.paths = natural_order(path for path in folder.iterdir() if is_image(path.name))
        if not self.paths:
            raise FrameError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.count = len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield read_image(path), _stamp(index, self.fps)


class RgbdFolder(ImageFolder):
    """The images of a folder with their depth.

    rgb/ (or color/, image/) has the images. depth/ has one file for each, either of the same name
    or in the same order: 16-bit PNG or TIFF in millimetres, or TIFF or .npy of 32-bit floats in
    metres. camera_info.yaml is the calibration as ROS writes it; the images must be rectified.

    FrameError if one of these is missing or does not fit.
    """

    def __init__(self, folder: Path, fps: float = DEFAULT_FPS) -> None:
        super().__init__(depth_files.find_images(folder), fps)
        self.path = folder
        self._depths = depth_files.find_depth(folder, self.paths)
        self._size, self.intrinsics = depth_files.read_calibration(folder / depth_files.CALIBRATION)

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        """Play from the start; FrameError if the sizes of images, depth and calibration differ."""
        for (image, stamp), path, depth_path in zip(self, self.paths, self._depths, strict=True):
            depth_files.expect_size(path, image, self._size, f"as in {depth_files.CALIBRATION}")
            depth = depth_files.read_depth(depth_path) if with_depth() else None
            if depth is not None:
                depth_files.expect_size(depth_path, depth, self._size, f"as {path}")
            yield View(image, stamp, depth)


class _Webcam(FrameSource):
    """A camera of this machine."""

    endless = True

    def __init__(self, index: int) -> None:
        self._index = index
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.fps = fps if 0 < fps < 1000 else 30.0

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self._index)
        if not capture.isOpened():
            raise FrameError(f"no webcam {self._index}")
        return capture

    def __iter__(self) -> Iterator[Frame]:
        capture = self._open()
        try:
            while True:
                more, image = capture.read()
                if not more:
                    raise FrameError(f"webcam {self._index} stopped giving images")
                yield to_rgb(image), time.time_ns()
        finally:
            capture.release()


class _SyntheticStreetFrames(FrameSource):
    """The synthetic street of one seed."""

    endless = True

    def __init__(self, seed: int, fps: float) -> None:
        self.seed, self.fps = seed, fps

    def __iter__(self) -> Iterator[Frame]:
        from synthetic_street import SyntheticStreet

        for index, frame in enumerate(SyntheticStreet(self.seed, fps=self.fps)):
            yield frame.image, _stamp(index, self.fps)

    @cached_property
    def _street(self) -> SyntheticStreet:
        from synthetic_street import SyntheticStreet

        return SyntheticStreet(self.seed, fps=self.fps, depth=True)

    @cached_property
    def intrinsics(self) -> Intrinsics:  # type: ignore[override]  # a street takes time to build
        return self._street.intrinsics

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        street = self._street
        for index in count():
            street.has_depth = with_depth()
            frame = street.frame(index)
            yield View(frame.image, _stamp(index, self.fps), frame.depth, street.pose(index))


def _stamp(index: int, fps: float) -> int:
    return round(index * 1e9 / fps)
