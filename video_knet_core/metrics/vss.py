"""Video semantic segmentation: mean intersection over union and consistency over time, as in VSPW.

mIoU is the one of most segmentation sets. Video consistency VC_C looks at windows of C frames: of
the pixels whose ground truth keeps its label through the window, how many keep their predicted
label? mVC_C is its mean over all windows of all videos (Miao et al., VSPW, CVPR 2021). The details
here are those of the released code (VSPW_baseline, `VC_perclip.py` and `utils.py`):

- VC ignores whether the prediction is right: a constant wrong label scores 1. Read as sets of
  labelled pixels, the formula of the paper includes it; that is `correct_mvc`.
- The last window of a video is not used, so a video needs C + 1 frames.
- Void pixels count in VC, and the raw labels "others" and void differ; see `vspw_labels`. They
  never count for mIoU or `correct_mvc`.
- A window without constant ground truth is left out of the mean.
- A class that is only predicted does not enter mIoU. (The released code books predicted void under
  a wrong class; here it is a wrong prediction of its pixel, and an ordinary label for VC.)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS

OTHERS, VOID = 254, 255
"""Labels of VSPW pixels without a class: of no listed class, and not annotated."""


def vspw_labels(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mask values of VSPW (0 others, 1..124 classes, 255 void) as 0..123, OTHERS or VOID."""
    labels = raw - np.uint8(1)  # 0 wraps round to 255
    labels[raw == 0] = OTHERS
    labels[raw == 255] = VOID
    return labels


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K + 1] of the classes and of predicted void, from pixels [K, K + 1] by true and
    predicted class; NaN where the union is empty."""
    intersection = np.append(np.diag(confusion), 0).astype(np.float64)
    union = np.append(confusion.sum(1), 0) + confusion.sum(0) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def mean_iou(confusion: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """Mean IoU of the classes that occur in the ground truth, and the IoU [K] of each of them,
    from pixels [K, K + 1] by true and predicted class; NaN where nothing was measured."""
    present = confusion.sum(1) > 0
    iou = np.where(present, class_iou(confusion)[:-1], np.nan)
    return float(iou[present].mean()) if present.any() else np.nan, iou


class MeanIoU:
    """Pixel-wise IoU over all updates together; memory does not grow.

    Args:
        num_classes: classes are 0..num_classes - 1.
        void: labels that are no class: such ground truth does not count, such a prediction is
            wrong.
    """

    def __init__(self, num_classes: int, void: Sequence[int] = (NO_CLASS,)):
        self.num_classes, self.void = num_classes, tuple(void)
        self.confusion = np.zeros((num_classes, num_classes + 1), np.int64)
        """[K, K + 1] pixels by true and predicted class, the last column void. They add up."""

    def update(self, gt: NDArray[np.integer], pred: NDArray[np.integer]) -> None:
        """Add class maps [H, W] or [T, H, W]; ValueError on other arrays or unknown classes."""
        if gt.shape != pred.shape or gt.ndim not in (2, 3):
            raise ValueError(
                "ground truth and prediction: expected both [H, W] or [T, H, W], "
                f"got {gt.shape} and {pred.shape}"
            )
        rows, columns = self._numbers("ground truth", gt), self._numbers("prediction", pred)
        size = self.num_classes + 1
        counts = np.bincount((rows * size + columns).ravel(), minlength=size * size)
        self.confusion += counts.reshape(size, size)[:-1]

    def compute(self) -> float:
        """mIoU of everything seen so far; see `mean_iou`."""
        return mean_iou(self.confusion)[0]

    def _numbers(self, name: str, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The classes, and num_classes for void."""
        if labels.dtype.kind not in "iu":
            raise ValueError(f"{name}: expected integers, got {labels.dtype}")
        is_class = (labels >= 0) & (labels < self.num_classes)
        unknown = ~(is_class | np.isin(labels, self.void))
        if unknown.any():
            raise ValueError(
                f"{name}: expected classes 0..{self.num_classes - 1} or {self.void} (void), "
                f"got {labels[unknown][0]}"
            )
        return np.where(is_class, labels, self.num_classes).astype(np.int64)


@dataclass(frozen=True)
class SemanticQuality:
    """Quality of one video; fractions 0..1, NaN where nothing was measured."""

    miou: float
    mvc: dict[int, float]
    """By window length: of the pixels of constant ground truth, those of constant prediction."""
    correct_mvc: dict[int, float]
    """The stricter one: of the non-void pixels of constant ground truth, those always right."""


@dataclass(frozen=True)
class VideoSemanticQuality(SemanticQuality):
    """Quality of all videos together."""

    per_class: NDArray[np.float64]
    """[K] IoU; NaN for classes that do not occur in the ground truth."""
    per_sequence: dict[Hashable, SemanticQuality]


class VideoSemanticConsistency:
    """mIoU and mVC of any number of videos, frame by frame or in blocks.

    Five maps [H, W] are kept for each video until it is closed, whatever the window.

    Args:
        num_classes: classes are 0..num_classes - 1.
        windows: lengths of the windows in frames.
        void: labels of pixels without a class, each a label of its own for `mvc`.
    """

    def __init__(
        self,
        num_classes: int,
        windows: Sequence[int] = (8, 16),
        void: Sequence[int] = (OTHERS, VOID),
    ):
        self.num_classes, self.windows, self.void = num_classes, tuple(windows), tuple(void)
        self._sequences: dict[Hashable, _Sequence] = {}

    def update(
        self, gt: NDArray[np.integer], pred: NDArray[np.integer], sequence: Hashable = 0
    ) -> None:
        """Add the next frames of a video.

        Args:
            gt, pred: labels [H, W] or [T, H, W], classes or void.
            sequence: name of the video; all its frames have one size.

        Raises:
            ValueError: wrong shape, no integers, or an unknown label.
        """
        video = self._sequences.get(sequence)
        if video is None:
            video = _Sequence(self.windows, MeanIoU(self.num_classes, self.void))
        size = gt.shape[-2:]
        if video.newest is not None and video.newest[0].shape != size:
            expected = video.newest[0].shape
            raise ValueError(f"frames of sequence {sequence!r}: expected {expected}, got {size}")
        video.regions.update(gt, pred)
        self._sequences[sequence] = video
        frames = zip(gt.reshape(-1, *size), pred.reshape(-1, *size), strict=True)
        for truth, predicted in frames:
            video.add(truth, predicted, self.num_classes)

    def close(self, sequence: Hashable) -> None:
        """Free the maps of a video that has ended: no window goes beyond this."""
        if sequence in self._sequences:
            self._sequences[sequence].newest = None

    def compute(self) -> VideoSemanticQuality:
        """Quality of everything seen so far."""
        sums, counts = np.zeros((2, 2, len(self.windows)))
        regions = MeanIoU(self.num_classes)
        per_sequence = {}
        for name, video in self._sequences.items():
            per_sequence[name] = self._quality(video.regions, video.sums, video.counts)
            sums += video.sums
            counts += video.counts
            regions.confusion += video.regions.confusion
        total = self._quality(regions, sums, counts)
        per_class = mean_iou(regions.confusion)[1]
        return VideoSemanticQuality(
            total.miou, total.mvc, total.correct_mvc, per_class, per_sequence
        )

    def _quality(
        self, regions: MeanIoU, sums: NDArray[np.float64], counts: NDArray[np.float64]
    ) -> SemanticQuality:
        """From sums and numbers [2, number of window lengths] of windows."""
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        loose, strict = (dict(zip(self.windows, m, strict=True)) for m in means.tolist())
        return SemanticQuality(regions.compute(), loose, strict)


class _Sequence:
    """One video: its scores so far and, until it is closed, its newest labels.

    `sums` and `counts` are [2, number of window lengths]: mvc, correct_mvc.
    """

    def __init__(self, windows: Sequence[int], regions: MeanIoU):
        self.windows, self.regions = windows, regions
        self.sums = np.zeros((2, len(windows)))
        self.counts = np.zeros((2, len(windows)))
        self.newest: tuple[NDArray[np.integer], ...] | None = None
        """Labels [H, W] of the newest frame, true and predicted, and [3, H, W] for how many frames
        each pixel has kept its true label, its predicted one, and been right. These stand for the
        frames: a window is constant where the run is as long."""

    def add(self, gt: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int) -> None:
        """Add labels [H, W]; the windows that end with the frame before are not the last ones."""
        longest, valid = max(self.windows), gt < num_classes
        if self.newest is None:
            old_gt, old_pred = gt, pred
            runs: NDArray[np.integer] = np.zeros((3, *gt.shape), np.min_scalar_type(longest))
        else:
            old_gt, old_pred, runs = self.newest
            self._count_windows(old_gt < num_classes, runs)
        holds = gt == old_gt, pred == old_pred, valid & (gt == pred)
        for run, kept, start in zip(runs, holds, (1, 1, 0), strict=True):
            run[...] = np.where(kept, np.minimum(run, longest - 1) + 1, start)
        self.newest = gt.copy(), pred.copy(), runs  # a view would keep the whole block of frames

    def _count_windows(self, valid: NDArray[np.bool_], runs: NDArray[np.integer]) -> None:
        """Add the windows that end with the newest frame."""
        for number, window in enumerate(self.windows):
            truth, predicted, right = runs >= window
            for row, (part, whole) in enumerate(((predicted, truth), (right, truth & valid))):
                if size := np.count_nonzero(whole):
                    self.sums[row, number] += np.count_nonzero(part & whole) / size
                    self.counts[row, number] += 1
