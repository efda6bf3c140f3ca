"""Segmentation and Tracking Quality (Weber et al., STEP, NeurIPS 2021), as in KITTI-STEP.

STQ = sqrt(AQ * SQ). SQ is the mean IoU of the classes. AQ asks of every ground truth tube (one
thing over the whole sequence) how much of it lies under one and the same predicted tube.

The definition in its details is that of deeplab2's `SegmentationTrackingQuality`:

- A tube is (class, id), but AQ compares tubes of any two thing classes.
- Ground truth things with id 0 are crowd: they count for SQ, not for AQ. A predicted id 0 is a
  tube like any other.
- Void ground truth does not count for SQ, but predicted tubes lose AQ for pixels there.
- Void predicted on valid ground truth is one more class of IoU 0 in SQ, and so is a class that is
  only predicted.
- AQ over several sequences weighs tubes equally; SQ comes from the summed confusion matrix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .vss import class_iou, confusion_matrix


@dataclass(frozen=True)
class SequenceQuality:
    """Quality of one sequence; fractions 0..1."""

    stq: float
    aq: float
    """0 if the ground truth has no things."""
    sq: float
    """NaN if the ground truth is void everywhere."""


@dataclass(frozen=True)
class TrackingQuality:
    """Quality of all sequences together; fractions 0..1, NaN before the first valid pixel."""

    stq: float
    aq: float
    sq: float
    per_class: NDArray[np.float64]
    """[K] IoU of each class; NaN for classes in neither ground truth nor prediction."""
    per_sequence: dict[Hashable, SequenceQuality]


@dataclass
class _Tubes:
    """What is known of one sequence: sizes in pixels, tubes by (class, id)."""

    confusion: NDArray[np.int64]
    truth: Counter[int] = field(default_factory=Counter)
    predicted: Counter[int] = field(default_factory=Counter)
    overlap: Counter[tuple[int, int]] = field(default_factory=Counter)

    def association(self) -> float:
        """Sum over ground truth tubes of their association score, 0..1 each."""
        total = 0.0
        for (truth, predicted), pixels in self.overlap.items():
            size = self.truth[truth]
            union = size + self.predicted[predicted] - pixels
            total += pixels / size * pixels / union
        return total


class SegmentationTrackingQuality:
    """Collects frames of any number of sequences, frame by frame or in blocks.

    Memory grows with the number of tubes, not of frames.

    Args:
        num_classes: classes are 0..num_classes - 1.
        things: the thing classes.
        ignore: void value of class maps.
    """

    def __init__(self, num_classes: int, things: Sequence[int], ignore: int = 255):
        unknown = [c for c in things if not 0 <= c < num_classes]
        if unknown:
            raise ValueError(f"thing classes must be 0..{num_classes - 1}, found {unknown}")
        self.num_classes = num_classes
        self.things = tuple(things)
        self.ignore = ignore
        self._sequences: dict[Hashable, _Tubes] = {}

    def update(
        self,
        gt_semantic: NDArray[np.integer],
        gt_instance: NDArray[np.integer],
        pred_semantic: NDArray[np.integer],
        pred_instance: NDArray[np.integer],
        sequence: Hashable = 0,
    ) -> None:
        """Add frames.

        Args:
            gt_semantic, pred_semantic: class maps [H, W] or [T, H, W].
            gt_instance, pred_instance: ids of things, >= 0, same shape; ids hold within a sequence.
            sequence: name of the video that the frames belong to.

        Raises:
            ValueError: shapes differ or a class is unknown.
        """
        for name, ids in (("gt_instance", gt_instance), ("pred_instance", pred_instance)):
            if ids.shape != gt_semantic.shape:
                raise ValueError(f"{name} must be {gt_semantic.shape}, found {ids.shape}")
        counts = confusion_matrix(gt_semantic, pred_semantic, self.num_classes, self.ignore)
        tubes = self._sequences.setdefault(sequence, _Tubes(np.zeros_like(counts)))
        tubes.confusion += counts
        gt_thing = np.isin(gt_semantic, self.things)
        crowd = gt_thing & (gt_instance == 0)
        truth = _tube_keys(gt_semantic, gt_instance, gt_thing & ~crowd)
        pred_thing = np.isin(pred_semantic, self.things) & ~crowd
        predicted = _tube_keys(pred_semantic, pred_instance, pred_thing)
        _count_pixels(tubes, truth, predicted)

    def compute(self) -> TrackingQuality:
        """Quality of everything seen so far."""
        confusion = np.zeros((self.num_classes, self.num_classes + 1), np.int64)
        association, number = 0.0, 0
        per_sequence: dict[Hashable, SequenceQuality] = {}
        for name, tubes in self._sequences.items():
            score = tubes.association()
            per_sequence[name] = _quality(score, len(tubes.truth), tubes.confusion)
            association, number = association + score, number + len(tubes.truth)
            confusion += tubes.confusion
        total = _quality(association, number, confusion)
        return TrackingQuality(
            total.stq, total.aq, total.sq, class_iou(confusion)[:-1], per_sequence
        )


def _tube_keys(
    semantic: NDArray[np.integer], instance: NDArray[np.integer], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """One number per (class, id), -1 outside; flat."""
    keys = instance.astype(np.int64) * 256 + semantic
    return np.where(inside, keys, -1).ravel()


def _count_pixels(tubes: _Tubes, truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> None:
    """Add the sizes of all tubes and of their overlaps."""
    some = (truth >= 0) | (predicted >= 0)
    truth_keys, rows = np.unique(truth[some], return_inverse=True)
    predicted_keys, columns = np.unique(predicted[some], return_inverse=True)
    pairs, sizes = np.unique(rows * len(predicted_keys) + columns, return_counts=True)
    for pair, size in zip(pairs.tolist(), sizes.tolist(), strict=True):
        row, column = divmod(pair, len(predicted_keys))
        a, b = int(truth_keys[row]), int(predicted_keys[column])
        if a >= 0:
            tubes.truth[a] += size
        if b >= 0:
            tubes.predicted[b] += size
        if a >= 0 and b >= 0:
            tubes.overlap[a, b] += size


def _quality(association: float, tubes: int, confusion: NDArray[np.int64]) -> SequenceQuality:
    aq = association / tubes if tubes else 0.0
    iou = class_iou(confusion)
    measured = iou[~np.isnan(iou)]
    sq = float(measured.mean()) if len(measured) else float("nan")
    return SequenceQuality(float(np.sqrt(aq * sq)), aq, sq)
