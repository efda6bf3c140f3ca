"""YouTube-VIS 2019 (Yang et al., "Video Instance Segmentation", 2019): tracks of 40 kinds of thing.

    annotations/SPLIT.json, SPLIT/JPEGImages/VIDEO/00000.jpg      (train, valid, test)

The official index lists videos with their file names, and tracks with a run-length mask for each
frame, or null. Valid and test are published without tracks. Class ids are category ids less 1, and
class names those of the index: the releases of 2021 and 2022 have other classes by the same ids.
Predictions are one results.json, a list of tracks with a mask, or null, for each frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from ..run_lengths import RunLengths
from .dataset_format import DatasetFormat
from .folders import first_folder
from .instance_labels import ObjectMask, compact, labels_of, run_lengths
from .instance_tracks import TrackCollector
from .json_index import (
    ROW,
    Category,
    Flag,
    ImageSize,
    Integer,
    Text,
    categories_by_id,
    load_index,
)
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


@dataclass(frozen=True, slots=True, config=ROW)
class _Track:
    """A row of `annotations` or of results."""

    video_id: Integer
    category_id: Integer
    segmentations: list[dict | None]
    """Run lengths for every frame, or None where the object is out of sight."""

    def check(self, videos: Mapping[int, int], categories: int, where: str) -> None:
        """DatasetError unless it is of one of `videos` (id -> frames) and of 1..`categories`."""
        if self.video_id not in videos:
            raise DatasetError(f"{where}.video_id: expected one of `videos`, got {self.video_id}")
        if not 1 <= self.category_id <= categories:
            raise DatasetError(
                f"{where}.category_id: expected 1..{categories}, got {self.category_id}"
            )
        if len(self.segmentations) != videos[self.video_id]:
            raise DatasetError(
                f"{where}.segmentations: expected one for each of {videos[self.video_id]} frames, "
                f"got {len(self.segmentations)}"
            )


@dataclass(frozen=True, slots=True, config=ROW)
class _Annotation(_Track):
    id: Integer
    iscrowd: Flag = False


@dataclass(frozen=True, slots=True, config=ROW)
class _Result(_Track):
    score: Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, config=ROW)
class _IndexVideo(ImageSize):
    id: Integer
    file_names: list[Text]


@dataclass(frozen=True, slots=True, config=ROW)
class _Index:
    videos: list[_IndexVideo]
    annotations: list[_Annotation] | None = None
    categories: list[Category] | None = None


@dataclasses.dataclass(frozen=True)
class TrackAnnotation:
    """One object of a video, as the index has it."""

    id: int
    class_id: int
    crowd: bool
    segmentations: Sequence[dict | None]
    """Run lengths for every frame, or None where the object is out of sight."""
    where: str

    def run_lengths(self, position: int, size: tuple[int, int]) -> RunLengths | None:
        """The mask in one frame of `size`; DatasetError if it is malformed or of another size."""
        where = f"{self.where}.segmentations.{position}"
        return run_lengths(self.segmentations[position], size, where)


@dataclasses.dataclass(frozen=True, eq=False)
class YoutubeVisVideo(Video):
    """A video with its id, size and tracks in the official files."""

    id: int = 0
    """Its `id` in the index, and `video_id` of results."""
    size: tuple[int, int] = (0, 0)
    """Height and width of its masks in pixels."""
    tracks: Sequence[TrackAnnotation] = dataclasses.field(default=(), repr=False)
    """All objects, crowds too; none where they are not published."""


def _open(root: Path, split: str) -> VideoDataset:
    """Open a split of the official layout; videos come by ascending id, as the official tools go.

    Raises:
        DatasetError: the index, a key in it or the image folder is missing, or there is no video.
    """
    index = root / "annotations" / f"{split}.json"
    images = first_folder(root / split / "JPEGImages")
    content: _Index = load_index(index, _Index, _keep)
    if content.annotations is None and split == "train":
        raise DatasetError(f"{index}: expected the key 'annotations', got none")
    names = _class_names(content, index)
    lengths = {video.id: len(video.file_names) for video in content.videos}
    tracks: dict[int, list[TrackAnnotation]] = {}
    for number, row in enumerate(content.annotations or ()):
        where = f"{index}: annotations.{number}"
        row.check(lengths, len(names), where)
        track = TrackAnnotation(row.id, row.category_id - 1, row.iscrowd, row.segmentations, where)
        tracks.setdefault(row.video_id, []).append(track)
    labelled = content.annotations is not None
    videos = [
        _video(video, images, tracks.get(video.id, []) if labelled else None)
        for video in sorted(content.videos, key=lambda video: video.id)
    ]
    return VideoDataset("youtube_vis_2019", tuple((name, True) for name in names), videos)


def _class_names(content: _Index, index: Path) -> list[str]:
    """Names of the categories 1, 2, ..."""
    if not content.categories:
        return list(NAMES)
    categories = categories_by_id(content.categories, index)
    if list(categories) != list(range(1, len(categories) + 1)):
        raise DatasetError(
            f"{index}: categories: expected the ids 1, 2, ..., got {list(categories)[:20]}"
        )
    return [category.name for category in categories.values()]


def _keep(entry: dict) -> dict:
    """Without what is not needed, and counts as an array: a tenth of the memory of a list."""
    for key in ("bboxes", "areas"):
        entry.pop(key, None)
    if isinstance(entry.get("counts"), list):
        entry["counts"] = compact(entry["counts"])
    return entry


def _video(row: _IndexVideo, images: Path, tracks: list[TrackAnnotation] | None) -> YoutubeVisVideo:
    frames = tuple(
        FrameFiles(Path(name).stem, f"{images}/{name}", None, position)
        for position, name in enumerate(row.file_names)
    )
    name = row.file_names[0].partition("/")[0] if row.file_names else str(row.id)
    read = None if tracks is None else partial(_read, tracks, row.size)
    return YoutubeVisVideo(name, frames, read, row.id, row.size, tracks or ())


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


class _ResultsFile:
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
        lengths = {video.id: len(video) for video in map(youtube_vis, dataset)}
        results: dict[int, list[tuple[_Result, str]]] = {}
        rows: list[_Result] = load_index(file, list[_Result], _keep)
        for number, row in enumerate(rows):
            row.check(lengths, dataset.class_count, f"{file}: {number}")
            results.setdefault(row.video_id, []).append((row, f"{file}: {number}"))

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


def _instances(results: list[tuple[_Result, str]], video: YoutubeVisVideo) -> list[list[Instance]]:
    """Each result frame by frame; those without a mask too, for their scores take part in AP."""
    return [
        [
            Instance(
                number,
                row.category_id - 1,
                row.score,
                run_lengths(entry, video.size, f"{where}.segmentations.{position}"),
            )
            for position, entry in enumerate(row.segmentations)
        ]
        for number, (row, where) in enumerate(results, start=1)
    ]


YOUTUBE_VIS = DatasetFormat(
    "youtube_vis_2019",
    "instance",
    _open,
    ("annotations/{}.json",),
    splits=("train", "valid", "test"),
    predictions=_ResultsFile(),
)
