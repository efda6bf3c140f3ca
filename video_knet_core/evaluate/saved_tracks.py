"""Tracks of instances on disk: the results.json that the YouTube-VIS server takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..data.instance_labels import run_lengths
from ..data.json_index import load_json, need
from ..data.submissions import YoutubeVisWriter
from ..data.video import DatasetError, LabelledFrame, Video, VideoDataset
from ..data.youtube_vis import YoutubeVisVideo
from .instances import Instance, Instances, TrackCollector, youtube_vis
from .run import Predictor

RESULTS = "results.json"


class YoutubeVisSaver:
    """OUT/results.json. The run lengths of all tracks are kept until it is written."""

    def __init__(self, out: Path) -> None:
        self._writer = YoutubeVisWriter(out / RESULTS)
        self._collector = TrackCollector()

    def update(self, video: Video, frame: LabelledFrame, prediction: Instances) -> None:
        """Add a frame; ValueError if a track is there twice."""
        self._collector.add(prediction)

    def end_video(self, video: Video) -> None:
        """Add the tracks of the video."""
        for track in self._collector.tracks.values():
            video_id = youtube_vis(video).id
            self._writer.add(video_id, track.class_id, track.score, track.masks)
        self._collector = TrackCollector()

    def close(self) -> Path:
        """Write the file."""
        return self._writer.close()


@dataclass(frozen=True)
class _Result:
    """One entry of the file."""

    class_id: int
    score: float
    segmentations: list[Any]
    where: str


def read_results(path: Path, dataset: VideoDataset) -> Predictor[Instances]:
    """Read an official results.json.

    Args:
        path: the file, or the folder that holds results.json.
        dataset: YouTube-VIS.

    Raises:
        DatasetError: the file is unusable, or an entry lacks a key, is of an unknown video or
            category, or has not a mask, or null, for each frame. Masks are looked at when their
            video comes.
    """
    file = path / RESULTS if path.is_dir() else path
    if not file.is_file():
        raise DatasetError(f"there are no predictions {file}")
    videos = {video.id: video for video in map(youtube_vis, dataset)}
    results: dict[int, list[_Result]] = {}
    content = load_json(file)
    if not isinstance(content, list):
        raise DatasetError(f"{file} must be a list of tracks, found {type(content).__name__}")
    for number, entry in enumerate(content):
        where = f"{file}: track {number}"
        video_id, result = _result(entry, videos, dataset.class_count, where)
        results.setdefault(video_id, []).append(result)

    def start(video: Video) -> Callable[[LabelledFrame], Instances]:
        tracks = _tracks(results.get(youtube_vis(video).id, []), youtube_vis(video))
        positions = count()

        def predict(_: LabelledFrame) -> Instances:
            position = next(positions)
            return [track[position] for track in tracks]

        return predict

    return start


def _result(
    entry: Any, videos: dict[int, YoutubeVisVideo], classes: int, where: str
) -> tuple[int, _Result]:
    """Video id and content of a checked entry."""
    video_id = need(entry, "video_id", int, where)
    if video_id not in videos:
        raise DatasetError(f"{where}: video_id must be one of the split's, found {video_id}")
    category = need(entry, "category_id", int, where)
    if not 1 <= category <= classes:
        raise DatasetError(f"{where}: category_id must be 1..{classes}, got {category}")
    score = need(entry, "score", (int, float), where)
    if not -math.inf < score < math.inf:
        raise DatasetError(f"{where}: score must be finite, found {score}")
    masks, frames = need(entry, "segmentations", list, where), len(videos[video_id])
    if len(masks) != frames:
        raise DatasetError(
            f"{where}: segmentations must be one for each of the {frames} frames, "
            f"found {len(masks)}"
        )
    return video_id, _Result(category - 1, float(score), masks, where)


def _tracks(results: list[_Result], video: YoutubeVisVideo) -> list[list[Instance]]:
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
