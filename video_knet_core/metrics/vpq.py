"""Video Panoptic Quality (Kim et al., Video Panoptic Segmentation, CVPR 2020).

Panoptic quality of tubes: every window of k consecutive frames is one volume, and a true and a
predicted segment of the same class match if their IoU in it is above 0.5. Then

    PQ of a class = summed IoU of its matches / (matches + half the unmatched tubes of both sides).

The definition in its details is that of the Cityscapes-VPS evaluation (mcahny/vps, `eval_vpq.py`):

- Windows move by one frame and are pooled over all videos before the ratio, so the result is not
  the mean over videos. A video shorter than the window has no tubes.
- A segment is (class, id): a track that changes its class is two segments. Stuff has one segment
  per class. A thing predicted with id 0 is a segment like any other.
- Predicted pixels on void ground truth do not count for the union. Predicted void is no segment.
- An unmatched prediction is forgiven if more than half of it is on void or on crowd of its class.
- Ground truth things with id 0 are crowd, one segment per class: never matched, never missed.
- The mean is over the classes that occur in ground truth or prediction.

Cityscapes-VPS has the things 11..18 and reports the mean over windows of 1 to 4 labelled frames
(`MeanVideoPanopticQuality`). The script of Video K-Net's authors for KITTI-STEP
(`eval_dvpq_step.py`) has things 11 and 13, absent="zero" and crowd="segment".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .overlaps import Classes, OverlapMetric, Overlaps, sum_overlaps

Absent = Literal["skip", "zero"]
Crowd = Literal["ignore", "segment", "void"]


@dataclass(frozen=True)
class Matches:
    """Matched and unmatched tubes of each class; arrays [K]."""

    iou: NDArray[np.float64]
    """Summed IoU of the matched pairs."""
    matched: NDArray[np.int64]
    missed: NDArray[np.int64]
    """True tubes without a match."""
    wrong: NDArray[np.int64]
    """Predicted tubes without a match, less the forgiven ones."""

    def __add__(self, other: Matches) -> Matches:
        return Matches(
            self.iou + other.iou,
            self.matched + other.matched,
            self.missed + other.missed,
            self.wrong + other.wrong,
        )

    def quality(self) -> NDArray[np.float64]:
        """PQ [K] of each class, 0..1; NaN without tubes."""
        tubes = self.matched + (self.missed + self.wrong) / 2
        return np.divide(self.iou, tubes, out=np.full(len(tubes), np.nan), where=tubes > 0)


@dataclass(frozen=True)
class SequencePanopticQuality:
    """Means over classes; fractions 0..1, NaN where no class (or no window) was measured."""

    vpq: float
    """Of all classes."""
    things: float
    """Of the thing classes."""
    stuff: float
    """Of the other classes."""


@dataclass(frozen=True)
class PanopticQuality(SequencePanopticQuality):
    """Quality of all sequences together."""

    per_class: NDArray[np.float64]
    """[K] PQ of each class; an absent class is NaN or 0 by the metric's `absent`."""
    per_sequence: dict[Hashable, SequencePanopticQuality]
    """Quality of each sequence by itself; NaN for one shorter than the window."""
    matches: Matches
    """What the numbers are made of."""


@dataclass(frozen=True)
class MeanPanopticQuality(SequencePanopticQuality):
    """Means over several windows; NaN where one of them is."""

    per_window: dict[int, PanopticQuality]


@dataclass
class _Video:
    """One sequence: its newest frames, and the tubes of its finished windows."""

    frames: deque[Overlaps]
    matches: Matches
    windows: int = 0


class VideoPanopticQuality(OverlapMetric):
    """Collects frames of any number of sequences, frame by frame or in blocks.

    Of a sequence, the segment pairs of the newest `window` frames are kept, and sums.

    Args:
        num_classes: classes are 0..num_classes - 1.
        things: the thing classes.
        window: frames in a window (k of the paper), at least 1.
        ignore: void value of class maps.
        absent: "skip" leaves classes that occur nowhere out of the means; "zero" counts them as 0,
            as the script of Video K-Net's authors does (a perfect prediction is below 1 then).
        crowd: what ground truth things with id 0 are: "ignore" is the crowd of the definition;
            "void" makes them void, as the ground truth of Cityscapes-VPS was built; "segment" makes
            them one segment per class, as deeplab2 and the script of Video K-Net's authors do.
    """

    def __init__(
        self,
        num_classes: int,
        things: Sequence[int],
        window: int,
        ignore: int = 255,
        absent: Absent = "skip",
        crowd: Crowd = "ignore",
    ):
        if window < 1:
            raise ValueError(f"window: expected at least 1 frame, got {window}")
        if absent not in get_args(Absent):
            raise ValueError(f"absent: expected one of {get_args(Absent)}, got {absent!r}")
        if crowd not in get_args(Crowd):
            raise ValueError(f"crowd: expected one of {get_args(Crowd)}, got {crowd!r}")
        self.classes = Classes(num_classes, tuple(things), ignore)
        self.window = window
        self.absent = absent
        self.crowd = crowd
        self._videos: dict[Hashable, _Video] = {}

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        if sequence not in self._videos:
            self._videos[sequence] = _Video(deque(maxlen=self.window), self._nothing())
        video = self._videos[sequence]
        video.frames.append(overlaps)
        if len(video.frames) == self.window:
            tubes = sum_overlaps(video.frames)
            video.matches += match_tubes(tubes, self.classes, self.crowd)
            video.windows += 1

    def compute(self) -> PanopticQuality:
        """Quality of all windows finished so far."""
        matches, per_sequence = self._nothing(), {}
        for name, video in self._videos.items():
            quality = self._per_class(video.matches)
            means = self._means(quality) if video.windows else 3 * (float("nan"),)
            per_sequence[name] = SequencePanopticQuality(*means)
            matches += video.matches
        quality = self._per_class(matches)
        return PanopticQuality(*self._means(quality), quality, per_sequence, matches)

    def _nothing(self) -> Matches:
        zeros = np.zeros(self.classes.number, np.int64)
        return Matches(zeros.astype(np.float64), zeros, zeros, zeros)

    def _per_class(self, matches: Matches) -> NDArray[np.float64]:
        quality = matches.quality()
        return np.nan_to_num(quality) if self.absent == "zero" else quality

    def _means(self, quality: NDArray[np.float64]) -> tuple[float, float, float]:
        """Means over all classes, things and stuff; NaN entries are left out."""
        things = self.classes.is_thing(np.arange(len(quality)))
        return _mean(quality), _mean(quality[things]), _mean(quality[~things])


class MeanVideoPanopticQuality(OverlapMetric):
    """VPQ as Cityscapes-VPS reports it: the mean over windows of different length.

    The pixels of a frame are counted once for all windows.

    Args:
        windows: their lengths in frames.
        num_classes, things, ignore, absent, crowd: see `VideoPanopticQuality`.
    """

    def __init__(
        self,
        num_classes: int,
        things: Sequence[int],
        windows: Sequence[int] = (1, 2, 3, 4),
        ignore: int = 255,
        absent: Absent = "skip",
        crowd: Crowd = "ignore",
    ):
        if not windows:
            raise ValueError("windows: expected at least one length, got none")
        self._metrics = {
            window: VideoPanopticQuality(num_classes, things, window, ignore, absent, crowd)
            for window in windows
        }
        self.classes = Classes(num_classes, tuple(things), ignore)

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        for metric in self._metrics.values():
            metric.add(overlaps, sequence)

    def compute(self) -> MeanPanopticQuality:
        """Quality of all windows finished so far."""
        results = {window: metric.compute() for window, metric in self._metrics.items()}
        scores = [(result.vpq, result.things, result.stuff) for result in results.values()]
        vpq, things, stuff = np.mean(scores, axis=0).tolist()
        return MeanPanopticQuality(vpq, things, stuff, results)


def match_tubes(tubes: Overlaps, classes: Classes, crowd: Crowd = "ignore") -> Matches:
    """Match the tubes of one window; see the top of this file for the rules."""
    void, crowded = _set_aside(tubes, classes, crowd)
    truth, true_class = _numbered(tubes.true_class, tubes.true_id)
    predicted, predicted_class = _numbered(tubes.predicted_class, tubes.predicted_id)
    pixels, same = tubes.pixels, tubes.true_class == tubes.predicted_class
    countable, size = ~(void | crowded), _totals(predicted, pixels)
    on_void = _totals(predicted, pixels * void)
    on_crowd = _totals(predicted, pixels * (crowded & same))

    union = _totals(truth, pixels)[truth] + (size - on_void)[predicted] - pixels
    match = countable & same & (2 * pixels > union)  # IoU > 0.5: at most one match per tube
    missed = np.setdiff1d(truth[countable], truth[match])
    wrong = (predicted_class != classes.ignore) & (2 * (on_void + on_crowd) <= size)
    wrong[predicted[match]] = False

    matched, number = tubes.true_class[match], classes.number
    return Matches(
        np.bincount(matched, pixels[match] / union[match], number).astype(np.float64),
        np.bincount(matched, minlength=number),
        np.bincount(true_class[missed], minlength=number),
        np.bincount(predicted_class[wrong], minlength=number),
    )


def _set_aside(
    tubes: Overlaps, classes: Classes, crowd: Crowd
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows [N] on void and rows on crowd; a row is at most one of them."""
    void = tubes.true_class == classes.ignore
    crowded = classes.is_thing(tubes.true_class) & (tubes.true_id == 0)
    nothing = np.zeros_like(crowded)
    if crowd == "void":
        return void | crowded, nothing
    return void, crowded if crowd == "ignore" else nothing


def _numbered(
    classes: NDArray[np.int64], ids: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Number the different (class, id): the number of each row [N], the class of each number."""
    order = np.lexsort((ids, classes))
    table = np.stack([classes, ids])[:, order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (table[:, 1:] != table[:, :-1]).any(axis=0)
    numbers = np.empty(len(order), np.intp)
    numbers[order] = np.cumsum(first) - 1
    return numbers, table[0, first]


def _totals(numbers: NDArray[np.intp], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of each number from 0 on; exact integers."""
    totals = np.zeros(int(numbers.max()) + 1, np.int64)
    np.add.at(totals, numbers, pixels)
    return totals


def _mean(values: NDArray[np.float64]) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")
