"""STQ and VPQ of panoptic maps: of data sets as the benchmarks count them and as the authors'
scripts do, and of clips; and how well the boxes of things are tracked."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.datasets import DATASETS
from ..data.predictions import PanopticMaps
from ..data.video import LabelledFrame, Video, VideoDataset
from ..metrics.box_tracking import BoxScores, BoxTracking, TrackedBoxes
from ..metrics.id_switches import IdSwitches
from ..metrics.overlaps import Classes, count_overlaps
from ..metrics.stq import SegmentationTrackingQuality, SequenceQuality, TrackingQuality
from ..metrics.vpq import Absent, Crowd, PanopticQuality, VideoPanopticQuality
from ..metrics.vss import mean_iou
from ..types import NO_CLASS, ClassTable, PanopticFrame
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


_BOX_COLUMNS = {
    **{"found": "found", "missed": "missed", "false": "false", "switches": "IDSW"},
    **{"mota": "MOTA", "idf1": "IDF1", "hota": "HOTA", "ids": "ids"},
}
"""Field of `BoxScores` -> name in the table."""


def tracked_boxes(frame: PanopticFrame) -> TrackedBoxes:
    """The boxes of the masks of all tracks that are seen in one frame of the predictor."""
    rows = frame.tracks.array
    rows = rows[(rows["label"] > 0) & (rows["track_id"] > 0)]
    return TrackedBoxes(rows["track_id"], rows["class_id"], rows["box"])


def _add_boxes(
    metric: BoxTracking,
    truth: TrueFrame,
    found: TrackedBoxes,
    things: Sequence[int],
    sequence: Hashable = 0,
) -> None:
    """Compare the boxes of one frame with the labelled ones, or else with those of the masks.

    A box of which more than half has no label, or that of a thing without an id, is unlabelled.
    """
    unlabelled = truth.semantic == NO_CLASS
    unlabelled |= np.isin(truth.semantic, things) & (truth.instance == 0)
    if truth.boxes is None:
        true = TrackedBoxes.of_maps(truth.semantic, truth.instance, things)
    else:
        true = TrackedBoxes(truth.boxes.ids, truth.boxes.class_ids, truth.boxes.boxes)
        for x, y, width, height in truth.boxes.ignored.tolist():
            rows, columns = (
                slice(max(round(a), 0), max(round(b), 0))
                for a, b in ((y, y + height), (x, x + width))
            )
            unlabelled[rows, columns] = True
    metric.update(true, found, _fractions(unlabelled, found.boxes) > 0.5, sequence)


def _fractions(mask: NDArray[np.bool_], boxes: NDArray[np.integer]) -> NDArray[np.float64]:
    """[M] fraction of each box [M, 4] (x, y, width, height) that is in a mask [H, W]."""
    sums = cv2.integral(mask.astype(np.uint8))
    x, y, width, height = np.asarray(boxes, np.int64).reshape(-1, 4).T
    inside = sums[y + height, x + width] - sums[y, x + width] - sums[y + height, x] + sums[y, x]
    return inside / (width * height)


class PanopticClips:
    """STQ, VPQ, mIoU, id switches and tracking of boxes on clips; a `ClipEvaluator`."""

    def __init__(self, classes: ClassTable) -> None:
        arguments = len(classes), classes.things
        self._classes = Classes(*arguments)
        self._stq = SegmentationTrackingQuality(*arguments)
        self._vpq = VideoPanopticQuality(*arguments)
        self._switches = IdSwitches(*arguments)
        self._boxes = BoxTracking()

    def update(self, truth: TrueFrame, frame: PanopticFrame, clip: int, void: Void = None) -> None:
        """See `ClipEvaluator`."""
        maps = truth.semantic, truth.instance, *panoptic_maps(frame)
        for overlaps in count_overlaps(*maps, self._classes):
            for metric in (self._stq, self._vpq, self._switches):
                metric.add(overlaps, clip)
        _add_boxes(self._boxes, truth, tracked_boxes(frame), self._classes.things, clip)

    def merge(self, other: PanopticClips) -> None:
        """See `ClipEvaluator`."""
        self._stq.merge(other._stq)
        self._vpq.merge(other._vpq)
        self._switches.merge(other._switches)
        self._boxes.merge(other._boxes)

    def scores(self) -> dict[str, float]:
        """STQ, AQ, SQ; VPQ as Cityscapes-VPS reports it, NaN if clips are shorter than 4 frames;
        mIoU; of the visibility segments of objects (see `IdSwitches`) their number, the
        fraction with one id from start to end, NaN without any, and the changes of id; and of
        boxes what `BoxScores` has."""
        quality = self._stq.compute()
        segments, consistent, switches = self._switches.compute()
        return {
            **dict(zip(("stq", "aq", "sq"), quality.measured, strict=True)),
            "vpq": self._vpq.compute().vpq,
            "miou": mean_iou(quality.confusion)[0],
            "segments": segments,
            "id_consistency": consistent / segments if segments else float("nan"),
            "idsw": switches,
            **{f"box_{name}": value for name, value in asdict(self._boxes.compute()).items()},
        }


class PanopticEvaluator(Evaluator[PanopticMaps]):
    """Both conventions from one count of the pixels, and the tracking of boxes."""

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
        self._things = vpq_things
        self._boxes: dict[str, BoxTracking] = {}
        self._frames = 0

    def update(self, video: Video, frame: LabelledFrame, prediction: PanopticMaps) -> None:
        """Add a frame; ValueError if sizes differ or a class is unknown."""
        maps = frame.semantic, frame.instance, *prediction
        for overlaps in count_overlaps(*maps, self._classes):
            for metric in (*self._stq, *self._vpq):
                metric.add(overlaps, video.name)
        boxes = self._boxes.setdefault(video.name, BoxTracking())
        found = TrackedBoxes.of_maps(*prediction, self._things)
        _add_boxes(boxes, frame, found, self._things, video.name)
        self._frames += 1

    def compute(self) -> Scores:
        """STQ, AQ, SQ, VPQ and the scores of boxes of each sequence and of all."""
        computed = zip(self._rules, self._stq, self._vpq, strict=True)
        official, theirs = (_figures(r, stq.compute(), vpq.compute()) for r, stq, vpq in computed)
        together = BoxTracking()
        for metric in self._boxes.values():
            together.merge(metric)
        boxes = {name: metric.compute() for name, metric in self._boxes.items()}
        all_boxes = together.compute()
        rows = {
            name: [*row.values(), *theirs["per_sequence"][name].values(), *_box_row(boxes[name])]
            for name, row in official["per_sequence"].items()
        }
        total = [*official["total"].values(), *theirs["total"].values(), *_box_row(all_boxes)]
        columns = ("STQ", "AQ", "SQ", "VPQ")
        return Scores(
            columns={
                "benchmark": columns,
                "authors' scripts": columns,
                "boxes": list(_BOX_COLUMNS.values()),
            },
            rows={**rows, f"all ({self._frames} frames)": total},
            figures={
                "frames": self._frames,
                **official,
                "authors": theirs,
                "boxes": {
                    "total": asdict(all_boxes),
                    "per_sequence": {name: asdict(row) for name, row in boxes.items()},
                },
            },
        )


def _box_row(scores: BoxScores) -> list[float]:
    return [getattr(scores, name) for name in _BOX_COLUMNS]


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
