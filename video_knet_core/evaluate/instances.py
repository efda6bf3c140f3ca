"""AP of tracks of instances, as YouTube-VIS is scored: of data sets, and of clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.predictions import Instance, Instances, TrackCollector
from ..data.video import BoxLabels, InstanceMasks, LabelledFrame, Video, VideoDataset
from ..data.youtube_vis import youtube_vis
from ..metrics.vis import PredictedTrack, TrueTrack, VideoInstanceAP, VideoInstanceQuality
from ..run_lengths import RunLengths
from ..types import NO_CLASS, ClassTable, PanopticFrame
from .scores import Evaluator, Scores

_COLUMNS = {
    **{"ap": "AP", "ap50": "AP50", "ap75": "AP75"},
    **{"ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"},
    **{"ar1": "AR1", "ar10": "AR10", "ar100": "AR100"},
    **{"ar_small": "ARs", "ar_medium": "ARm", "ar_large": "ARl"},
}
"""Field of `VideoInstanceQuality` -> name in the table."""
_CROWD = 0
"""Id of the things of a class that have none of their own."""
_CLASSES = NO_CLASS + 1
"""More than there are classes."""


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


def _predicted_tracks(collector: TrackCollector) -> list[PredictedTrack]:
    """The tracks of the frames so far."""
    tracks = collector.tracks.values()
    return [PredictedTrack(track.class_id, track.masks, track.score) for track in tracks]


Void = NDArray[np.bool_] | None
"""[H, W] pixels whose content is unknown; None = they count as background."""


class TrueFrame(Protocol):
    """A labelled frame: image and maps [H, W], whole masks where objects may overlap, and boxes
    where they are labelled apart from the masks."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def semantic(self) -> NDArray[np.uint8]: ...
    @property
    def instance(self) -> NDArray[np.integer]: ...
    @property
    def masks(self) -> InstanceMasks | None: ...
    @property
    def boxes(self) -> BoxLabels | None: ...


def _true_instances(
    truth: TrueFrame, things: Sequence[int], ignored: Void = None
) -> Iterator[Instance]:
    """The objects of the classes `things`: whole masks where there are some, else what is in front.

    A track id is that of the object and its class together; see `_true_tracks`. Things without an
    id are a crowd, and so are `ignored` pixels [H, W]: what is found there is neither right nor
    wrong.
    """
    whole = truth.masks
    if whole is not None:
        for track, class_id, mask in zip(
            whole.ids.tolist(), whole.class_ids.tolist(), whole.masks, strict=True
        ):
            yield _true_instance(track, class_id, mask)
    for class_id in things:
        pixels = truth.semantic == class_id
        crowd = pixels & (truth.instance == _CROWD)
        crowd = crowd if ignored is None else crowd | ignored
        if crowd.any():
            yield _true_instance(_CROWD, class_id, crowd)
        found = np.unique(truth.instance[pixels]) if whole is None else np.zeros(0, int)
        for track in found[found != _CROWD].tolist():
            yield _true_instance(track, class_id, pixels & (truth.instance == track))


def _true_instance(track: int, class_id: int, mask: NDArray[np.bool_]) -> Instance:
    return Instance(track * _CLASSES + class_id, class_id, 1.0, RunLengths.from_mask(mask))


def _true_tracks(collector: TrackCollector) -> list[TrueTrack]:
    """The tracks of the `_true_instances` so far."""
    return [
        TrueTrack(track.class_id, track.masks, crowd=number // _CLASSES == _CROWD)
        for number, track in collector.tracks.items()
    ]


class InstanceClips:
    """AP and AR on clips, as YouTube-VIS has them; a `ClipEvaluator`.

    True tracks are put together from the frames that were shown, so clips may be cut short.
    """

    def __init__(self, classes: ClassTable) -> None:
        self._things = classes.things
        self._clips: dict[int, tuple[TrackCollector, TrackCollector]] = {}

    def update(self, truth: TrueFrame, frame: PanopticFrame, clip: int, void: Void = None) -> None:
        """See `ClipEvaluator`."""
        true, found = self._clips.setdefault(clip, (TrackCollector(), TrackCollector()))
        true.add(list(_true_instances(truth, self._things, void)))
        found.add(instances(frame))

    def merge(self, other: InstanceClips) -> None:
        """See `ClipEvaluator`."""
        self._clips |= other._clips

    def scores(self) -> dict[str, float]:
        """AP (mean over the IoU thresholds 0.5, 0.55, ... 0.95 and the classes), AP at two of them,
        and the recall of the 10 best tracks of a clip."""
        metric = VideoInstanceAP()
        for _, (true, found) in sorted(self._clips.items()):
            metric.update(_true_tracks(true), _predicted_tracks(found))
        quality = metric.compute()
        return {name: getattr(quality, name) for name in ("ap", "ap50", "ap75", "ar10")}


class InstanceEvaluator(Evaluator[Instances]):
    """The twelve numbers of YouTube-VIS; NaN where the official program has -1."""

    def __init__(self, dataset: VideoDataset) -> None:
        self._categories = range(dataset.class_count)
        self._quality = VideoInstanceAP()
        self._per_sequence: dict[str, dict[str, float]] = {}
        self._collector = TrackCollector()
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: Instances) -> None:
        """Add a frame; ValueError if a track is there twice."""
        self._collector.add(prediction)
        self._frames += 1

    def end_video(self, video: Video) -> None:
        """Compare the tracks; ValueError if a mask has not the size of the video."""
        labelled = youtube_vis(video)
        positions, size = range(len(labelled)), labelled.size
        truth = [
            TrueTrack(row.class_id, [row.run_lengths(t, size) for t in positions], row.crowd)
            for row in labelled.tracks
        ]
        predicted = _predicted_tracks(self._collector)
        self._collector = TrackCollector()
        alone = VideoInstanceAP()
        for metric in (self._quality, alone):
            metric.update(truth, predicted)
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


def _row(quality: VideoInstanceQuality) -> dict[str, float]:
    return {name: getattr(quality, name) for name in _COLUMNS}
