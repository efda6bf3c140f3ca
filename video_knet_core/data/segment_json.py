"""The COCO panoptic form: a PNG whose colours are segment ids, and an index of what they are.

Kirillov et al., "Panoptic Segmentation", 2019; the files are described at cocodataset.org.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .json_index import need
from .label_png import read_rgb, segment_ids, value_ranges
from .video import DatasetError, Labels

Segments = NDArray[np.int64]
"""[S, 3] of one frame: segment id, class id, 1 for a crowd."""


def keep_segment(entry: dict) -> dict:
    """For `load_json`: a segment without its box and area, of which a large index is full."""
    if "segments_info" in entry or "category_id" not in entry:
        return entry
    return {key: entry[key] for key in ("id", "category_id", "iscrowd") if key in entry}


def parse_segments(annotation: dict, classes: Mapping[int, int], where: str) -> Segments:
    """The segments of one annotation; `classes` has the class id of each category.

    Raises:
        DatasetError: a key is missing, or a category is beyond the table.
    """
    rows = []
    for number, entry in enumerate(need(annotation, "segments_info", list, where)):
        here = f"{where}, segment {number}"
        category = need(entry, "category_id", int, here)
        if category not in classes:
            wanted = value_ranges(np.array(sorted(classes)))
            raise DatasetError(f"{here}: category_id must be {wanted}, found {category}")
        segment = need(entry, "id", int, here)
        if not 0 <= segment < 1 << 24:
            raise DatasetError(f"{here}: id must be 0..{(1 << 24) - 1}, got {segment}")
        rows.append((segment, classes[category], bool(entry.get("iscrowd", 0))))
    return np.array(rows, np.int64).reshape(-1, 3)


def read_segments(path: str | Path, segments: Segments, things: frozenset[int]) -> Labels:
    """Labels of one frame; a thing keeps its segment id, stuff, void and crowds have 0.

    Raises:
        DatasetError: the PNG is unreadable, or has an id that `segments` does not list.
    """
    values = segment_ids(read_rgb(path))
    ids, positions = np.unique(values, return_inverse=True)
    positions = positions.reshape(values.shape)  # numpy 1 gives it flat
    listed = {int(i): (int(category), bool(crowd)) for i, category, crowd in segments}
    unknown = set(ids.tolist()) - listed.keys() - {0}
    if unknown:
        raise DatasetError(
            f"{path}: segment ids must be those of its index, found {min(unknown)}, wanted one of "
            f"{sorted(listed)[:20]}"
        )
    listed[0] = (NO_CLASS, True)
    classes = np.array([listed[i][0] for i in ids.tolist()], np.uint8)
    kept = [listed[i][0] in things and not listed[i][1] for i in ids.tolist()]
    empty = tuple(sorted(listed.keys() - set(ids.tolist()) - {0}))
    return Labels(classes[positions], np.where(kept, ids, 0)[positions], None, empty)
