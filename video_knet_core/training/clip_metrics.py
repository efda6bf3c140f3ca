"""How good a model is on clips, by the numbers that each task is known for.

Frames come one by one; the scores are of the frames of all processes together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.instance_tracks import TrackCollector
from ..evaluate.instances import (
    TrueTrackCollector,
    TruthOfFrame,
    instances,
    predicted_tracks,
)
from ..metrics.stq import QualitySums, SegmentationTrackingQuality
from ..metrics.vis import PredictedTrack, TrueTrack, VideoInstanceAP
from ..metrics.vss import MeanIoU
from ..run_lengths import RunLengths
from ..types import NO_CLASS, ClassTable, PanopticFrame
from . import processes


class Frame(TruthOfFrame, Protocol):
    """A labelled frame of a data set or of the synthetic street, with its image."""

    @property
    def image(self) -> NDArray[np.uint8]: ...


class ClipMetric(Protocol):
    """Compares predictions with labels, any number of clips."""

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """Add the next frame of clip number `clip`; ValueError if the two do not fit."""
        ...

    def scores(self, device: torch.device) -> dict[str, float]:
        """Scores 0..1 by name (NaN where nothing could be measured), the one that counts first.

        All processes must ask; they exchange what they have through memory of `device`.
        """
        ...


class PanopticMetric:
    """STQ, and AQ and SQ that it is made of."""

    def __init__(self, classes: ClassTable) -> None:
        self._metric = SegmentationTrackingQuality(len(classes), classes.things, ignore=NO_CLASS)

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """See `ClipMetric`."""
        maps = frame.semantic_map(), frame.track_id_map()
        self._metric.update(truth.semantic, truth.instance, *maps, clip)

    def scores(self, device: torch.device) -> dict[str, float]:
        """See `ClipMetric`."""
        sums = self._metric.sums()
        values = _total(
            np.concatenate([[sums.association, sums.tubes], sums.confusion.ravel()]), device
        )
        confusion = values[2:].astype(np.int64).reshape(sums.confusion.shape)
        quality = QualitySums(float(values[0]), int(values[1]), confusion).quality()
        return dict(zip(("stq", "aq", "sq"), quality.measured, strict=True))


class SemanticMetric:
    """mIoU over the classes that occur."""

    def __init__(self, classes: ClassTable) -> None:
        self._metric = MeanIoU(len(classes), ignore=NO_CLASS)

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """See `ClipMetric`."""
        self._metric.update(truth.semantic, frame.semantic_map())

    def scores(self, device: torch.device) -> dict[str, float]:
        """See `ClipMetric`."""
        everywhere = MeanIoU(self._metric.num_classes, self._metric.ignore)
        everywhere.confusion += _total(self._metric.confusion, device).astype(np.int64)
        return {"miou": everywhere.compute().miou}


class InstanceMetric:
    """AP of tracks, as YouTube-VIS has it, and AP at an IoU of a half.

    True tracks are put together from the frames that were shown, so clips may be cut short. Things
    without an id are a crowd.
    """

    def __init__(self, classes: ClassTable) -> None:
        self._things = classes.things
        self._clips: dict[int, tuple[TrueTrackCollector, TrackCollector]] = {}

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """See `ClipMetric`."""
        true, predicted = self._clips.setdefault(
            clip, (TrueTrackCollector(self._things), TrackCollector())
        )
        true.add(truth)
        predicted.add(instances(frame))

    def scores(self, device: torch.device) -> dict[str, float]:
        """See `ClipMetric`."""
        own = {
            clip: [
                [_row(track) for track in part] for part in (true.true(), predicted_tracks(found))
            ]
            for clip, (true, found) in self._clips.items()
        }
        clips: dict[str, list] = {}
        for text in processes.gathered(json.dumps(own), device):
            clips |= json.loads(text)
        metric = VideoInstanceAP(self._things, absent=np.nan)
        for clip in sorted(clips, key=int):
            true, predicted = clips[clip]
            metric.update(
                [TrueTrack(**row | {"masks": _masks(row)}) for row in true],
                [PredictedTrack(**row | {"masks": _masks(row)}) for row in predicted],
                clip,
            )
        quality = metric.compute()
        return {"ap": quality.ap, "ap50": quality.ap50}


def _row(track: TrueTrack | PredictedTrack) -> dict[str, Any]:
    """The arguments of a track, as plain data."""
    fields = {f.name: getattr(track, f.name) for f in dataclasses.fields(track)}
    masks: Sequence[RunLengths | None] = fields["masks"]  # what the collectors keep
    return fields | {"masks": [None if mask is None else mask.to_coco() for mask in masks]}


def _masks(row: dict[str, Any]) -> list[RunLengths | None]:
    return [None if mask is None else RunLengths.from_coco(mask) for mask in row["masks"]]


def _total(values: NDArray, device: torch.device) -> NDArray[np.float64]:
    """The sum over all processes; counts of pixels are exact in float64."""
    return processes.total(torch.from_numpy(values.astype(np.float64)).to(device)).cpu().numpy()
