"""What a tracker knows of a track, and the rows that others see of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..types import Track, TrackState
from .clock import StreamTime
from .detections import Segment

VELOCITY_MOMENTUM = 0.5
"""Weight of the newest displacement in the velocity of a track."""
UNKNOWN = (math.nan, math.nan)
"""Velocity of a track seen only once, or whose images have no times."""


@dataclass(frozen=True)
class Tracked:
    """What the tracker makes of the N detections of one frame."""

    visible: tuple[Track, ...]
    """N rows by track id, labels counting up; then, with track id 0, the segments without a
    track: too uncertain to start one, or (quasi-dense) duplicates."""
    detection_of: NDArray[np.int64]
    """[N] the detection of each visible row."""
    coasted: tuple[Track, ...]
    """Confirmed tracks without pixels in this frame, by id."""
    born: tuple[int, ...]
    """Ids first given in this frame."""
    ended: tuple[int, ...]


@dataclass
class History:
    """One track, as it was when last seen."""

    id: int
    first_seen: int
    last_seen: int = 0
    """Stamps; for differences there is `seen_at`."""
    seen_at: StreamTime = field(init=False)
    segment: Segment = field(init=False)
    velocity: tuple[float, float] = UNKNOWN
    score_sum: float = 0.0
    age: int = 0
    confirmed: bool = True
    visible: bool = True

    @property
    def class_id(self) -> int:
        """Class of the newest segment."""
        return self.segment.class_id

    def see(self, segment: Segment, stamp: int, time: StreamTime) -> None:
        """Take the segment of a frame into the track."""
        if self.age:
            self.velocity = self._velocity(segment.centroid, time)
        self.segment = segment
        self.score_sum += segment.score
        self.last_seen = stamp
        self.seen_at = time
        self.age += 1
        self.visible = True

    def row(self, label: int) -> Track:
        """The track as others see it; without pixels its state is coasted and its area 0."""
        seen = TrackState.CONFIRMED if self.confirmed else TrackState.TENTATIVE
        return Track(
            label=label,
            track_id=self.id,
            class_id=self.class_id,
            is_thing=True,
            state=seen if self.visible else TrackState.COASTED,
            score=self.segment.score,
            track_score=self.score_sum / self.age,
            age=self.age,
            first_seen=self.first_seen,
            last_seen=self.last_seen,
            box=self.segment.box,
            centroid=self.segment.centroid,
            velocity=self.velocity,
            area=self.segment.area if self.visible else 0,
            truncated=self.segment.truncated,
        )

    def _velocity(self, centroid: tuple[float, float], now: StreamTime) -> tuple[float, float]:
        """Pixels per second, smoothed; unknown until the track was seen at two times."""
        seconds = now.seconds_since(self.seen_at)
        if math.isnan(seconds):
            return UNKNOWN
        if seconds <= 0:
            return self.velocity
        x, y = (
            (new - old) / seconds for new, old in zip(centroid, self.segment.centroid, strict=True)
        )
        weight = VELOCITY_MOMENTUM * now.certainty(seconds)
        if math.isnan(self.velocity[0]):
            return (x, y) if weight == VELOCITY_MOMENTUM else UNKNOWN
        return (
            weight * x + (1 - weight) * self.velocity[0],
            weight * y + (1 - weight) * self.velocity[1],
        )


def visible_rows(
    segments: Sequence[Segment], owners: Mapping[int, History], stamp: int, first_label: int
) -> tuple[tuple[Track, ...], NDArray[np.int64]]:
    """Rows of all N segments of a frame, and the detection of each: [N].

    Args:
        segments: the segments of the frame.
        owners: the track of a detection, which has seen its segment; the others have track id 0.
        stamp: nanoseconds.
        first_label: label of the first row; the others count up.
    """
    order = sorted(owners, key=lambda i: owners[i].id)
    order += [i for i in range(len(segments)) if i not in owners]
    histories = (owners[i] if i in owners else _untracked(segments[i], stamp) for i in order)
    rows = tuple(h.row(label) for label, h in enumerate(histories, start=first_label))
    return rows, np.array(order, np.int64)


def _untracked(segment: Segment, stamp: int) -> History:
    """A thing without an identity, seen in this frame alone."""
    history = History(0, first_seen=stamp, confirmed=False)
    history.see(segment, stamp, StreamTime(stamp))
    return history
