"""YouTube-VIS 2019 (Yang et al., "Video Instance Segmentation", 2019): tracks of 40 kinds of thing.

    annotations/SPLIT.json, SPLIT/JPEGImages/VIDEO/00000.jpg      (train, valid, test)

The official index lists videos with their file names, and tracks with a run-length mask for each
frame, or null. Valid and test are published without tracks. Class ids are category ids less 1, and
class names those of the index: the releases of 2021 and 2022 have other classes by the same ids.
Predictions are one results.json, a list of tracks with a mask, or null, for each frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from ..run_lengths import RunLengths
from .dataset_format import DatasetFormat
from .folders import first_folder
from .instance_labels import ObjectMask, compact, labels_of, run_lengths
from .instance_tracks import TrackCollector
from .json_index import load_index, load_json, need, need_id, need_size, read_categories
from .predictions import Instance, Instances, PredictionReader, PredictionWriter, write_json
from .video import DatasetError, FrameFiles, LabelledFrame, Labels, Video, VideoDataset

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


def open_youtube_vis(root: Path, split: str) -> VideoDataset:
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
    return VideoDataset("youtube_vis_2019", kinds, videos)


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


RESULTS = "results.json"


class YoutubeVisPredictions:
    """The `PredictionFormat` OUT/results.json."""

    def writer(self, out: Path) -> PredictionWriter[Instances]:
        """See `PredictionFormat`. The run lengths of all tracks are kept until it is closed."""
        return _ResultsWriter(out)

    def read(self, path: Path, dataset: VideoDataset) -> PredictionReader[Instances]:
        """Read an official results.json.

        Args:
            path: the file, or the folder that holds results.json.
            dataset: YouTube-VIS.

        Raises:
            DatasetError: the file is unusable, or an entry lacks a key, is of an unknown video or
                category, or has not a mask, or null, for each frame. Masks are read when their
                video is started.
        """
        file = path / RESULTS if path.is_dir() else path
        if not file.is_file():
            raise DatasetError(f"there are no predictions {file}")
        videos = {video.id: video for video in map(youtube_vis, dataset)}
        results: dict[int, list[_Result]] = {}
        content = load_json(file)
        if not isinstance(content, list):
            raise DatasetError(f"{file}: expected a list of tracks, got {type(content).__name__}")
        for number, entry in enumerate(content):
            where = f"{file}: track {number}"
            video_id, result = _result(entry, videos, dataset.class_count, where)
            results.setdefault(video_id, []).append(result)

        def start(video: Video) -> Callable[[LabelledFrame], Instances]:
            tracks = _instances(results.get(youtube_vis(video).id, []), youtube_vis(video))
            positions = count()

            def predict(_: LabelledFrame) -> Instances:
                position = next(positions)
                return [track[position] for track in tracks]

            return predict

        return start


def youtube_vis(video: Video) -> YoutubeVisVideo:
    """`video` itself; TypeError if its data set has no tracks."""
    if not isinstance(video, YoutubeVisVideo):
        raise TypeError(f"expected a YoutubeVisVideo, got {type(video).__name__}")
    return video


class _ResultsWriter(PredictionWriter[Instances]):
    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self._tracks: list[dict[str, Any]] = []
        self._collector = TrackCollector()

    def update(self, video: Video, frame: LabelledFrame, prediction: Instances) -> None:
        self._collector.add(prediction)

    def end_video(self, video: Video) -> None:
        self._tracks += [
            {
                "video_id": youtube_vis(video).id,
                "category_id": track.class_id + 1,
                "score": float(track.score),
                "segmentations": [
                    runs.to_coco() if runs is not None and runs.area else None
                    for runs in track.masks
                ],
            }
            for track in self._collector.tracks.values()
        ]
        self._collector = TrackCollector()

    def close(self) -> Path:
        return write_json(self.out / RESULTS, self._tracks)


@dataclass(frozen=True)
class _Result:
    """One entry of the file."""

    class_id: int
    score: float
    segmentations: list[Any]
    where: str


def _result(
    entry: Any, videos: Mapping[int, YoutubeVisVideo], classes: int, where: str
) -> tuple[int, _Result]:
    """Video id and content of a checked entry."""
    video_id = need(entry, "video_id", int, where)
    if video_id not in videos:
        raise DatasetError(f"{where}: expected a video_id of the split, got {video_id}")
    category = need(entry, "category_id", int, where)
    if not 1 <= category <= classes:
        raise DatasetError(f"{where}: expected a category_id of 1..{classes}, got {category}")
    score = need(entry, "score", (int, float), where)
    if not -math.inf < score < math.inf:
        raise DatasetError(f"{where}: expected a finite score, got {score}")
    masks, frames = need(entry, "segmentations", list, where), len(videos[video_id])
    if len(masks) != frames:
        raise DatasetError(f"{where}: expected segmentations of {frames} frames, got {len(masks)}")
    return video_id, _Result(category - 1, float(score), masks, where)


def _instances(results: list[_Result], video: YoutubeVisVideo) -> list[list[Instance]]:
    """Each result frame by frame; those without a mask too, for their scores take part in AP."""
    return [
        [
            Instance(
                number,
                result.class_id,
                result.score,
                run_lengths(entry, video.size, f"{result.where}, frame {position}"),
            )
            for position, entry in enumerate(result.segmentations)
        ]
        for number, result in enumerate(results, start=1)
    ]


YOUTUBE_VIS = DatasetFormat(
    "youtube_vis_2019",
    "instance",
    open_youtube_vis,
    ("annotations/{}.json",),
    splits=("train", "valid", "test"),
    predictions=YoutubeVisPredictions(),
)
