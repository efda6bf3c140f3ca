"""How good a model is on clips, by the numbers that each task is known for.

Frames come one by one; the scores are of the frames of all processes together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.video import InstanceMasks
from ..evaluate.instances import TrackCollector, instances
from ..metrics.rle import RunLengths
from ..metrics.stq import QualitySums, SegmentationTrackingQuality
from ..metrics.vis import PredictedTrack, TrueTrack, VideoInstanceAP
from ..metrics.vss import MeanIoU
from ..types import NO_CLASS, ClassTable, PanopticFrame
from . import processes

CROWD = 0
"""Id of the things of a class that have none of their own."""


class Frame(Protocol):
    """A labelled frame of a data set or of the synthetic street."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def semantic(self) -> NDArray[np.uint8]: ...
    @property
    def instance(self) -> NDArray[np.integer]: ...
    @property
    def masks(self) -> InstanceMasks | None: ...


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
        return {"stq": quality.stq, "aq": quality.aq, "sq": quality.sq}


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
        self._clips: dict[int, tuple[_TrueTracks, TrackCollector]] = {}

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """See `ClipMetric`."""
        true, predicted = self._clips.setdefault(
            clip, (_TrueTracks(self._things), TrackCollector())
        )
        true.add(truth)
        predicted.add(instances(frame))

    def scores(self, device: torch.device) -> dict[str, float]:
        """See `ClipMetric`."""
        own = {clip: [true.rows(), _rows(found)] for clip, (true, found) in self._clips.items()}
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


class _TrueTracks:
    """The objects of one clip, frame after frame."""

    def __init__(self, things: tuple[int, ...]) -> None:
        self._things, self._frames = things, 0
        self._masks: dict[tuple[int, int], list[RunLengths | None]] = {}
        """By class and id."""

    def add(self, truth: Frame) -> None:
        """Add the next frame."""
        for key, mask in self._objects(truth):
            masks = self._masks.setdefault(key, [])
            masks += [None] * (self._frames - len(masks)) + [RunLengths.from_mask(mask)]
        self._frames += 1

    def rows(self) -> list[dict[str, Any]]:
        """The arguments of `TrueTrack`, as plain data."""
        return [
            {
                "id": f"{class_id}/{track}",
                "category": class_id,
                "masks": _plain(masks + [None] * (self._frames - len(masks))),
                "crowd": track == CROWD,
            }
            for (class_id, track), masks in self._masks.items()
        ]

    def _objects(self, truth: Frame) -> Iterator[tuple[tuple[int, int], NDArray[np.bool_]]]:
        """Whole masks where the labels have them, else what is in front."""
        whole = truth.masks
        if whole is not None:
            keys = zip(whole.class_ids.tolist(), whole.ids.tolist(), strict=True)
            yield from zip(keys, whole.masks, strict=True)
        for class_id in self._things:
            pixels = truth.semantic == class_id
            for track in np.unique(truth.instance[pixels]).tolist():
                if whole is None or track == CROWD:
                    yield (class_id, track), pixels & (truth.instance == track)


def _rows(found: TrackCollector) -> list[dict[str, Any]]:
    """The arguments of `PredictedTrack`, as plain data."""
    return [
        {
            "id": track_id,
            "category": track.class_id,
            "masks": _plain(track.masks),
            "score": track.score,
        }
        for track_id, track in found.tracks.items()
    ]


def _plain(masks: list[RunLengths | None]) -> list[dict | None]:
    return [None if mask is None else mask.to_coco() for mask in masks]


def _masks(row: dict[str, Any]) -> list[RunLengths | None]:
    return [None if mask is None else RunLengths.from_coco(mask) for mask in row["masks"]]


def _total(values: NDArray, device: torch.device) -> NDArray[np.float64]:
    """The sum over all processes; counts of pixels are exact in float64."""
    return processes.total(torch.from_numpy(values.astype(np.float64)).to(device)).cpu().numpy()
