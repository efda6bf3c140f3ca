"""Where a track or a camera was: a little, however long it was there."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...spatial.objects import ObjectTable, RangeSource

MOST_POINTS = 64
"""Of a path, and the last one."""
PLACE_COLUMNS = (
    "frame_id",
    *(f"{which}_position_{axis}" for which in ("mean", "last") for axis in "xyz"),
    *("min_range", "mean_speed", "range_source"),
)
"""Of the table of tracks."""

Floats = NDArray[np.float64]


class ThinnedPath:
    """Every n-th point is kept; whenever there are more than `MOST_POINTS`, n doubles."""

    def __init__(self) -> None:
        self._every, self._count = 1, 0
        self._kept: list[Floats] = []
        self.last: Floats = np.full(3, np.nan)
        """[3] the newest point; NaN without any."""

    def add(self, point: Floats) -> None:
        """Take the next point [3]."""
        self.last = np.array(point, np.float64)
        if self._count % self._every == 0:
            self._kept.append(self.last)
        self._count += 1
        if len(self._kept) > MOST_POINTS:
            self._kept = self._kept[::2]
            self._every *= 2

    @property
    def points(self) -> Floats:
        """[n, 3] from the first to the last one."""
        newest = [] if self._kept and self._kept[-1] is self.last else [self.last]
        return np.array([*self._kept, *newest]) if self._count else np.zeros((0, 3))


@dataclass
class TrackPlaces:
    """The measured places of a track in one frame of reference."""

    frame_id: str
    """Of the axes."""
    path: ThinnedPath = field(default_factory=ThinnedPath)
    min_range: float = math.inf
    _frames: int = 0
    _position_sum: Floats = field(default_factory=lambda: np.zeros(3))
    _speeds: int = 0
    _speed_sum: float = 0.0
    _sources: Floats = field(default_factory=lambda: np.zeros(len(RangeSource)))

    def add(self, row: np.void) -> None:
        """Take a row of an `ObjectTable`."""
        self.path.add(row["position"])
        self.min_range = min(self.min_range, float(row["range"]))
        self._frames += 1
        self._position_sum += row["position"]
        self._sources[row["source"]] += 1
        speed = float(np.linalg.norm(row["velocity"]))
        if math.isfinite(speed):
            self._speeds += 1
            self._speed_sum += speed

    @property
    def source(self) -> RangeSource:
        """That of the most places."""
        return RangeSource(int(self._sources.argmax()))

    def columns(self) -> tuple[str | float | None, ...]:
        """The values of `PLACE_COLUMNS`, in metres and seconds; None for an unknown speed."""
        mean = self._position_sum / self._frames
        positions = [round(float(value), 3) for value in (*mean, *self.path.last)]
        speed = round(self._speed_sum / self._speeds, 3) if self._speeds else None
        source = self.source.name.lower()
        return self.frame_id, *positions, round(self.min_range, 3), speed, source


@dataclass
class CameraPlaces:
    """The places of a camera in the frame of its objects."""

    frame_id: str
    is_optical: bool
    """The frame is that of the camera: x right, y down, z ahead; else x ahead, y left, z up."""
    path: ThinnedPath = field(default_factory=ThinnedPath)
    ahead: Floats = field(default_factory=lambda: np.zeros(3))
    """[3] where it looks, at last."""

    def add(self, table: ObjectTable) -> None:
        """Take the table of a frame."""
        self.path.add(table.camera_pose[:3, 3])
        self.ahead = table.camera_pose[:3, 2]

    def seen_from_above(self, points: Floats) -> Floats:
        """[..., 2] how far to the right (optical) or left, and how far ahead, [..., 3] is."""
        return points[..., [0, 2] if self.is_optical else [1, 0]]

    @property
    def stands_still(self) -> bool:
        """It moved less than half a metre in the frame."""
        return bool(np.ptp(self.path.points, axis=0).max(initial=0.0) < 0.5)
