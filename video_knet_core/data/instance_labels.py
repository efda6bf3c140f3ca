"""Labels from the masks of objects, which may overlap, as YouTube-VIS and COCO have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..run_lengths import RunLengths
from ..types import NO_CLASS
from .video import DatasetError, InstanceMasks, Labels


@dataclass(frozen=True, slots=True)
class ObjectTrack:
    """One object of a video, as an index or results have it."""

    id: int
    class_id: int
    crowd: bool
    """Several objects without masks of their own."""
    score: float
    masks: Sequence[Any]
    """Of every frame: run lengths, polygons [V, 2], or None where the object is out of sight."""
    where: str
    """Place of `masks` in the file."""

    def run_lengths(self, position: int, size: tuple[int, int]) -> RunLengths | None:
        """The mask in one frame of `size`; DatasetError if it is malformed or of another size."""
        entry, where = self.masks[position], f"{self.where}.{position}"
        if entry is None:
            return None
        try:
            if isinstance(entry, list):
                return RunLengths.from_polygons(entry, size)
            runs = RunLengths.from_coco(entry)
        except (ValueError, TypeError, OverflowError) as error:
            raise DatasetError(f"{where}: {error}") from None
        if runs.size != size:
            raise DatasetError(f"{where}: expected a mask of {size} as its frame, got {runs.size}")
        return runs


def read_objects(
    objects: Sequence[ObjectTrack], size: tuple[int, int], _: str, position: int
) -> Labels:
    """Labels of one frame of `size`; a crowd has its class in `semantic` and is no instance.

    In the maps the smaller object is on top, and any object on a crowd.
    """
    runs = [(item, item.run_lengths(position, size)) for item in objects]
    found = [(item, mask.mask()) for item, mask in runs if mask is not None]
    shown = [(item, mask) for item, mask in found if mask.any()]
    semantic, instance = np.full(size, NO_CLASS, np.uint8), np.zeros(size, np.int64)
    for item, mask in sorted(shown, key=lambda part: (not part[0].crowd, -part[1].sum())):
        semantic[mask] = item.class_id
        instance[mask] = 0 if item.crowd else item.id
    kept = [(item, mask) for item, mask in shown if not item.crowd]
    masks = InstanceMasks(
        np.array([item.id for item, _ in kept], np.int64),
        np.array([item.class_id for item, _ in kept], np.int64),
        np.array([mask for _, mask in kept], bool).reshape(-1, *size),
    )
    empty = tuple(item.id for item, mask in found if not mask.any())
    return Labels(semantic, instance, masks, empty)


_UNUSED = (
    *("bbox", "bboxes", "area", "areas"),
    *("license", "flickr_url", "coco_url", "date_captured"),
)
"""Keys of official files."""


def keep_masks(entry: dict) -> dict:
    """For `load_index`: an object without what is not needed, and with run lengths (i32) and
    polygons ([V, 2] f32) as arrays, which take a tenth of the memory of lists.

    Malformed ones stay as they are, and are reported when the mask is read.
    """
    for key in _UNUSED:
        entry.pop(key, None)
    if isinstance(entry.get("counts"), list):
        entry["counts"] = _run_array(entry["counts"])
    if isinstance(entry.get("segmentation"), list):
        entry["segmentation"] = [_polygon_array(part) for part in entry["segmentation"]]
    return entry


def _run_array(counts: list) -> Any:
    try:
        numbers = np.array(counts)
    except (ValueError, OverflowError):
        return counts
    if numbers.dtype.kind != "i" or (numbers != numbers.astype(np.int32)).any():
        return counts
    return numbers.astype(np.int32)


def _polygon_array(part: Any) -> Any:
    try:
        return np.array(part, np.float32).reshape(-1, 2)
    except (ValueError, TypeError):
        return part
