"""STQ and VPQ of panoptic maps: of data sets as the benchmarks count them and as the authors'
scripts do, and of clips."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..data.datasets import DATASETS
from ..data.predictions import PanopticMaps
from ..data.video import LabelledFrame, Video, VideoDataset
from ..metrics.id_switches import IdSwitches
from ..metrics.overlaps import Classes, count_overlaps
from ..metrics.stq import SegmentationTrackingQuality, SequenceQuality, TrackingQuality
from ..metrics.vpq import Absent, Crowd, PanopticQuality, VideoPanopticQuality
from ..metrics.vss import mean_iou
from ..types import ClassTable, PanopticFrame
from .instances import TrueFrame, Void
from .scores import Evaluator, Scores


@dataclass(frozen=True)
class _Convention:
    """What is left open in STQ and VPQ; see `metrics/stq.py` and `metrics/vpq.py`."""

    stq_things: tuple[int, ...]
    """Classes with tubes in AQ. VPQ has the things of the data set."""
    windows: tuple[int, ...]
    """Lengths in frames whose VPQ is averaged."""
    void: Literal["count", "drop"] = "count"
    absent: Absent = "skip"
    crowd: Crowd = "ignore"


def _benchmark(dataset: VideoDataset) -> _Convention:
    """As the data set itself is scored; custom data as KITTI-STEP."""
    rules = DATASETS[dataset.name].rules
    return _Convention(tuple(sorted(dataset.things)), rules.windows, crowd=rules.crowd)


def _authors(dataset: VideoDataset) -> _Convention:
    """As the scripts of Video K-Net's authors do (`tools/eval_d*.py`).

    They drop void ground truth in STQ and track all things of Cityscapes there; in VPQ a class that
    never occurs counts 0 and a crowd is a segment; on VIPSeg their windows are other ones.
    """
    rules = DATASETS[dataset.name].rules
    return _Convention(
        stq_things=rules.authors_things or tuple(sorted(dataset.things)),
        windows=rules.authors_windows,
        void="drop",
        absent="zero",
        crowd="segment",
    )


def panoptic_maps(frame: PanopticFrame) -> PanopticMaps:
    """The maps of one frame of the predictor."""
    return frame.semantic_map(), frame.track_id_map()


class PanopticClips:
    """STQ, VPQ, mIoU and id switches on clips; a `ClipEvaluator`."""

    def __init__(self, classes: ClassTable) -> None:
        arguments = len(classes), classes.things
        self._classes = Classes(*arguments)
        self._stq = SegmentationTrackingQuality(*arguments)
        self._vpq = VideoPanopticQuality(*arguments)
        self._switches = IdSwitches(*arguments)

    def update(self, truth: TrueFrame, frame: PanopticFrame, clip: int, void: Void = None) -> None:
        """See `ClipEvaluator`."""
        maps = truth.semantic, truth.instance, *panoptic_maps(frame)
        for overlaps in count_overlaps(*maps, self._classes):
            for metric in (self._stq, self._vpq, self._switches):
                metric.add(overlaps, clip)

    def merge(self, other: PanopticClips) -> None:
        """See `ClipEvaluator`."""
        self._stq.merge(other._stq)
        self._vpq.merge(other._vpq)
        self._switches.merge(other._switches)

    def scores(self) -> dict[str, float]:
        """STQ, AQ, SQ; VPQ as Cityscapes-VPS reports it, NaN if clips are shorter than 4 frames;
        mIoU; and of the visibility segments of objects (see `IdSwitches`) their number, the
        fraction with one id from start to end, NaN without any, and the changes of id."""
        quality = self._stq.compute()
        segments, consistent, switches = self._switches.compute()
        return {
            **dict(zip(("stq", "aq", "sq"), quality.measured, strict=True)),
            "vpq": self._vpq.compute().vpq,
            "miou": mean_iou(quality.confusion)[0],
            "segments": segments,
            "id_consistency": consistent / segments if segments else float("nan"),
            "idsw": switches,
        }


class PanopticEvaluator(Evaluator[PanopticMaps]):
    """Both conventions from one count of the pixels."""

    def __init__(self, dataset: VideoDataset) -> None:
        number, vpq_things = dataset.class_count, sorted(dataset.things)
        self._rules = _benchmark(dataset), _authors(dataset)
        things = {*vpq_things, *(c for rule in self._rules for c in rule.stq_things)}
        self._classes = Classes(number, tuple(sorted(things)))
        self._stq = [
            SegmentationTrackingQuality(number, rule.stq_things, rule.void) for rule in self._rules
        ]
        self._vpq = [
            VideoPanopticQuality(number, vpq_things, rule.windows, rule.absent, rule.crowd)
            for rule in self._rules
        ]
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: PanopticMaps) -> None:
        """Add a frame; ValueError if sizes differ or a class is unknown."""
        maps = frame.semantic, frame.instance, *prediction
        for overlaps in count_overlaps(*maps, self._classes):
            for metric in (*self._stq, *self._vpq):
                metric.add(overlaps, video.name)
        self._frames += 1

    def compute(self) -> Scores:
        """STQ, AQ, SQ and VPQ of each sequence and of all."""
        computed = zip(self._rules, self._stq, self._vpq, strict=True)
        official, theirs = (_figures(r, stq.compute(), vpq.compute()) for r, stq, vpq in computed)
        rows = {
            name: [*row.values(), *theirs["per_sequence"][name].values()]
            for name, row in official["per_sequence"].items()
        }
        total = [*official["total"].values(), *theirs["total"].values()]
        columns = ("STQ", "AQ", "SQ", "VPQ")
        return Scores(
            columns={"benchmark": columns, "authors' scripts": columns},
            rows={**rows, f"all ({self._frames} frames)": total},
            figures={"frames": self._frames, **official, "authors": theirs},
        )


def _figures(rule: _Convention, stq: TrackingQuality, vpq: PanopticQuality) -> dict[str, Any]:
    """All scores; the rows of sequences and of the total are those of the table."""
    return {
        "total": _row(stq, vpq.vpq),
        "per_sequence": {
            str(name): _row(row, _mean_of(vpq, str(name))) for name, row in stq.per_sequence.items()
        },
        "class_iou": stq.per_class.tolist(),
        "vpq": {"all": vpq.vpq, "things": vpq.things, "stuff": vpq.stuff},
        "vpq_of_windows": {
            str(window): {
                "all": result.vpq,
                "things": result.things,
                "stuff": result.stuff,
                "classes": result.per_class.tolist(),
            }
            for window, result in vpq.per_window.items()
        },
        "convention": asdict(rule),
    }


def _row(quality: SequenceQuality, vpq: float) -> dict[str, float]:
    """The table's four columns; NaN for what the labels do not allow to measure."""
    return dict(zip(("stq", "aq", "sq", "vpq"), (*quality.measured, vpq), strict=True))


def _mean_of(vpq: PanopticQuality, sequence: str) -> float:
    """VPQ of one sequence by itself; NaN if it is shorter than a window."""
    windows = [result.per_sequence[sequence].vpq for result in vpq.per_window.values()]
    return float(np.mean(windows))
