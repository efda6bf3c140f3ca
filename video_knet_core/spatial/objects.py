"""The tracked things of a frame in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class RangeSource(IntEnum):
    """What the range of an object in one frame is from; the values of TrackedObject.msg."""

    NONE = 0
    """Not measured: predicted from earlier frames."""
    DEPTH = 1
    CLOUD = 2
    GROUND = 3


OBJECT_DTYPE = np.dtype(
    [
        *(("track_id", np.int64), ("class_id", np.int64), ("state", np.int64)),
        ("score", np.float64),
        *(("position", np.float64, 3), ("position_covariance", np.float64, (3, 3))),
        *(("velocity", np.float64, 3), ("velocity_covariance", np.float64, (3, 3))),
        *(("box_center", np.float64, 3), ("size", np.float64, 3)),
        *(("source", np.int64), ("points", np.int64)),
        ("range", np.float64),
    ]
)
"""Rows of an `ObjectTable`: the fields of TrackedObject.msg, in metres and seconds."""


@dataclass(frozen=True)
class ObjectTable:
    """The objects of one frame that have a place; see msg/TrackedObject.msg for the fields."""

    rows: NDArray[np.void]
    """[n] of `OBJECT_DTYPE`, by track id."""
    frame_id: str
    """Of the axes."""
    ended: Sequence[int] = ()
    """Ids of tracks that were in the last table and are not in this one."""
    is_first: bool = False
    """No table of its tracker epoch and frame was before it."""
    camera_pose: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))
    """[4, 4] of the camera's optical frame in that frame."""

    def __len__(self) -> int:
        return len(self.rows)
