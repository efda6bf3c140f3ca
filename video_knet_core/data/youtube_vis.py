"""YouTube-VIS 2019 (Yang et al., "Video Instance Segmentation", 2019): tracks of 40 kinds of thing.

    annotations/SPLIT.json, SPLIT/JPEGImages/VIDEO/00000.jpg      (train, valid, test)

The official index lists videos with their file names, and tracks with a run-length mask for each
frame, or null. Valid and test are published without tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.rle import RunLengths
from ..types import NO_CLASS
from .json_index import load_json, need
from .sequences import first_folder
from .video import DatasetError, FrameFiles, InstanceMasks, Labels, Video, VideoList

CLASS_COUNT = 40
"""Class ids are the category ids 1..40 less 1."""


@dataclass(frozen=True)
class _Track:
    """One object of a video; `masks` has an entry of the index, or None, for every frame."""

    id: int
    class_id: int
    crowd: bool
    masks: Sequence[dict | None]
    where: str


def open_youtube_vis(root: Path, split: str) -> VideoList:
    """Open a split of the official layout.

    Raises:
        DatasetError: the index, a key in it or the image folder is missing, or there is no video.
    """
    index = root / "annotations" / f"{split}.json"
    images = first_folder(root / split / "JPEGImages")
    content = load_json(index, _keep)
    labelled = split == "train" or "annotations" in content
    tracks = need(content, "annotations", list, str(index)) if labelled else []
    of_video = _tracks_of_videos(tracks, index)
    entries = need(content, "videos", list, str(index))
    unknown = of_video.keys() - {need(entry, "id", int, f"{index}: a video") for entry in entries}
    if unknown:
        raise DatasetError(f"{index}: video_id must be one of `videos`, found {min(unknown)}")
    videos = [
        _video(entry, images, of_video if labelled else None, f"{index}: video {number}")
        for number, entry in enumerate(entries)
    ]
    return VideoList("youtube_vis_2019", CLASS_COUNT, frozenset(range(CLASS_COUNT)), videos)


def _keep(entry: dict) -> dict:
    """Without what is not needed, and counts as an array: a tenth of the memory of a list."""
    for key in ("bboxes", "areas"):
        entry.pop(key, None)
    if isinstance(entry.get("counts"), list):
        entry["counts"] = _compact(entry["counts"])
    return entry


def _compact(counts: list) -> list | NDArray[np.int32]:
    """As an array if all are integers; what is wrong with others is told when a mask is read."""
    try:
        numbers = np.array(counts)
    except ValueError:
        return counts
    return numbers.astype(np.int32) if numbers.dtype.kind == "i" else counts


def _tracks_of_videos(entries: list, index: Path) -> dict[int, list[_Track]]:
    videos: dict[int, list[_Track]] = {}
    for number, entry in enumerate(entries):
        where = f"{index}: annotation {number}"
        category = need(entry, "category_id", int, where)
        if not 1 <= category <= CLASS_COUNT:
            raise DatasetError(f"{where}: category_id must be 1..{CLASS_COUNT}, found {category}")
        track = _Track(
            need(entry, "id", int, where),
            category - 1,
            bool(entry.get("iscrowd", 0)),
            need(entry, "segmentations", list, where),
            where,
        )
        videos.setdefault(need(entry, "video_id", int, where), []).append(track)
    return videos


def _video(entry: Any, images: Path, tracks: dict[int, list[_Track]] | None, where: str) -> Video:
    names = need(entry, "file_names", list, where)
    height, width = (need(entry, key, int, where) for key in ("height", "width"))
    frames = tuple(
        FrameFiles(Path(name).stem, f"{images}/{name}", None, position)
        for position, name in enumerate(names)
    )
    video_id = need(entry, "id", int, where)
    name = names[0].partition("/")[0] if names else str(video_id)
    if tracks is None:
        return Video(name, frames)
    own = tracks.get(video_id, [])
    for track in own:
        if len(track.masks) != len(names):
            raise DatasetError(
                f"{track.where}: segmentations must be one for each of the {len(names)} frames, "
                f"found {len(track.masks)}"
            )
    return Video(name, frames, partial(_read, own, (height, width)))


def _read(tracks: list[_Track], size: tuple[int, int], frame: FrameFiles) -> Labels:
    """Labels of one frame; a crowd has its class in `semantic` and is no instance."""
    decoded = [(t, mask) for t in tracks if (mask := _mask(t, frame.index, size)) is not None]
    shown = [(track, mask) for track, mask in decoded if mask.any()]
    semantic, instance = np.full(size, NO_CLASS, np.uint8), np.zeros(size, np.int64)
    for track, mask in sorted(shown, key=lambda pair: (not pair[0].crowd, -pair[1].sum())):
        semantic[mask] = track.class_id
        instance[mask] = 0 if track.crowd else track.id
    kept = [(track, mask) for track, mask in shown if not track.crowd]
    masks = InstanceMasks(
        np.array([track.id for track, _ in kept], np.int64),
        np.array([track.class_id for track, _ in kept], np.int64),
        np.array([mask for _, mask in kept], bool).reshape(-1, *size),
    )
    empty = tuple(track.id for track, mask in decoded if not mask.any())
    return Labels(semantic, instance, masks, empty)


def _mask(track: _Track, position: int, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    entry = track.masks[position]
    if entry is None:
        return None
    where = f"{track.where}, frame {position}"
    if not isinstance(entry, dict):
        raise DatasetError(f"{where}: wanted run lengths or null, found {entry!r:.80}")
    try:
        runs = RunLengths.from_coco(entry)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{where}: {error}") from None
    if runs.size != size:
        raise DatasetError(f"{where}: a mask must be {size} as its video, found {runs.size}")
    return runs.mask()
