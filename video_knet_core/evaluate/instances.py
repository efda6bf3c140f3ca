"""AP of tracks of instances, as YouTube-VIS is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.predictions import Instance, Instances, TrackCollector
from ..data.video import InstanceMasks, LabelledFrame, Video, VideoDataset
from ..data.youtube_vis import YoutubeVisVideo, youtube_vis
from ..metrics.vis import PredictedTrack, TrueTrack, VideoInstanceAP, VideoInstanceQuality
from ..run_lengths import RunLengths
from ..types import PanopticFrame
from .scores import Scores

_COLUMNS = {
    **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"},
    **{"ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"},
    **{"ar1": "AR1", "ar10": "AR10", "ar100": "AR100"},
    **{"ar_small": "ARs", "ar_medium": "ARm", "ar_large": "ARl"},
}
"""Field of `VideoInstanceQuality` -> name in the table."""
_CROWD = 0
"""Id of the things of a class that have none of their own."""


def instances(frame: PanopticFrame) -> list[Instance]:
    """The tracks of one frame of the predictor; things without a track are left out."""
    return [
        Instance(
            track.track_id,
            track.class_id,
            track.score,
            RunLengths.from_mask(frame.mask(track)),
        )
        for track in frame.tracks
        if track.label and track.track_id
    ]


def predicted_tracks(collector: TrackCollector) -> list[PredictedTrack]:
    """The tracks of the frames so far."""
    return [
        PredictedTrack(track_id, track.class_id, track.masks, track.score)
        for track_id, track in collector.tracks.items()
    ]


class TruthOfFrame(Protocol):
    """Labels of one frame: maps [H, W], and whole masks where objects may overlap."""

    @property
    def semantic(self) -> NDArray[np.uint8]: ...
    @property
    def instance(self) -> NDArray[np.integer]: ...
    @property
    def masks(self) -> InstanceMasks | None: ...


class TrueTrackCollector:
    """Puts the true tracks of one video together from its frames, so that it may be cut short.

    Args:
        things: class ids of the objects. Those without an id are a crowd.
    """

    def __init__(self, things: Sequence[int]) -> None:
        self._things, self._frames = things, 0
        self._masks: dict[tuple[int, int], list[RunLengths | None]] = {}
        """By class and id."""

    def add(self, truth: TruthOfFrame, ignored: NDArray[np.bool_] | None = None) -> None:
        """Add the next frame; what is found on `ignored` pixels [H, W] is neither right nor wrong,
        as on a crowd."""
        for key, mask in self._objects(truth, ignored):
            masks = self._masks.setdefault(key, [])
            masks += [None] * (self._frames - len(masks)) + [RunLengths.from_mask(mask)]
        self._frames += 1

    def true(self) -> list[TrueTrack]:
        """The tracks of the frames so far."""
        return [
            TrueTrack(
                f"{class_id}/{track}",
                class_id,
                masks + [None] * (self._frames - len(masks)),
                track == _CROWD,
            )
            for (class_id, track), masks in self._masks.items()
        ]

    def _objects(
        self, truth: TruthOfFrame, ignored: NDArray[np.bool_] | None
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.bool_]]]:
        """Whole masks where the labels have them, else what is in front."""
        whole = truth.masks
        if whole is not None:
            keys = zip(whole.class_ids.tolist(), whole.ids.tolist(), strict=True)
            yield from zip(keys, whole.masks, strict=True)
        for class_id in self._things:
            pixels = truth.semantic == class_id
            crowd = pixels & (truth.instance == _CROWD)
            crowd = crowd if ignored is None else crowd | ignored
            if crowd.any():
                yield (class_id, _CROWD), crowd
            found = np.unique(truth.instance[pixels]) if whole is None else np.zeros(0, int)
            for track in found[found != _CROWD].tolist():
                yield (class_id, track), pixels & (truth.instance == track)


class InstanceEvaluator:
    """The twelve numbers of YouTube-VIS; NaN where the official program has -1."""

    def __init__(self, dataset: VideoDataset) -> None:
        self._categories = range(dataset.class_count)
        self._quality = self._metric()
        self._per_sequence: dict[str, dict[str, float]] = {}
        self._collector = TrackCollector()
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: Instances) -> None:
        """Add a frame; ValueError if a track is there twice."""
        self._collector.add(prediction)
        self._frames += 1

    def end_video(self, video: Video) -> None:
        """Compare the tracks; ValueError if a mask has not the size of the video."""
        truth, predicted = _true_tracks(youtube_vis(video)), predicted_tracks(self._collector)
        self._collector = TrackCollector()
        alone = self._metric()
        for metric in (self._quality, alone):
            metric.update(truth, predicted, video.name)
        self._per_sequence[video.name] = _row(alone.compute())

    def compute(self) -> Scores:
        """Rows of each video by itself and of all."""
        quality = self._quality.compute()
        total = _row(quality)
        rows = {**self._per_sequence, f"all ({self._frames} frames)": total}
        class_ap = {category: curve.ap for category, curve in quality.per_class.items()}
        return Scores(
            columns={"": list(_COLUMNS.values())},
            rows={name: list(row.values()) for name, row in rows.items()},
            figures={
                "frames": self._frames,
                "total": total,
                "per_sequence": self._per_sequence,
                "class_ap": [class_ap.get(category, np.nan) for category in self._categories],
            },
        )

    def _metric(self) -> VideoInstanceAP:
        return VideoInstanceAP(self._categories, absent=np.nan)


def _true_tracks(video: YoutubeVisVideo) -> list[TrueTrack]:
    return [
        TrueTrack(
            track.id,
            track.class_id,
            [track.run_lengths(t, video.size) for t in range(len(video))],
            track.crowd,
        )
        for track in video.tracks
    ]


def _row(quality: VideoInstanceQuality) -> dict[str, float]:
    return {name: getattr(quality, name) for name in _COLUMNS}
