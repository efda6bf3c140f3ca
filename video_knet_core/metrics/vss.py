"""Video semantic segmentation: mean intersection over union and consistency over time, as in VSPW.

mIoU is the one of most segmentation sets. Video consistency VC_C looks at windows of C frames: of
the pixels whose ground truth keeps its label through the window, how many keep their predicted
label? mVC_C is its mean over all windows of all videos (Miao et al., VSPW, CVPR 2021). The details
here are those of the released code (VSPW_baseline, `VC_perclip.py` and `utils.py`):

- VC ignores whether the prediction is right: a constant wrong label scores 1. Read as sets of
  labelled pixels, the formula of the paper includes it; that is `correct_mvc`.
- The last window of a video is not used, so a video needs C + 1 frames. `last_window` uses it.
- Void pixels count in VC, and the raw labels "others" and void differ; see `vspw_labels`. With
  `merge_void` they are one label. They never count for mIoU or `correct_mvc`.
- A window without constant ground truth is left out of the mean.
- A class that is only predicted does not enter mIoU. (The released code books predicted void under
  a wrong class; here it is a wrong prediction of its pixel, and an ordinary label for VC.)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
        self.confusion = np.zeros((num_classes, num_classes + 1), np.int64)
        """[K, K + 1] pixels by true and predicted class, the last column of none. They add up."""

    def update(self, gt: NDArray[np.integer], pred: NDArray[np.integer]) -> None:
        """Add class maps [H, W] or [T, H, W]; ValueError on other shapes or unknown classes."""
        self.confusion += confusion_matrix(gt, pred, self.num_classes, self.ignore)

    def compute(self) -> SemanticQuality:
        """Quality of everything seen so far."""
        present = self.confusion.sum(1) > 0
        iou = np.where(present, class_iou(self.confusion)[:-1], np.nan)
        return SemanticQuality(float(iou[present].mean()) if present.any() else np.nan, iou)


OTHERS, VOID = 254, 255
"""Labels of VSPW pixels without a class: of no listed class, and not annotated."""


def vspw_labels(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mask values of VSPW (0 others, 1..124 classes, 255 void) as 0..123, OTHERS or VOID."""
    labels = raw - np.uint8(1)  # 0 wraps round to 255
    labels[raw == 0] = OTHERS
    labels[raw == 255] = VOID
    return labels


@dataclass(frozen=True)
class SequenceConsistency:
    """Consistency of one video by window length; fractions 0..1, NaN without a window."""

    mvc: dict[int, float]
    correct_mvc: dict[int, float]


@dataclass(frozen=True)
class VideoSemanticQuality(SemanticQuality):
    """The same and consistency over time."""

    mvc: dict[int, float]
    """By window length: of the pixels of constant ground truth, those of constant prediction."""
    correct_mvc: dict[int, float]
    """The stricter one: of the non-void pixels of constant ground truth, those always right."""
    per_sequence: dict[Hashable, SequenceConsistency]


class VideoSemanticConsistency:
    """mIoU and mVC of any number of videos, frame by frame or in blocks.

    Five maps [H, W] are kept for each video until it is closed, whatever the window.

    Args:
        num_classes: classes are 0..num_classes - 1.
        windows: lengths of the windows in frames.
        void: labels of pixels without a class, each a label of its own for `mvc`.
        merge_void: take all void labels for one, as programs do that convert the masks first.
        last_window: also use the window that ends with the last frame of a video.

    Raises:
        ValueError: no window, a window below 1, no void label, or one that is a class.
    """

    def __init__(
        self,
        num_classes: int,
        windows: Sequence[int] = (8, 16),
        void: Sequence[int] = (OTHERS, VOID),
        merge_void: bool = False,
        last_window: bool = False,
    ):
        if not windows or min(windows) < 1:
            raise ValueError(f"windows: expected lengths of 1 frame or more, got {windows}")
        if not void or any(0 <= label < num_classes for label in void):
            raise ValueError(
                f"void: expected labels other than the classes 0..{num_classes - 1}, got {void}"
            )
        self.num_classes = num_classes
        self.windows = tuple(windows)
        self.void = tuple(void)
        self.merge_void = merge_void
        self.last_window = last_window
        self._regions = MeanIoU(num_classes, ignore=num_classes)
        self._sequences: dict[Hashable, _Sequence] = {}

    def update(
        self, gt: NDArray[np.integer], pred: NDArray[np.integer], sequence: Hashable = 0
    ) -> None:
        """Add the next frames of a video.

        Args:
            gt, pred: labels [H, W] or [T, H, W], classes or void.
            sequence: name of the video; all its frames have one size.

        Raises:
            ValueError: wrong shape, no integers, an unknown label, or the video is closed.
        """
        truth, predicted = self._labels("ground truth", gt), self._labels("prediction", pred)
        video = self._sequences.get(sequence) or _Sequence(self.windows, self.num_classes)
        video.check_open(sequence, gt.shape[-2:])
        void = self.num_classes
        self._regions.update(np.minimum(truth, void), np.minimum(predicted, void))
        self._sequences[sequence] = video
        frames = (-1, *gt.shape[-2:])
        for pair in zip(truth.reshape(frames), predicted.reshape(frames), strict=True):
            video.add(*pair, self.last_window)

    def close(self, sequence: Hashable) -> None:
        """Free the maps of a video that has ended; ValueError if there is no such video."""
        if sequence not in self._sequences:
            raise ValueError(f"sequence: expected one of {list(self._sequences)}, got {sequence!r}")
        self._sequences[sequence].close()

    def compute(self) -> VideoSemanticQuality:
        """Quality of everything seen so far."""
        regions = self._regions.compute()
        sums = np.zeros((2, len(self.windows)))
        counts = np.zeros((2, len(self.windows)), np.int64)
        per_sequence: dict[Hashable, SequenceConsistency] = {}
        for name, video in self._sequences.items():
            per_sequence[name] = self._consistency(video.sums, video.counts)
            sums += video.sums
            counts += video.counts
        total = self._consistency(sums, counts)
        return VideoSemanticQuality(
            regions.miou, regions.per_class, total.mvc, total.correct_mvc, per_sequence
        )

    def _labels(self, name: str, classes: NDArray[np.integer]) -> NDArray[np.integer]:
        """Classes as they are, void labels as num_classes and more, in a small type."""
        if classes.dtype.kind not in "iu":
            raise ValueError(f"{name}: expected integers, got {classes.dtype}")
        values = classes.astype(np.int64)
        labels = np.where((values >= 0) & (values < self.num_classes), values, -1)
        for i, void in enumerate(self.void):
            labels[values == void] = self.num_classes + (0 if self.merge_void else i)
        unknown = values[labels < 0]
        if len(unknown):
            raise ValueError(
                f"{name}: expected classes 0..{self.num_classes - 1} or {self.void} (void), "
                f"got {unknown[0]}"
            )
        return labels.astype(np.min_scalar_type(self.num_classes + len(self.void)))

    def _consistency(
        self, sums: NDArray[np.float64], counts: NDArray[np.int64]
    ) -> SequenceConsistency:
        """Mean over windows; from [2, number of window lengths]."""
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        loose, strict = (dict(zip(self.windows, m, strict=True)) for m in means.tolist())
        return SequenceConsistency(loose, strict)


class _Sequence:
    """One video: its scores so far and, until it is closed, its newest labels.

    `sums` and `counts` are [2, number of window lengths]: mvc, correct_mvc.
    """

    def __init__(self, windows: Sequence[int], num_classes: int):
        self.windows = windows
        self.sums = np.zeros((2, len(windows)))
        self.counts = np.zeros((2, len(windows)), np.int64)
        self._num_classes = num_classes
        self._waiting: NDArray[np.float64] = np.full((2, len(windows)), np.nan)
        self._newest: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None
        self._runs: NDArray[np.integer] | None = None
        """[3, H, W] for how many frames each pixel has kept its true label, its predicted one, and
        been right. They stand for the frames: a window is constant where the run is as long."""
        self._closed = False

    def check_open(self, name: Hashable, size: tuple[int, ...]) -> None:
        """ValueError unless frames of this size may be added."""
        if self._closed:
            raise ValueError(f"sequence {name!r}: expected an open one, got a closed one")
        if self._newest is not None and self._newest[0].shape != size:
            raise ValueError(
                f"frames of sequence {name!r}: expected {self._newest[0].shape}, got {size}"
            )

    def close(self) -> None:
        """Free the labels."""
        self._newest = self._runs = None
        self._closed = True

    def add(self, gt: NDArray[np.integer], pred: NDArray[np.integer], last_window: bool) -> None:
        """Add labels [H, W]; void from num_classes on."""
        longest, valid = max(self.windows), gt < self._num_classes
        if self._newest is None or self._runs is None:
            self._newest = gt, pred
            self._runs = np.zeros((3, *gt.shape), np.min_scalar_type(longest))
        holds = gt == self._newest[0], pred == self._newest[1], valid & (gt == pred)
        for run, kept, start in zip(self._runs, holds, (1, 1, 0), strict=True):
            run[...] = np.where(kept, np.minimum(run, longest - 1) + 1, start)
        self._newest = gt.copy(), pred.copy()  # a view would keep the whole block of frames
        scores = np.array([_consistency(self._runs >= w, valid) for w in self.windows]).T
        # A window is the last one of its video as long as no other frame has come.
        used = scores if last_window else self._waiting
        self._waiting = scores
        self.sums += np.nan_to_num(used)
        self.counts += ~np.isnan(used)


def _consistency(constant: NDArray[np.bool_], valid: NDArray[np.bool_]) -> tuple[float, float]:
    """VC and correct VC of a window from [3, H, W]; NaN without constant ground truth."""
    truth, predicted, right = constant
    return _fraction(predicted, truth), _fraction(right, truth & valid)


def _fraction(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    """Fraction of the whole that is also in the part; NaN if there is no whole."""
    size = np.count_nonzero(whole)
    return np.count_nonzero(part & whole) / size if size else float("nan")


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
            "ground truth and prediction: expected both [H, W] or [T, H, W], "
            f"got {gt.shape} and {pred.shape}"
        )
    columns = num_classes + 1
    valid = gt != ignore
    rows = _checked_classes("ground truth", gt[valid], num_classes, ignore)
    guesses = _checked_classes("prediction", pred, num_classes, ignore)[valid]
    guesses[guesses == ignore] = num_classes
    counts = np.bincount(rows * columns + guesses, minlength=num_classes * columns)
    return counts.reshape(num_classes, columns)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU [K + 1] of the classes and of predicted void; NaN where the union is empty."""
    intersection = np.append(np.diag(confusion), 0).astype(np.float64)
    union = np.append(confusion.sum(1), 0) + confusion.sum(0) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def _checked_classes(
    name: str, classes: NDArray[np.integer], num_classes: int, ignore: int
) -> NDArray[np.int64]:
    """The class values as int64 (a copy); ValueError if one is neither a class nor `ignore`."""
    values = classes.astype(np.int64)
    unknown = (values != ignore) & ((values < 0) | (values >= num_classes))
    if unknown.any():
        raise ValueError(
            f"{name}: expected classes 0..{num_classes - 1} or {ignore} (ignore), "
            f"got {values[unknown][0]}"
        )
    return values
