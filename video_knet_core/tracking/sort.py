"""SORT (Bewley et al., "Simple online and realtime tracking", ICIP 2016), section 3.

Boxes are recognised by where a Kalman filter of constant velocity expects them. Time is counted in
frames, as published: its noise is per frame, however long a frame lasts.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..config_io import settings_class
from ..geometry import box_overlap
from ..types import Detections
from .embedding import Expected, LifecycleSettings, LifecycleTracker, Ranking
from .tracker import register

MIN_BOX_OVERLAP = 0.3
"""Minimum intersection over union of a box with the expected one, as published."""
STEP = np.eye(7) + np.eye(7, k=4)
"""One frame: centre and area continue by their speeds; the shape has none."""
FIRST_NOISE = np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4])
"""Covariance of a new box: where it is is known, how it moves is not."""
MOTION_NOISE = np.diag([1.0, 1, 1, 1, 1e-2, 1e-2, 1e-4])
"""Covariance that a frame adds."""
BOX_NOISE = np.diag([1.0, 1, 10, 10])
"""Covariance of a seen box. All these values are those of the published program."""

_BoxState = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Kalman state of a box: mean [7] of its centre x, y, area, width / height, and the change of the
first three per frame, in pixels; covariance [7, 7]."""


@register
class _SortTracker(LifecycleTracker):
    """Overlap with the expected box.

    Pairs are made greedily, the most overlapping first, where the published program looks for the
    best sum (Hungarian method). They differ only where two boxes both overlap two tracks. Births
    and deaths are those of `LifecycleTracker` as well; theirs are stricter.
    """

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "sort"

    def describe(self, detections: Detections) -> list[_BoxState]:
        """New filters, one for each box; those of the tracks go on to this frame."""
        self.cues = {track_id: _predict(state) for track_id, state in self.cues.items()}
        still = np.zeros(3)
        measured = map(_measured, detections.regions.boxes)
        return [(np.concatenate([box, still]), FIRST_NOISE) for box in measured]

    def compare(self, detections: Detections, cues: list[_BoxState], expected: Expected) -> Ranking:
        """Only the boxes that the filters predict are used."""
        boxes = np.array([_box_of(state) for state in expected.cues])
        overlap = box_overlap(detections.regions.boxes, boxes)
        return overlap, overlap >= MIN_BOX_OVERLAP

    def blend(self, previous: _BoxState, cue: _BoxState) -> _BoxState:
        """The filter of the track, corrected by the box of this frame."""
        mean, covariance = previous
        seen = covariance[:, :4]
        gain = seen @ np.linalg.inv(seen[:4] + BOX_NOISE)
        return mean + gain @ (cue[0][:4] - mean[:4]), covariance - gain @ seen.T


def _predict(state: _BoxState) -> _BoxState:
    """The state one frame later. A box that would shrink to nothing keeps its size."""
    mean, covariance = state[0].copy(), state[1]
    if mean[2] + mean[6] <= 0:
        mean[6] = 0.0
    return STEP @ mean, STEP @ covariance @ STEP.T + MOTION_NOISE


def _box_of(state: _BoxState) -> tuple[float, float, float, float]:
    """x, y, width, height of a state."""
    x, y, area, aspect = state[0][:4].tolist()
    width = math.sqrt(max(area * aspect, 0.0))
    height = area / width if width else 0.0
    return x - width / 2, y - height / 2, width, height


def _measured(box: NDArray[np.int64]) -> NDArray[np.float64]:
    x, y, width, height = box.tolist()
    return np.array([x + width / 2, y + height / 2, width * height, width / height])
