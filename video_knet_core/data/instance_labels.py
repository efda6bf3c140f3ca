"""Labels from the masks of objects, which may overlap, as YouTube-VIS and COCO have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run_lengths import RunLengths
from ..types import NO_CLASS
from .video import DatasetError, InstanceMasks, Labels


@dataclass(frozen=True)
class ObjectMask:
    """One object in one frame."""

    id: int
    class_id: int
    crowd: bool
    """Several objects without masks of their own."""
    mask: NDArray[np.bool_]
    """[H, W]"""


def labels_of(objects: Sequence[ObjectMask], size: tuple[int, int]) -> Labels:
    """Labels of one frame of `size`; a crowd has its class in `semantic` and is no instance.

    In the maps the smaller object is on top, and any object on a crowd.
    """
    shown = [item for item in objects if item.mask.any()]
    semantic, instance = np.full(size, NO_CLASS, np.uint8), np.zeros(size, np.int64)
    for item in sorted(shown, key=lambda item: (not item.crowd, -item.mask.sum())):
        semantic[item.mask] = item.class_id
        instance[item.mask] = 0 if item.crowd else item.id
    kept = [item for item in shown if not item.crowd]
    masks = InstanceMasks(
        np.array([item.id for item in kept], np.int64),
        np.array([item.class_id for item in kept], np.int64),
        np.array([item.mask for item in kept], bool).reshape(-1, *size),
    )
    empty = tuple(item.id for item in objects if not item.mask.any())
    return Labels(semantic, instance, masks, empty)


def run_lengths(entry: Any, size: tuple[int, int], where: str) -> RunLengths | None:
    """A mask from its entry in an official file, where null is None.

    Raises:
        DatasetError: it is malformed, or not of `size`; `where` is the place of the entry.
    """
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: expected run lengths or null, got {entry!r:.80}")
    try:
        runs = RunLengths.from_coco(entry)
    except (ValueError, TypeError, OverflowError) as error:
        raise DatasetError(f"{where}: {error}") from None
    if runs.size != size:
        raise DatasetError(f"{where}: expected a mask of {size} as its frame, got {runs.size}")
    return runs


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
