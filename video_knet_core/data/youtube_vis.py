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

from .dataset_format import DatasetFormat
from .folders import first_folder
from .instance_labels import ObjectTrack, keep_masks, read_objects
from .json_index import (
    ROW,
    Category,
    Flag,
    ImageSize,
    Integer,
    Text,
    categories_by_id,
    class_of,
    load_index,
)
from .predictions import (
    Instance,
    Instances,
    PredictionFormat,
    PredictionReader,
    PredictionWriter,
    TrackCollector,
    write_json,
)
from .video import DatasetError, FrameFiles, LabelledFrame, Video, VideoDataset

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


@dataclasses.dataclass(frozen=True, eq=False)
class YoutubeVisVideo(Video):
    """A video with its id, size and tracks in the official files."""

    id: int = 0
    """Its `id` in the index, and `video_id` of results."""
    size: tuple[int, int] = (0, 0)
    """Height and width of its masks in pixels."""
    tracks: Sequence[ObjectTrack] = dataclasses.field(default=(), repr=False)
    """All objects, crowds too; none where they are not published."""


def _open(root: Path, split: str) -> VideoDataset:
    """Videos come by ascending id, as the official tools go."""
    index = root / "annotations" / f"{split}.json"
    images = first_folder(root / split / "JPEGImages")
    content: _Index = load_index(index, _Index, keep_masks)
    if content.annotations is None and split == "train":
        raise DatasetError(f"{index}: expected the key 'annotations', got none")
    names = _class_names(content, index)
    lengths = {video.id: len(video.file_names) for video in content.videos}
    place = f"{index}: annotations."
    tracks = _by_video(content.annotations or (), lengths, len(names), place)
    videos = []
    for row in sorted(content.videos, key=lambda video: video.id):
        frames = [FrameFiles(Path(f).stem, f"{images}/{f}", str(index)) for f in row.file_names]
        name = row.file_names[0].partition("/")[0] if row.file_names else str(row.id)
        found = tracks.get(row.id, [])
        read = None if content.annotations is None else partial(read_objects, found, row.size)
        videos.append(YoutubeVisVideo(name, frames, read, row.id, row.size, found))
    return VideoDataset("youtube_vis_2019", tuple((name, True) for name in names), videos)


def _by_video(
    rows: Sequence[_Annotation | _Result], videos: Mapping[int, int], categories: int, place: str
) -> dict[int, list[ObjectTrack]]:
    """The tracks of each video; DatasetError unless each is of one of `videos` (id -> frames) and
    of 1..`categories`."""
    classes = {category: category - 1 for category in range(1, categories + 1)}
    tracks: dict[int, list[ObjectTrack]] = {}
    for number, row in enumerate(rows):
        where, masks = f"{place}{number}", row.segmentations
        if row.video_id not in videos:
            raise DatasetError(f"{where}.video_id: expected one of `videos`, got {row.video_id}")
        class_id = class_of(row.category_id, classes, where)
        if len(masks) != videos[row.video_id]:
            raise DatasetError(
                f"{where}.segmentations: expected one for each of {videos[row.video_id]} frames, "
                f"got {len(masks)}"
            )
        found = tracks.setdefault(row.video_id, [])
        track_id, crowd, score = (
            (row.id, row.iscrowd, 1.0)
            if isinstance(row, _Annotation)
            else (len(found) + 1, False, row.score)
        )
        found.append(ObjectTrack(track_id, class_id, crowd, score, masks, f"{where}.segmentations"))
    return tracks


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


_RESULTS = "results.json"


def _read_results(path: Path, dataset: VideoDataset) -> PredictionReader[Instances]:
    """Read an official results.json, or the one in a folder; masks are read frame by frame."""
    file = path / _RESULTS if path.is_dir() else path
    if not file.is_file():
        raise DatasetError(f"there are no predictions {file}")
    rows: list[_Result] = load_index(file, list[_Result], keep_masks)
    lengths = {video.id: len(video) for video in map(youtube_vis, dataset)}
    results = _by_video(rows, lengths, dataset.class_count, f"{file}: ")

    def start(video: Video) -> Callable[[LabelledFrame], Instances]:
        size, positions = youtube_vis(video).size, count()
        tracks = results.get(youtube_vis(video).id, [])

        def predict(_: LabelledFrame) -> Instances:
            """Results without a mask too, for their scores take part in AP."""
            position = next(positions)
            return [
                Instance(track.id, track.class_id, track.score, track.run_lengths(position, size))
                for track in tracks
            ]

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
        return write_json(self.out / _RESULTS, self._tracks)


YOUTUBE_VIS = DatasetFormat(
    "youtube_vis_2019",
    "instance",
    _open,
    ("annotations/{}.json",),
    splits=("train", "valid", "test"),
    predictions=PredictionFormat(_ResultsWriter, _read_results),
)
