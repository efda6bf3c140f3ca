"""A few frames with their overlay, evenly spread over a recording of any length."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...types import ClassTable, PanopticFrame
from ...visualize import overlay
from ..camera import Processed

LARGEST = 960
"""Pixels of the longer side."""
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A frame with its overlay."""

    number: int
    seconds: float
    """Of the recording."""
    jpeg: NDArray[np.uint8]
    width: int
    height: int
    things: dict[str, int]
    """Instances by class name."""
    tracks: tuple[tuple[int, int], ...]
    """Epoch and track id of those that are to be seen."""


class Pictures:
    """Every n-th frame is kept; whenever there are too many, every second goes, and n doubles.

    Args:
        most: pictures; at least half as many are there, if there are frames.
        classes: of the model.
    """

    def __init__(self, most: int, classes: ClassTable) -> None:
        self._most, self._classes = most, classes
        self._every = 1
        self.kept: list[Picture] = []
        """In the order of the frames."""

    def add(self, seconds: float, result: Processed) -> None:
        """Keep a frame if it is its turn."""
        if result.number % self._every:
            return
        self.kept.append(_picture(seconds, result, self._classes))
        if len(self.kept) > self._most:
            self.kept = self.kept[::2]
            self._every *= 2

    def showing(self, epoch: int, track_id: int) -> Picture | None:
        """The first one with a track; None if there is none."""
        name = epoch, track_id
        return next((picture for picture in self.kept if name in picture.tracks), None)

    def nearest(self, seconds: float) -> Picture:
        """The one that is nearest to a time; there is one as soon as there is a frame."""
        return min(self.kept, key=lambda picture: abs(picture.seconds - seconds))

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"every": self._every, "kept": [astuple(picture) for picture in self.kept]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where others were."""
        self._every = state["every"]
        self.kept = [Picture(*row) for row in state["kept"]]


def _picture(seconds: float, result: Processed, classes: ClassTable) -> Picture:
    drawn = overlay(result.image, result.frame, classes)
    scale = min(LARGEST / max(drawn.shape[:2]), 1.0)
    width, height = (max(round(side * scale), 1) for side in (drawn.shape[1], drawn.shape[0]))
    small = cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
    things = _things(result.frame, classes)
    pixels, frame = np.asarray(jpeg, np.uint8).ravel(), result.frame
    tracks = tuple((frame.epoch, t.track_id) for t in frame.tracks if t.track_id and t.label)
    return Picture(result.number, seconds, pixels, width, height, things, tracks)


def _things(frame: PanopticFrame, classes: ClassTable) -> dict[str, int]:
    visible = (track.class_id for track in frame.tracks if track.is_thing and track.label)
    return {classes[class_id].name: count for class_id, count in sorted(Counter(visible).items())}
