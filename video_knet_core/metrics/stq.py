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

from ..types import NO_CLASS
from .overlaps import Classes, OverlapMetric, Overlaps
from .vss import class_iou

_Tube = tuple[int, int]
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

    confusion: NDArray[np.int64]
    """[K, K + 1] pixels by true and predicted class; the last column is void."""
    per_sequence: dict[Hashable, SequenceQuality]

    @property
    def per_class(self) -> NDArray[np.float64]:
        """[K] IoU of each class; NaN for classes in neither ground truth nor prediction."""
        return class_iou(self.confusion)[:-1]


@dataclass
class _Tubes:
    """One sequence: pixels of its classes and tubes."""

    confusion: NDArray[np.int64]
    truth: Counter[_Tube] = field(default_factory=Counter)
    predicted: Counter[_Tube] = field(default_factory=Counter)
    overlap: Counter[tuple[_Tube, _Tube]] = field(default_factory=Counter)

    def add(self, overlaps: Overlaps, classes: Classes) -> None:
        """Add the pixels of a frame."""
        rows, columns = overlaps.true_class, overlaps.predicted_class
        valid = rows != NO_CLASS
        columns = np.where(columns == NO_CLASS, classes.number, columns)
        np.add.at(self.confusion, (rows[valid], columns[valid]), overlaps.pixels[valid])
        things = classes.is_thing(rows)
        crowd = things & (overlaps.true_id == 0)
        is_true, is_predicted = things & ~crowd, classes.is_thing(columns) & ~crowd
        some = is_true | is_predicted
        table = (column[some].tolist() for column in (*overlaps, is_true, is_predicted))
        for true_class, true_id, pred_class, pred_id, pixels, a, b in zip(*table, strict=True):
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
        num_classes, things: see `OverlapMetric`.
        void: "count" charges predicted tubes for their pixels on void ground truth, as KITTI-STEP
            does; "drop" leaves those pixels out, as the script of Video K-Net's authors does.
    """

    def __init__(
        self, num_classes: int, things: Sequence[int], void: Literal["count", "drop"] = "count"
    ):
        super().__init__(num_classes, things)
        self.void = void

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        if sequence not in self._sequences:
            self._sequences[sequence] = _Tubes(self._no_pixels())
        if self.void == "drop":
            overlaps = overlaps.where(overlaps.true_class != NO_CLASS)
        self._sequences[sequence].add(overlaps, self.classes)

    def compute(self) -> TrackingQuality:
        """Quality of everything seen so far."""
        confusion, association, number = self._no_pixels(), 0.0, 0
        per_sequence: dict[Hashable, SequenceQuality] = {}
        for name, tubes in self._sequences.items():
            score, count = tubes.association(), len(tubes.truth)
            per_sequence[name] = SequenceQuality(*_scores(score, count, tubes.confusion), count)
            confusion += tubes.confusion
            association += score
            number += count
        scores = _scores(association, number, confusion)
        return TrackingQuality(*scores, number, confusion, per_sequence)

    def _no_pixels(self) -> NDArray[np.int64]:
        return np.zeros((self.classes.number, self.classes.number + 1), np.int64)


def _scores(
    association: float, tubes: int, confusion: NDArray[np.int64]
) -> tuple[float, float, float]:
    """STQ, AQ and SQ."""
    aq = association / tubes if tubes else 0.0
    iou = class_iou(confusion)
    measured = iou[~np.isnan(iou)]
    sq = float(measured.mean()) if len(measured) else float("nan")
    return float(np.sqrt(aq * sq)), aq, sq
