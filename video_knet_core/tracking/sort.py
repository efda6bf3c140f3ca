"""SORT (Bewley et al., "Simple online and realtime tracking", ICIP 2016), section 3.

Boxes are known again by where a Kalman filter of constant velocity expects them. Time is counted in
frames, as published: its noise is per frame and does not know how long a frame lasts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .association import Float, box_overlap
from .detections import ThingDetections
from .strategy import Association, Expected

LEAST_BOX_OVERLAP = 0.3
"""Least intersection over union of a box with where it is expected, as published."""
STEP = np.eye(7) + np.eye(7, k=4)
"""One frame: centre and area go on by their speeds; the shape has none."""
FIRST_NOISE = np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4])
"""Covariance of a new box: where it is is known, how it moves is not."""
MOTION_NOISE = np.diag([1.0, 1, 1, 1, 1e-2, 1e-2, 1e-4])
"""Covariance that a frame adds."""
BOX_NOISE = np.diag([1.0, 1, 10, 10])
"""Covariance of a seen box. All these values are those of the published program."""


class BoxFilter:
    """Kalman filter of a box: its centre x, y, area, width / height, and how fast the first three
    change, in pixels and frames. Boxes are x, y, width, height."""

    def __init__(self, box: NDArray[np.int64]) -> None:
        self._mean = np.concatenate([_measured(box), np.zeros(3)])
        self._covariance = FIRST_NOISE

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Where the box is expected."""
        x, y, area, aspect = self._mean[:4].tolist()
        width = math.sqrt(max(area * aspect, 0.0))
        height = area / width if width else 0.0
        return x - width / 2, y - height / 2, width, height

    def predict(self) -> None:
        """Go on by one frame. A box that would shrink to nothing keeps its size."""
        if self._mean[2] + self._mean[6] <= 0:
            self._mean[6] = 0.0
        self._mean = STEP @ self._mean
        self._covariance = STEP @ self._covariance @ STEP.T + MOTION_NOISE

    def update(self, box: NDArray[np.int64]) -> None:
        """Take the box that was seen in this frame."""
        seen = self._covariance[:, :4]
        gain = seen @ np.linalg.inv(seen[:4] + BOX_NOISE)
        self._mean = self._mean + gain @ (_measured(box) - self._mean[:4])
        self._covariance = self._covariance - gain @ seen.T


class SortAssociation(Association[BoxFilter]):
    """Overlap with the expected box.

    Pairs are made greedily by `Tracker`, the most overlapping first, where the published program
    looks for the best sum (Hungarian method). They differ only where two boxes both overlap two
    tracks. Births and deaths are those of `Tracker` as well; theirs are stricter.
    """

    def observe(self, detections: ThingDetections) -> None:
        """Move all boxes on by a frame."""
        for cue in self.cues.values():
            cue.predict()

    def compare(
        self, detections: ThingDetections, expected: Expected
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Only where the filters expect the tracks counts."""
        boxes = np.array([self.cues[track_id].box for track_id in expected.ids])
        overlap = box_overlap(detections.regions.boxes, boxes)
        return overlap, overlap >= LEAST_BOX_OVERLAP

    def remember(self, track_id: int, detections: ThingDetections, i: int) -> None:
        """Let the filter of the track see the box of detection i."""
        box = detections.regions.boxes[i]
        if track_id in self.cues:
            self.cues[track_id].update(box)
        else:
            self.cues[track_id] = BoxFilter(box)


def _measured(box: NDArray[np.int64]) -> NDArray[np.float64]:
    x, y, width, height = box.tolist()
    return np.array([x + width / 2, y + height / 2, width * height, width / height])
