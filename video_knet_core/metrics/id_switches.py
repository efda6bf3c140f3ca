"""Id switches: how often a true object gets another track id while it stays in sight."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .overlaps import OverlapMetric, Overlaps


@dataclass
class _Video:
    """The track ids that were found for objects, one list for each visibility segment."""

    seen: dict[int, list[int]] = field(default_factory=dict)
    """By true id, of the objects in the newest frame."""
    finished: list[list[int]] = field(default_factory=list)


class IdSwitches(OverlapMetric):
    """Counts changes of id within visibility segments.

    A visibility segment is a run of consecutive frames in which an object has pixels. In each frame
    a track is the object's if they overlap with an IoU above 0.5, whatever their classes; frames
    without such a track do not count.
    """

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        video = self._sequences.setdefault(sequence, _Video())
        found = _tracks_of(overlaps)
        video.finished += [video.seen.pop(left) for left in video.seen.keys() - found.keys()]
        for true_id, track_id in found.items():
            ids = video.seen.setdefault(true_id, [])
            if track_id:
                ids.append(track_id)

    def compute(self) -> tuple[int, int, int]:
        """Segments that were found in at least two frames, those of them with a single id, and the
        switches of all segments."""
        videos = self._sequences.values()
        segments = [ids for v in videos for ids in (*v.finished, *v.seen.values()) if len(ids) > 1]
        switches = sum(a != b for ids in segments for a, b in pairwise(ids))
        return len(segments), sum(len(set(ids)) == 1 for ids in segments), switches


def _tracks_of(overlaps: Overlaps) -> dict[int, int]:
    """Track id of each true object in the frame; 0 where no track has an IoU above 0.5."""
    true_ids, rows = np.unique(overlaps.true_id, return_inverse=True)
    track_ids, columns = np.unique(overlaps.predicted_id, return_inverse=True)
    shared = np.zeros((len(true_ids), len(track_ids)), np.int64)
    np.add.at(shared, (rows, columns), overlaps.pixels)
    iou = shared / (shared.sum(1, keepdims=True) + shared.sum(0) - shared)
    found = np.where(iou.max(axis=1) > 0.5, track_ids[iou.argmax(axis=1)], 0)
    return {int(i): int(j) for i, j in zip(true_ids, found, strict=True) if i}
