"""What a street clip with exact tracks gives, be it drawn or pasted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS

SPECK = 3e-4
"""Share of the frame (41 pixels of 480 x 288) below which the visible part of an object is labelled
as void, as annotators of real data do with what they cannot make out."""


@dataclass(frozen=True)
class StreetFrame:
    """One frame and its truth; all maps have the size of the clip."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    semantic: NDArray[np.uint8]
    """[H, W] class id of the street model (0 road .. 10 vehicle); `NO_CLASS` on specks."""
    instance: NDArray[np.uint16]
    """[H, W] track id of person, cyclist or vehicle; 0 for stuff. An object keeps its id for life,
    also while it is out of sight."""


class StreetClip(Protocol):
    """A clip without end whose frames may be asked for in any order."""

    fps: float

    def frame(self, t: int) -> StreetFrame:
        """Frame number t >= 0; the same number gives the same pixels."""
        ...


def without_specks(
    semantic: NDArray[np.uint8], instance: NDArray[np.uint16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The labels with objects of fewer visible pixels than `SPECK` made void, in place."""
    sizes = np.bincount(instance.ravel())
    small = sizes < SPECK * instance.size
    small[0] = False
    specks = small[instance]
    semantic[specks], instance[specks] = NO_CLASS, 0
    return semantic, instance
