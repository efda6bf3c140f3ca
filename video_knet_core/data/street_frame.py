"""Frames of street clips with exact tracks, rendered or pasted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS

STREET_CLASSES = [
    *("road", "sidewalk", "building", "fence", "pole", "sign", "vegetation", "sky"),
    *("person", "cyclist", "vehicle"),
]
"""Names of the classes 0..10 of the street model, of CamVid and of the synthetic street."""
STREET_THINGS = ("person", "cyclist", "vehicle")

MIN_VISIBLE = 3e-4
"""Fraction of the frame (41 pixels of 480 x 288) below which the visible part of an object is
labelled void, as annotators of real data do with what they cannot make out."""


@dataclass(frozen=True)
class StreetFrame:
    """One frame and its truth; all maps have the size of the clip."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    semantic: NDArray[np.uint8]
    """[H, W] class id of the street model, see `STREET_CLASSES`; `NO_CLASS` on small objects."""
    instance: NDArray[np.uint16]
    """[H, W] track id of person, cyclist or vehicle; 0 for stuff. An object keeps its id for life,
    also while it is out of sight."""
    masks: None = None
    """Masks do not overlap: what is hidden belongs to no object."""
    boxes: None = None
    """Boxes are those of the masks."""
    depth: NDArray[np.float32] | None = None
    """[H, W] metres along the optical axis; 0 = infinitely far. None = not rendered."""

    def relabelled(self, ids: NDArray[np.uint8]) -> StreetFrame:
        """With the class ids `ids` [256] instead."""
        return replace(self, semantic=ids[self.semantic])


class StreetClip(Protocol):
    """A clip without end whose frames may be requested in any order."""

    fps: float

    def frame(self, t: int) -> StreetFrame:
        """Frame number t >= 0; the same number gives the same pixels."""
        ...


def drop_small_objects(
    semantic: NDArray[np.uint8], instance: NDArray[np.uint16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Make objects smaller than `MIN_VISIBLE` void, in place; returns the labels."""
    sizes = np.bincount(instance.ravel())
    small = sizes < MIN_VISIBLE * instance.size
    small[0] = False
    void = small[instance]
    semantic[void], instance[void] = NO_CLASS, 0
    return semantic, instance
