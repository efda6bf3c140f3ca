"""The tracker of Motion-DeepLab: tracks continue where the motion offsets lead.

Weber et al., "STEP", NeurIPS 2021, section 4, and `post_processor/motion_deeplab.py` of
google-research/deeplab2. As there, each segment has a track at once, and life is counted in frames.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from video_knet_core.config_io import ConfigError, settings_class
from video_knet_core.tracking.clock import StreamTime
from video_knet_core.tracking.tracker import Ids, Tracker, TrackerSettings, register
from video_knet_core.types import Detections

COLUMNS = 4
"""Of the embeddings, see `motion_deeplab.MotionDeepLab`."""


KEPT_FRAMES = 7
"""Frames that a track lives: that of its last segment, and those after it."""


@register
class MotionOffsetTracker(Tracker[TrackerSettings]):
    """Greedy by descending score: a segment continues the track of its class whose last centre is
    nearest to where its motion offset leads, if that is within the track's radius.

    The radius is the square root of the area of the last box of the track. A segment whose nearest
    track is too far away starts a new one.
    """

    any_network = False

    @settings_class
    class Settings(TrackerSettings):
        tracker: ClassVar[str] = "motion_offsets"

    def reset(self) -> None:
        """Remove all tracks; new ids continue the count."""
        super().reset()
        self._centers: dict[int, NDArray[np.float64]] = {}
        """x, y of the last centre of each living track, in pixels of the image."""
        self._ages: dict[int, int] = {}
        """Frames since, that one included."""

    def assign(self, detections: Detections, now: StreamTime) -> Ids:
        """See `Tracker.assign`; ConfigError if the network gives no motion offsets."""
        centers, before = _places(detections)
        ids = np.zeros(len(detections), np.int64)
        free = np.ones(len(self.tracks), bool)
        for i in np.argsort(-detections.scores, kind="stable").tolist():
            found = self._nearest(before[i], int(detections.class_ids[i]), free)
            if found is not None:
                free[found] = False
                ids[i] = self.tracks["row"]["track_id"][found]
            else:
                ids[i] = self.new_ids(1)[0]
        seen = dict(zip(ids.tolist(), centers, strict=True))
        self._centers = self._centers | seen
        self._ages = {i: 1 if i in seen else self._ages[i] + 1 for i in self._centers}
        return ids

    def _nearest(
        self, place: NDArray[np.float64], class_id: int, free: NDArray[np.bool_]
    ) -> int | None:
        """Row in `tracks`; None = there is none of the class, or it is too far away."""
        rows = self.tracks["row"]
        possible = np.flatnonzero(free & (rows["class_id"] == class_id))
        if not len(possible):
            return None
        last = np.stack([self._centers[i] for i in rows["track_id"][possible].tolist()])
        distance = ((last - place) ** 2).sum(axis=1)
        nearest = int(distance.argmin())
        row = int(possible[nearest])
        return row if distance[nearest] < rows["box"][row, 2:].prod() else None

    def alive(self, now: StreamTime) -> NDArray[np.bool_]:
        """See `Tracker.alive`."""
        ages = [self._ages[i] for i in self.tracks["row"]["track_id"].tolist()]
        return np.array(ages, np.int64) < KEPT_FRAMES

    def forget(self, ids: tuple[int, ...]) -> None:
        """See `Tracker.forget`."""
        self._centers = {i: c for i, c in self._centers.items() if i not in ids}
        self._ages = {i: a for i, a in self._ages.items() if i not in ids}


def _places(detections: Detections) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N, 2] x, y of the centres, and [N, 2] of their previous ones, in pixels of the image."""
    cues = detections.embeddings
    if cues.shape[1] != COLUMNS:
        raise ConfigError(
            f"tracker 'motion_offsets': expected embeddings of {COLUMNS} columns, those of a "
            f"motion_deeplab, got {cues.shape[1]}"
        )
    height, width = detections.image_size
    centers, motion = (cues[:, k : k + 2].astype(np.float64) * (width, height) for k in (0, 2))
    return centers, centers + motion
