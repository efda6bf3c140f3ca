"""Semantic quality: mean intersection over union, as VSPW and most segmentation sets define it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SemanticQuality:
    """Scores are fractions, 0..1; NaN where nothing was measured."""

    miou: float
    """Mean IoU of the classes that occur in the ground truth."""
    per_class: NDArray[np.float64]
    """[K] IoU; NaN for classes that do not occur in the ground truth."""


class MeanIoU:
    """Pixel-wise IoU over all updates together; memory does not grow.

    Args:
        num_classes: classes are 0..num_classes - 1.
        ignore: ground truth pixels of this value do not count; a prediction of it is wrong.
    """

    def __init__(self, num_classes: int, ignore: int = 255):
        self.num_classes = num_classes
        self.ignore = ignore
        self._confusion = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, gt: NDArray[np.integer], pred: NDArray[np.integer]) -> None:
        """Add class maps [H, W] or [T, H, W]; ValueError on other shapes or unknown classes."""
        self._confusion += confusion_matrix(gt, pred, self.num_classes, self.ignore)

    def compute(self) -> SemanticQuality:
        """Quality of everything seen so far."""
        present = self._confusion.sum(1) > 0
        iou = np.where(present, class_iou(self._confusion)[:-1], np.nan)
        return SemanticQuality(float(iou[present].mean()) if present.any() else np.nan, iou)


def confusion_matrix(
    gt: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """Count pixels by (ground truth class, predicted class): int64 [K, K + 1].

    Pixels with ignored ground truth are left out; the last column is a prediction of `ignore`.

    Raises:
        ValueError: shapes differ, are not [H, W] or [T, H, W], or a class is unknown.
    """
    if gt.shape != pred.shape or gt.ndim not in (2, 3):
        raise ValueError(
            "ground truth and prediction must both be [H, W] or [T, H, W], "
            f"found {gt.shape} and {pred.shape}"
        )
    columns = num_classes + 1
    valid = gt != ignore
    rows = checked_classes("ground truth", gt[valid], num_classes, ignore)
    guesses = checked_classes("prediction", pred, num_classes, ignore)[valid]
    guesses[guesses == ignore] = num_classes
    counts = np.bincount(rows * columns + guesses, minlength=num_classes * columns)
    return counts.reshape(num_classes, columns)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K + 1] of the classes and of predicted void; NaN where the union is empty."""
    intersection = np.append(np.diag(confusion), 0).astype(np.float64)
    union = np.append(confusion.sum(1), 0) + confusion.sum(0) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def checked_classes(
    name: str, classes: NDArray[np.integer], num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """The class values as int64 (a copy); ValueError if one is neither a class nor `ignore`."""
    values = classes.astype(np.int64)
    unknown = (values != ignore) & ((values < 0) | (values >= num_classes))
    if unknown.any():
        raise ValueError(
            f"{name} holds class {values[unknown][0]}, "
            f"wanted 0..{num_classes - 1} or {ignore} (ignore)"
        )
    return values
