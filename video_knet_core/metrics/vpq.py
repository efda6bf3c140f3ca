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

Cityscapes-VPS has the things 11..18 and reports the mean over windows of 1 to 4 labelled frames.
The script of Video K-Net's authors for KITTI-STEP
(`eval_dvpq_step.py`) has things 11 and 13, absent="zero" and crowd="segment".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .overlaps import Classes, OverlapMetric, Overlaps, distinct, sum_overlaps, totals

Absent = Literal["skip", "zero"]
Crowd = Literal["ignore", "segment", "void"]


@dataclass(frozen=True)
class PanopticMeans:
    """Means over classes; fractions 0..1, NaN where no class (or no window) was measured."""

    vpq: float
    """Of all classes."""
    things: float
    stuff: float


@dataclass(frozen=True)
class WindowQuality(PanopticMeans):
    """Quality of all sequences together, by windows of one length."""

    per_class: NDArray[np.float64]
    """[K] PQ of each class; an absent class is NaN or 0 by the metric's `absent`."""
    per_sequence: dict[Hashable, PanopticMeans]
    """Quality of each sequence by itself; NaN for one shorter than the window."""
    matches: NDArray[np.float64]
    """[4, K] what the numbers are made of: summed IoU of the matched pairs, their number, true
    tubes without a match, and predicted ones, less the forgiven."""


@dataclass(frozen=True)
class PanopticQuality(PanopticMeans):
    """Means over several windows; NaN where one of them is."""

    per_window: dict[int, WindowQuality]


@dataclass
class _Video:
    """One sequence: its newest frames, and the matches of finished windows by their length."""

    frames: deque[Overlaps]
    matches: dict[int, NDArray[np.float64]] = field(default_factory=dict)


class VideoPanopticQuality(OverlapMetric):
    """Collects frames of any number of sequences, frame by frame or in blocks.

    Of a sequence, the segment pairs of the longest window are kept, and sums.

    Args:
        num_classes, things: see `OverlapMetric`.
        windows: lengths in frames (k of the paper), at least 1; Cityscapes-VPS has these four.
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
        windows: Sequence[int] = (1, 2, 3, 4),
        absent: Absent = "skip",
        crowd: Crowd = "ignore",
    ):
        super().__init__(num_classes, things)
        self.windows, self.absent, self.crowd = tuple(windows), absent, crowd

    def add(self, overlaps: Overlaps, sequence: Hashable = 0) -> None:
        """See `OverlapMetric`."""
        if sequence not in self._sequences:
            self._sequences[sequence] = _Video(deque(maxlen=max(self.windows)))
        video = self._sequences[sequence]
        video.frames.append(overlaps.of_things(self.classes))
        frames = list(video.frames)
        for window in self.windows:
            if len(frames) >= window:
                tubes = sum_overlaps(frames[-window:])
                matches = _match_tubes(tubes, self.classes, self.crowd)
                video.matches[window] = video.matches.get(window, 0.0) + matches

    def compute(self) -> PanopticQuality:
        """Quality of all windows finished so far."""
        per_window = {window: self._of_window(window) for window in self.windows}
        scores = [(quality.vpq, quality.things, quality.stuff) for quality in per_window.values()]
        vpq, things, stuff = np.mean(scores, axis=0).tolist()
        return PanopticQuality(vpq, things, stuff, per_window)

    def _of_window(self, window: int) -> WindowQuality:
        matches = np.zeros((4, self.classes.number))
        per_sequence = {}
        for name, video in self._sequences.items():
            found = video.matches.get(window)
            if found is None:
                per_sequence[name] = PanopticMeans(*3 * [float("nan")])
            else:
                per_sequence[name] = PanopticMeans(*self._means(self._per_class(found)))
                matches += found
        quality = self._per_class(matches)
        return WindowQuality(*self._means(quality), quality, per_sequence, matches)

    def _per_class(self, matches: NDArray[np.float64]) -> NDArray[np.float64]:
        """PQ [K] of each class, 0..1."""
        iou, matched, missed, wrong = matches
        tubes = matched + (missed + wrong) / 2
        absent = 0.0 if self.absent == "zero" else np.nan
        return np.divide(iou, tubes, out=np.full(len(tubes), absent), where=tubes > 0)

    def _means(self, quality: NDArray[np.float64]) -> tuple[float, float, float]:
        """Means over all classes, things and stuff; NaN entries are left out."""
        things = self.classes.is_thing(np.arange(len(quality)))
        return _mean(quality), _mean(quality[things]), _mean(quality[~things])


def _match_tubes(tubes: Overlaps, classes: Classes, crowd: Crowd) -> NDArray[np.float64]:
    """Match the tubes of one window; returns `WindowQuality.matches`."""
    void, crowded = _set_aside(tubes, classes, crowd)
    truth, (true_class, _) = distinct([tubes.true_class, tubes.true_id])
    predicted, (predicted_class, _) = distinct([tubes.predicted_class, tubes.predicted_id])
    pixels, same = tubes.pixels, tubes.true_class == tubes.predicted_class
    countable, size = ~(void | crowded), totals(predicted, pixels)
    on_void = totals(predicted, pixels * void)
    on_crowd = totals(predicted, pixels * (crowded & same))

    union = totals(truth, pixels)[truth] + (size - on_void)[predicted] - pixels
    match = countable & same & (2 * pixels > union)  # IoU > 0.5: at most one match per tube
    missed = np.setdiff1d(truth[countable], truth[match])
    wrong = (predicted_class != NO_CLASS) & (2 * (on_void + on_crowd) <= size)
    wrong[predicted[match]] = False

    matched, number = tubes.true_class[match], classes.number
    return np.stack(
        [
            np.bincount(matched, pixels[match] / union[match], number),
            np.bincount(matched, minlength=number),
            np.bincount(true_class[missed], minlength=number),
            np.bincount(predicted_class[wrong], minlength=number),
        ]
    )


def _set_aside(
    tubes: Overlaps, classes: Classes, crowd: Crowd
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows [N] on void and rows on crowd; a row is at most one of them."""
    void = tubes.true_class == NO_CLASS
    crowded = classes.is_thing(tubes.true_class) & (tubes.true_id == 0)
    nothing = np.zeros_like(crowded)
    if crowd == "void":
        return void | crowded, nothing
    return void, crowded if crowd == "ignore" else nothing


def _mean(values: NDArray[np.float64]) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.mean()) if len(measured) else float("nan")
