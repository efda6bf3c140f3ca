"""What a street clip with exact tracks gives, be it drawn or pasted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..config_io import ConfigError
from ..types import NO_CLASS, ClassTable, plain_name
from .video import InstanceMasks

STREET_CLASSES = [
    *("road", "sidewalk", "building", "fence", "pole", "sign", "vegetation", "sky"),
    *("person", "cyclist", "vehicle"),
]
"""Names of the classes 0..10 of the street model, of CamVid and of the synthetic street."""
STREET_THINGS = ("person", "cyclist", "vehicle")

SPECK = 3e-4
"""Share of the frame (41 pixels of 480 x 288) below which the visible part of an object is labelled
as void, as annotators of real data do with what they cannot make out."""


@dataclass(frozen=True)
class StreetFrame:
    """One frame and its truth; all maps have the size of the clip."""

    image: NDArray[np.uint8]
    """[H, W, 3] RGB."""
    semantic: NDArray[np.uint8]
    """[H, W] class id of the street model, see `STREET_CLASSES`; `NO_CLASS` on specks."""
    instance: NDArray[np.uint16]
    """[H, W] track id of person, cyclist or vehicle; 0 for stuff. An object keeps its id for life,
    also while it is out of sight."""
    masks: InstanceMasks | None = None
    """None: what is hidden is nobody's, so masks do not overlap."""

    def relabelled(self, ids: NDArray[np.uint8]) -> StreetFrame:
        """With other class ids; see `street_ids`."""
        return replace(self, semantic=ids[self.semantic])


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


def street_ids(classes: ClassTable, asked_by: str) -> NDArray[np.uint8]:
    """[256] class id in `classes` of each street class of the same name, `NO_CLASS` of others.

    Raises:
        ConfigError: the street has not all of `classes`, or one is a thing here and stuff there
            (where all are stuff, as in task semantic, kinds do not count); says who asked for them.
    """
    unknown = [info.name for info in classes if plain_name(info.name) not in STREET_CLASSES]
    if unknown:
        raise ConfigError(f"{asked_by}: classes must be of {STREET_CLASSES}, got {unknown}")
    ids = np.full(NO_CLASS + 1, NO_CLASS, np.uint8)
    for info in classes:
        name = plain_name(info.name)
        if classes.things and info.is_thing != (name in STREET_THINGS):
            expected = "stuff" if info.is_thing else "a thing"
            raise ConfigError(f"{asked_by}: {info.name!r} must be {expected}, as in the street")
        ids[STREET_CLASSES.index(name)] = info.id
    return ids
