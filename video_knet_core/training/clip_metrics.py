"""How good a model is on clips, by the numbers that each task is known for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.predictions import TrackCollector
from ..evaluate.instances import TrueTrackCollector, TruthOfFrame, instances, predicted_tracks
from ..metrics.stq import QualitySums, SegmentationTrackingQuality
from ..metrics.vis import VideoInstanceAP
from ..metrics.vss import MeanIoU
from ..tasks import INSTANCE, PANOPTIC, SEMANTIC
from ..types import NO_CLASS, ClassTable, PanopticFrame

if TYPE_CHECKING:
    from typing_extensions import Self


class Frame(TruthOfFrame, Protocol):
    """A labelled frame of a data set or of the synthetic street, with its image."""

    @property
    def image(self) -> NDArray[np.uint8]: ...


class ClipMetric(Protocol):
    """Compares predictions with labels, any number of clips; processes exchange it by pickle."""

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """Add the next frame of clip number `clip`; ValueError if the two do not fit."""
        ...

    def scores(self, others: Sequence[Self] = ()) -> dict[str, float]:
        """Scores 0..1 by name (NaN where nothing could be measured), as `Task.metrics`.

        They are of the clips of this metric and of `others`, those of other processes.
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

    def scores(self, others: Sequence[Self] = ()) -> dict[str, float]:
        """See `ClipMetric`."""
        sums = [metric._metric.sums() for metric in (self, *others)]
        quality = QualitySums(
            sum(s.association for s in sums),
            sum(s.tubes for s in sums),
            np.sum([s.confusion for s in sums], 0),
        ).quality()
        return dict(zip(PANOPTIC.metrics, quality.measured, strict=True))


class SemanticMetric:
    """mIoU over the classes that occur."""

    def __init__(self, classes: ClassTable) -> None:
        self._metric = MeanIoU(len(classes), ignore=NO_CLASS)

    def update(self, truth: Frame, frame: PanopticFrame, clip: int) -> None:
        """See `ClipMetric`."""
        self._metric.update(truth.semantic, frame.semantic_map())

    def scores(self, others: Sequence[Self] = ()) -> dict[str, float]:
        """See `ClipMetric`."""
        everywhere = MeanIoU(self._metric.num_classes, self._metric.ignore)
        for metric in (self, *others):
            everywhere.confusion += metric._metric.confusion
        return dict(zip(SEMANTIC.metrics, [everywhere.compute().miou], strict=True))


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

    def scores(self, others: Sequence[Self] = ()) -> dict[str, float]:
        """See `ClipMetric`."""
        clips = {n: clip for metric in (self, *others) for n, clip in metric._clips.items()}
        metric = VideoInstanceAP(self._things, absent=np.nan)
        for number, (true, predicted) in sorted(clips.items()):
            metric.update(true.true(), predicted_tracks(predicted), number)
        quality = metric.compute()
        return dict(zip(INSTANCE.metrics, (quality.ap, quality.ap50), strict=True))
