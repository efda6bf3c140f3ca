"""Average precision of video instance segmentation, as in YouTube-VIS (Yang et al., ICCV 2019).

COCO's AP with tracks in place of boxes: the IoU of two tracks of a class is taken over all their
frames together, the sum of intersections by the sum of unions. pycocotools matches and averages;
the details are those of the released evaluation (youtubevos/cocoapi, `ytvoseval.py`):

- Of each (video, class), only the 100 best predicted tracks count.
- Equal scores are taken in the order in which videos and tracks first came.
- A track is small, medium or large by its mean area in frames in which it has pixels, with limits
  of 128^2 and 256^2 pixels (not COCO's 32^2 and 96^2; see `area_limits`). Ground truth of another
  size is ignored: no miss, and what is matched to it is no false alarm. So are unmatched
  predictions of another size.
- Crowd ground truth is ignored as well; any number of predictions may match it, by plain IoU.
- A missing mask and an empty one are the same. A track without any pixel still counts.
- Classes without ground truth do not count, whatever was predicted. A number for which nothing
  is left is NaN (the released code gives -1).
- Without predictions all is 0 (the released code stops with an error), and any track id will do
  (there, ground truth of id 0 never counts as found).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from ..run_lengths import RunLengths

_AREA_LIMITS = (128**2, 256**2)
"""Pixels that part small, medium and large."""
_MAX_TRACKS = (1, 10, 100)
"""Predicted tracks that count for each (video, class); AP has the last."""

Masks = Sequence[RunLengths | None]
"""One for each frame of the video; None = out of sight."""


@dataclass(frozen=True)
class TrueTrack:
    """Ground truth of one object in a video."""

    category: int
    masks: Masks
    crowd: bool = False


@dataclass(frozen=True)
class PredictedTrack:
    """A predicted object in a video."""

    category: int
    masks: Masks
    score: float


@dataclass(frozen=True)
class _ClassPrecision:
    """Curves of one class, all areas and up to 100 tracks."""

    ap: float
    precision: NDArray[np.float64]
    """[10, 101] by IoU threshold 0.5, 0.55 .. 0.95 and recall 0, 0.01 .. 1."""
    recall: NDArray[np.float64]
    """[10] the recall that is reached, by IoU threshold."""


@dataclass(frozen=True)
class VideoInstanceQuality:
    """The twelve numbers of YouTube-VIS; fractions 0..1, NaN where there is no ground truth.

    AP: precision, mean over recalls, IoU thresholds (50: only 0.5; 75: only 0.75) and classes.
    AR: recall with up to 1, 10, 100 tracks per video and class, mean over thresholds and classes.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[int, _ClassPrecision]
    """Of the classes that have ground truth other than crowd, by category."""


class VideoInstanceAP:
    """AP of any number of videos. Memory grows with the pairs of tracks of a class, not with
    frames: pixels are only counted, in integers.

    Args:
        area_limits: mean areas in pixels that part small, medium and large tracks; tracks exactly
            at a limit are of both kinds.
    """

    def __init__(self, area_limits: tuple[float, float] = _AREA_LIMITS):
        low, high = area_limits
        # The end of the official ranges, 1e5^2 pixels, is out of reach.
        self._ranges = [(0.0, np.inf), (0.0, low), (low, high), (high, np.inf)]
        self._videos: list[dict[int, _Entries]] = []
        """The tracks of each video by class."""

    def update(self, truth: Sequence[TrueTrack], predicted: Sequence[PredictedTrack]) -> None:
        """Add a video; ValueError if its tracks differ in frames or their masks in size."""
        tracks: list[TrueTrack | PredictedTrack] = [*truth, *predicted]
        lengths = {len(track.masks) for track in tracks}
        sizes = {mask.size for track in tracks for mask in track.masks if mask is not None}
        if len(lengths) > 1 or len(sizes) > 1:
            raise ValueError(
                "tracks of a video: expected one number of frames and one size of masks, "
                f"got {sorted(lengths)} and {sorted(sizes)}"
            )
        self._videos.append(
            {
                category: _entries(
                    [track for track in truth if track.category == category],
                    [track for track in predicted if track.category == category],
                )
                for category in {track.category for track in tracks}
            }
        )

    def compute(self) -> VideoInstanceQuality:
        """Quality of everything seen so far."""
        with_truth = {c for video in self._videos for c, (truth, *_) in video.items() if truth}
        categories = sorted(with_truth)
        precision, recall = self._curves(categories)

        def mean(values: NDArray[np.float64]) -> float:
            measured = values[values > -1]
            return float(measured.mean()) if len(measured) else float("nan")

        areas = range(len(self._ranges))
        ap, ap_small, ap_medium, ap_large = (mean(precision[..., a, -1]) for a in areas)
        ar100, ar_small, ar_medium, ar_large = (mean(recall[..., a, -1]) for a in areas)
        curves = {
            category: _ClassPrecision(float(curve.mean()), curve, recall[:, k, 0, -1])
            for k, category in enumerate(categories)
            if (curve := precision[:, :, k, 0, -1])[0, 0] > -1
        }
        return VideoInstanceQuality(
            ap=ap,
            ap50=mean(precision[0, ..., 0, -1]),
            ap75=mean(precision[5, ..., 0, -1]),
            ap_small=ap_small,
            ap_medium=ap_medium,
            ap_large=ap_large,
            ar1=mean(recall[..., 0, 0]),
            ar10=mean(recall[..., 0, 1]),
            ar100=ar100,
            ar_small=ar_small,
            ar_medium=ar_medium,
            ar_large=ar_large,
            per_class=curves,
        )

    def _curves(self, categories: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision [10, 101, K, areas, tracks] and recall [10, K, areas, tracks]; -1: absent."""
        coco, videos = COCOeval(iouType="segm"), range(len(self._videos))
        coco.params.imgIds, coco.params.catIds = list(videos), categories
        coco.params.areaRng, coco.params.maxDets = self._ranges, list(_MAX_TRACKS)
        coco._paramsEval = coco.params
        for i, video in enumerate(self._videos):
            for category, entries in video.items():
                coco._gts[i, category], coco._dts[i, category], coco.ious[i, category] = entries
        coco.evalImgs = [
            coco.evaluateImg(i, category, area, _MAX_TRACKS[-1])
            for category in categories
            for area in self._ranges
            for i in videos
        ]
        with redirect_stdout(io.StringIO()):
            coco.accumulate()
        return coco.eval["precision"], coco.eval["recall"]


_Entries = tuple[list[dict[str, Any]], list[dict[str, Any]], NDArray[np.float64]]
"""True and predicted tracks as COCOeval has them, and the IoU [predicted, true] of each pair."""


def _entries(truth: Sequence[TrueTrack], predicted: Sequence[PredictedTrack]) -> _Entries:
    """The tracks of one class in one video, of the predicted ones the best."""
    best = sorted(predicted, key=lambda track: -track.score)[: _MAX_TRACKS[-1]]
    true_areas, areas = _areas(truth), _areas(best)
    common = _common_pixels(best, truth)
    union = areas.sum(1)[:, None] + true_areas.sum(1) - common
    iou = np.divide(common, union, out=np.zeros(common.shape), where=union > 0)
    true_entries = [
        _entry(number, row, {"ignore": track.crowd, "iscrowd": track.crowd})
        for number, (track, row) in enumerate(zip(truth, true_areas, strict=True), 1)
    ]
    entries = [
        _entry(number, row, {"score": track.score})
        for number, (track, row) in enumerate(zip(best, areas, strict=True), 1)
    ]
    return true_entries, entries, iou


def _entry(number: int, areas: NDArray[np.int64], facts: dict[str, Any]) -> dict[str, Any]:
    """One track; its number is from 1, as 0 stands for no match in COCOeval."""
    seen = areas[areas > 0]
    return {"id": number, "area": seen.mean() if len(seen) else 0.0, **facts}


def _areas(tracks: Sequence[TrueTrack] | Sequence[PredictedTrack]) -> NDArray[np.int64]:
    """[tracks, frames] pixels."""
    if not tracks:
        return np.zeros((0, 0), np.int64)
    return np.array([[m.area if m else 0 for m in track.masks] for track in tracks], np.int64)


def _common_pixels(
    predicted: Sequence[PredictedTrack], truth: Sequence[TrueTrack]
) -> NDArray[np.int64]:
    """[predicted, true] pixels that two tracks have in common in all frames."""
    common = np.zeros((len(predicted), len(truth)), np.int64)
    for t in range(len(truth[0].masks) if truth else 0):
        rows = [(i, m.entry) for i, track in enumerate(predicted) if (m := track.masks[t])]
        columns = [(i, m.entry) for i, track in enumerate(truth) if (m := track.masks[t])]
        if not rows or not columns:
            continue
        guesses = [entry for _, entry in rows]
        # between a mask and a crowd, COCO's IoU is the intersection by the area of the mask
        shares = coco_mask.iou(guesses, [entry for _, entry in columns], [1] * len(columns))
        pixels = np.rint(shares * coco_mask.area(guesses)[:, None]).astype(np.int64)
        common[np.ix_([i for i, _ in rows], [i for i, _ in columns])] += pixels
    return common
