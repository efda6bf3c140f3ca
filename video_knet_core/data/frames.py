"""Where frames come from: a video file, a folder of images, a webcam or the synthetic street.

    for image, stamp in open_frames("drive.mp4"):
        ...

Each source gives RGB uint8 [H, W, 3] and a stamp in nanoseconds, and starts anew each time it is
iterated. Recorded sources count stamps from 0 by their frame rate; a webcam gives the wall clock.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

Frame = tuple[NDArray[np.uint8], int]
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
DEFAULT_FPS = 10.0
"""Of sources that have no rate of their own: image folders and the synthetic street."""


class FrameError(ValueError):
    """A source that is missing or cannot be read; the message names it."""


class FrameSource(Protocol):
    """Frames in order, with stamps."""

    fps: float
    count: int | None
    """Number of frames, as far as it is known beforehand."""

    def __iter__(self) -> Iterator[Frame]:
        """Play from the start; FrameError when a frame cannot be read."""
        ...


def open_frames(source: str | Path, fps: float = DEFAULT_FPS) -> FrameSource:
    """Open the source that `source` names.

    Args:
        source: a video file, a folder of images, the index of a webcam ("0"), or "synthetic"
            ("synthetic:7" for the street of seed 7).
        fps: frame rate of image folders and of the synthetic street.

    Raises:
        FrameError: there is no such source, or it cannot be read.
    """
    if not fps > 0:
        raise FrameError(f"the frame rate must be above 0, found {fps}")
    path, name = Path(source), str(source)
    if path.is_dir():
        return ImageFolder(path, fps)
    if path.is_file():
        return VideoFile(path)
    if name.isdecimal():
        return Webcam(int(name))
    kind, _, seed = name.partition(":")
    if kind == "synthetic" and (seed.isdecimal() or name == kind):
        return SyntheticFrames(int(seed or 0), fps)
    raise FrameError(
        f"no video {name!r}: neither a file, a folder, a webcam index nor 'synthetic[:seed]'"
    )


class VideoFile:
    """A file that OpenCV can decode."""

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        self.fps: float = fps if 0 < fps < 1000 else DEFAULT_FPS
        self.count = count if count > 0 else None

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened() or not capture.grab():
            raise FrameError(f"{self._path} is not a video that OpenCV can read")
        capture.release()
        return cv2.VideoCapture(str(self._path))

    def __iter__(self) -> Iterator[Frame]:
        capture = self._open()
        try:
            for index in itertools.count():
                more, image = capture.read()
                if not more:
                    break
                yield _rgb(image), _stamp(index, self.fps)
        finally:
            capture.release()
        if self.count and index < self.count:  # a damaged file, or a count that was an estimate
            _log.warning("%s: only %d of %d frames can be read", self._path, index, self.count)


class ImageFolder:
    """The images of a folder, by name."""

    def __init__(self, folder: Path, fps: float = DEFAULT_FPS) -> None:
        self.fps = fps
        self.paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.paths:
            raise FrameError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.count: int | None = len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            yield read_image(path), _stamp(index, self.fps)


class Webcam:
    """A camera of this machine; it never ends."""

    def __init__(self, index: int) -> None:
        self._index = index
        self.count: int | None = None
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        self.fps: float = fps if 0 < fps < 1000 else 30.0

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
                yield _rgb(image), time.time_ns()
        finally:
            capture.release()


@dataclass
class SyntheticFrames:
    """The synthetic street of one seed; it never ends."""

    seed: int
    fps: float = DEFAULT_FPS
    count: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        from .synthetic_street import SyntheticStreet

        street = SyntheticStreet(self.seed, fps=self.fps)
        for index in itertools.count():
            yield street.frame(index).image, _stamp(index, self.fps)


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]; FrameError if the file is not an image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FrameError(f"{path} is not an image that OpenCV can read")
    return _rgb(image)


def _rgb(image: NDArray) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _stamp(index: int, fps: float) -> int:
    return round(index * 1e9 / fps)
