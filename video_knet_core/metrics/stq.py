"""Segmentation and Tracking Quality (Weber et al., STEP, NeurIPS 2021), as in KITTI-STEP.

STQ = sqrt(AQ * SQ). SQ is the mean IoU of the classes. AQ asks of every ground truth tube (one
thing over the whole sequence) how much of it lies under one and the same predicted tube.

The definition in its details is that of deeplab2's `SegmentationTrackingQuality`:

- A tube is (class, id), but AQ compares tubes of any two thing classes.
- Ground truth things with id 0 are crowd: they count for SQ, not for AQ. A predicted id 0 is a
  tube like any other.
- Void ground truth does not count for SQ, but predicted tubes lose AQ for pixels there, unless
  void is dropped.
- Void predicted on valid ground truth is one more class of IoU 0 in SQ, and so is a class that is
  only predicted.
- AQ over several sequences weighs tubes equally; SQ comes from the summed confusion matrix. Both
  differ from the mean over the sequences.

KITTI-STEP has the things 11 and 13. The script of Video K-Net's authors (`eval_dstq_step.py`)
takes 11..18 and drops void; its numbers are higher.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .overlaps import Classes, OverlapMetric, Overlaps
from .vss import class_iou

Tube = tuple[int, int]
"""Class and id."""


@dataclass(frozen=True)
class SequenceQuality:
    """Quality of one sequence; fractions 0..1."""

    stq: float
    aq: float
    """0 if the ground truth has no tubes, as the reference programs have it; see `measured`."""
    sq: float
    """NaN if the ground truth is void everywhere."""
    tubes: int
    """Of the ground truth."""

    @property
    def measured(self) -> tuple[float, float, float]:
        """STQ, AQ and SQ, the first two NaN if the ground truth has no tubes to measure them on."""
        return (self.stq, self.aq, self.sq) if self.tubes else (np.nan, np.nan, self.sq)


@dataclass(frozen=True)
class TrackingQuality(SequenceQuality):
    """Quality of all sequences together; fractions 0..1, NaN before the first valid pixel."""

    per_class: NDArray[np.float64]
    """[K] IoU of each class; NaN for classes in neither ground truth nor prediction."""
    per_sequence: dict[Hashable, SequenceQuality]


@dataclass(frozen=True)
class QualitySums:
    """What STQ of all sequences comes from; sums of several parts of a data set may be added."""

    association: float
    """Sum over the tubes of the ground truth."""
    tubes: int
    confusion: NDArray[np.int64]
    """[K, K + 1] pixels by true and predicted class; the last column is void."""

    def quality(self) -> SequenceQuality:
        """The quality of all that is summed up."""
        return _quality(self.association, self.tubes, self.confusion)


@dataclass
class _Tubes:
    """One sequence: pixels of its classes and tubes."""

    confusion: NDArray[np.int64]
    truth: Counter[Tube] = field(default_factory=Counter)
    predicted: Counter[Tube] = field(default_factory=Counter)
    overlap: Counter[tuple[Tube, Tube]] = field(default_factory=Counter)

    def add(self, overlaps: Overlaps, classes: Classes) -> None:
        """Add the pixels of a frame."""
        rows, columns = overlaps.true_class, overlaps.predicted_class
        valid = rows != classes.ignore
        columns = np.where(columns == classes.ignore, classes.number, columns)
        np.add.at(self.confusion, (rows[valid], columns[valid]), overlaps.pixels[valid])
        things = classes.is_thing(rows)
        crowd = things & (overlaps.true_id == 0)
        self._add_tubes(overlaps, things & ~crowd, classes.is_thing(columns) & ~crowd)

    def _add_tubes(
        self, overlaps: Overlaps, is_true: NDArray[np.bool_], is_predicted: NDArray[np.bool_]
    ) -> None:
        some = is_true | is_predicted
        table = (column.tolist() for column in overlaps.where(some).columns())
        flags = is_true[some].tolist(), is_predicted[some].tolist()
        for true_class, true_id, pred_class, pred_id, pixels, a, b in zip(
            *table, *flags, strict=True
        ):
            truth, predicted = (true_class, true_id), (pred_class, pred_id)
            if a:
                self.truth[truth] += pixels
            if b:
                self.predicted[predicted] += pixels
            if a and b:
                self.overlap[truth, predicted] += pixels

    def association(self) -> float:
        """Sum over ground truth tubes of their association score, 0..1 each."""
        total = 0.0
        for (truth, predicted), pixels in self.overlap.items():
            size = self.truth[truth]
            union = size + self.predicted[predicted] - pixels
            total += pixels / size * pixels / union
        return total


class SegmentationTrackingQuality(OverlapMetric):
    """Collects frames of any number of sequences, frame by frame or in blocks.

    Memory grows with the number of tubes, not of frames; counts are exact.

    Args:
        num_classes: classes are 0..num_classes - 1.
        things: the thing classes.
        ignore: void value of class maps.
        void: "count" charges predicted tubes for their pixels on void ground truth, as KITTI-STEP
            does; "drop" leaves those pixels out, as the script of Video K-Net's authors does.
    """

    def __init__(
        self,
        num_classes: int,
        things: Sequence[int],
        ignore: int = 255,
        void: Literal["count", "drop"] = "count",
    ):
        if void not in ("count", "drop"):
            raise ValueError(f"void: expected 'count' or 'drop', got {void!r}")
        self.classes = Classes(num_classes, tuple(things), ignore)
        self.void = void
        self._sequences: dict[Hashable, _Tubes] = {}

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        number = self.classes.number
        if sequence not in self._sequences:
            self._sequences[sequence] = _Tubes(np.zeros((number, number + 1), np.int64))
        if self.void == "drop":
            overlaps = overlaps.where(overlaps.true_class != self.classes.ignore)
        self._sequences[sequence].add(overlaps, self.classes)

    def compute(self) -> TrackingQuality:
        """Quality of everything seen so far."""
        per_sequence: dict[Hashable, SequenceQuality] = {
            name: _quality(tubes.association(), len(tubes.truth), tubes.confusion)
            for name, tubes in self._sequences.items()
        }
        sums = self.sums()
        total = sums.quality()
        iou = class_iou(sums.confusion)[:-1]
        return TrackingQuality(total.stq, total.aq, total.sq, total.tubes, iou, per_sequence)

    def sums(self) -> QualitySums:
        """What can be added to that of other sequences."""
        confusion = np.zeros((self.classes.number, self.classes.number + 1), np.int64)
        for tubes in self._sequences.values():
            confusion += tubes.confusion
        association = sum(tubes.association() for tubes in self._sequences.values())
        number = sum(len(tubes.truth) for tubes in self._sequences.values())
        return QualitySums(association, number, confusion)


def _quality(association: float, tubes: int, confusion: NDArray[np.int64]) -> SequenceQuality:
    aq = association / tubes if tubes else 0.0
    iou = class_iou(confusion)
    measured = iou[~np.isnan(iou)]
    sq = float(measured.mean()) if len(measured) else float("nan")
    return SequenceQuality(float(np.sqrt(aq * sq)), aq, sq, tubes)
