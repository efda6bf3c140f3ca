"""YouTube-VIS 2019 (Yang et al., "Video Instance Segmentation", 2019): tracks of 40 kinds of thing.

    annotations/SPLIT.json, SPLIT/JPEGImages/VIDEO/00000.jpg      (train, valid, test)

The official index lists videos with their file names, and tracks with a run-length mask for each
frame, or null. Valid and test are published without tracks. Class ids are category ids less 1, and
class names those of the index: the releases of 2021 and 2022 have other classes by the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..metrics.rle import RunLengths
from .instance_labels import ObjectMask, compact, labels_of, run_lengths
from .json_index import load_index, need, need_id, need_size, read_categories
from .sequences import first_folder
from .video import DatasetError, FrameFiles, Labels, Video, VideoList

# fmt: off
NAMES = (
    "person", "giant_panda", "lizard", "parrot", "skateboard", "sedan", "ape", "dog", "snake",
    "monkey", "hand", "rabbit", "duck", "cat", "cow", "fish", "train", "horse", "turtle", "bear",
    "motorbike", "giraffe", "leopard", "fox", "deer", "owl", "surfboard", "airplane", "truck",
    "zebra", "tiger", "elephant", "snowboard", "boat", "shark", "mouse", "frog", "eagle",
    "earless_seal", "tennis_racket",
)
# fmt: on
"""Of the categories 1..40 of 2019, where an index has no `categories`."""


@dataclass(frozen=True)
class TrackAnnotation:
    """One object of a video, as the index has it."""

    id: int
    class_id: int
    crowd: bool
    entries: Sequence[dict | None]
    """Run lengths, or None where the object is out of sight, for every frame."""
    where: str

    def run_lengths(self, position: int, size: tuple[int, int]) -> RunLengths | None:
        """The mask in one frame of `size`; DatasetError if it is malformed or of another size."""
        return run_lengths(self.entries[position], size, f"{self.where}, frame {position}")


@dataclass(frozen=True, eq=False)
class YoutubeVisVideo(Video):
    """A video with what the official files know it by."""

    id: int = 0
    """Its `id` in the index, and `video_id` of results."""
    size: tuple[int, int] = (0, 0)
    """Height and width of its masks in pixels."""
    tracks: Sequence[TrackAnnotation] = field(default=(), repr=False)
    """All objects, crowds too; none where they are not published."""


def open_youtube_vis(root: Path, split: str) -> VideoList:
    """Open a split of the official layout; videos come by ascending id, as the official tools go.

    Raises:
        DatasetError: the index, a key in it or the image folder is missing, or there is no video.
    """
    index = root / "annotations" / f"{split}.json"
    images = first_folder(root / split / "JPEGImages")
    content = load_index(index, _keep)
    labelled = split == "train" or "annotations" in content
    tracks = need(content, "annotations", list, str(index)) if labelled else []
    names = _class_names(content, index)
    of_video = _tracks_of_videos(tracks, len(names), index)
    entries = need(content, "videos", list, str(index))
    unknown = of_video.keys() - {need(entry, "id", int, f"{index}: a video") for entry in entries}
    if unknown:
        raise DatasetError(f"{index}: video_id must be one of `videos`, found {min(unknown)}")
    videos = [
        _video(entry, images, of_video if labelled else None, f"{index}: video {number}")
        for number, entry in enumerate(entries)
    ]
    videos.sort(key=lambda video: video.id)
    kinds = tuple((name, True) for name in names)
    return VideoList("youtube_vis_2019", kinds, videos)


def _class_names(content: dict, index: Path) -> list[str]:
    """Names of the categories 1, 2, ..."""
    if not content.get("categories"):
        return list(NAMES)
    categories = read_categories(content, str(index))
    if list(categories) != list(range(1, len(categories) + 1)):
        raise DatasetError(f"{index}: category ids must be 1, 2, ..., got {list(categories)[:20]}")
    return [entry["name"] for entry in categories.values()]


def _keep(entry: dict) -> dict:
    """Without what is not needed, and counts as an array: a tenth of the memory of a list."""
    for key in ("bboxes", "areas"):
        entry.pop(key, None)
    if isinstance(entry.get("counts"), list):
        entry["counts"] = compact(entry["counts"])
    return entry


def _tracks_of_videos(entries: list, count: int, index: Path) -> dict[int, list[TrackAnnotation]]:
    videos: dict[int, list[TrackAnnotation]] = {}
    for number, entry in enumerate(entries):
        where = f"{index}: annotation {number}"
        category = need(entry, "category_id", int, where)
        if not 1 <= category <= count:
            raise DatasetError(f"{where}: category_id must be 1..{count}, got {category}")
        track = TrackAnnotation(
            need_id(entry, where),
            category - 1,
            bool(entry.get("iscrowd", 0)),
            need(entry, "segmentations", list, where),
            where,
        )
        videos.setdefault(need(entry, "video_id", int, where), []).append(track)
    return videos


def _video(
    entry: Any, images: Path, tracks: dict[int, list[TrackAnnotation]] | None, where: str
) -> YoutubeVisVideo:
    names = need(entry, "file_names", list, where)
    for name in names:
        if not isinstance(name, str):
            raise DatasetError(f"{where}: expected file_names of text, got {name!r:.80}")
    size = need_size(entry, where)
    frames = tuple(
        FrameFiles(Path(name).stem, f"{images}/{name}", None, position)
        for position, name in enumerate(names)
    )
    video_id = need(entry, "id", int, where)
    name = names[0].partition("/")[0] if names else str(video_id)
    if tracks is None:
        return YoutubeVisVideo(name, frames, None, video_id, size)
    own = tracks.get(video_id, [])
    for track in own:
        if len(track.entries) != len(names):
            raise DatasetError(
                f"{track.where}: segmentations must be one for each of the {len(names)} frames, "
                f"found {len(track.entries)}"
            )
    return YoutubeVisVideo(name, frames, partial(_read, own, size), video_id, size, own)


def _read(tracks: list[TrackAnnotation], size: tuple[int, int], frame: FrameFiles) -> Labels:
    """Labels of one frame; a crowd has its class in `semantic` and is no instance."""
    found = [(track, track.run_lengths(frame.index, size)) for track in tracks]
    return labels_of(
        [
            ObjectMask(track.id, track.class_id, track.crowd, runs.mask())
            for track, runs in found
            if runs is not None
        ],
        size,
    )
