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
  is left is -1; see `absent`.
- Without predictions all is 0 (the released code stops with an error), and any track id will do
  (there, ground truth of id 0 never counts as found).
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
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

Mask = NDArray[Any] | RunLengths | Mapping[str, Any] | None
"""One frame: [H, W] bool or integers, run lengths, as in COCO's JSON, or None if out of sight."""
Masks = NDArray[Any] | Sequence[Mask]
"""Frames: [T, H, W], or T masks; [H, W] is one frame."""


@dataclass(frozen=True)
class TrueTrack:
    """Ground truth of one object in some consecutive frames of a video."""

    id: Hashable
    category: int
    masks: Masks
    crowd: bool = False


@dataclass(frozen=True)
class PredictedTrack:
    """A predicted object in some consecutive frames of a video."""

    id: Hashable
    category: int
    masks: Masks
    score: float


@dataclass(frozen=True)
class ClassPrecision:
    """Curves of one class, all areas and up to 100 tracks."""

    ap: float
    precision: NDArray[np.float64]
    """[10, 101] by IoU threshold 0.5, 0.55 .. 0.95 and recall 0, 0.01 .. 1."""
    recall: NDArray[np.float64]
    """[10] the recall that is reached, by IoU threshold."""


@dataclass(frozen=True)
class VideoInstanceQuality:
    """The twelve numbers of YouTube-VIS; fractions 0..1, -1 where there is no ground truth.

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
    per_class: dict[int, ClassPrecision]
    """Of the classes that have ground truth other than crowd, by category."""


class VideoInstanceAP:
    """AP of any number of videos, frame by frame or in blocks.

    Memory grows with pairs of tracks that overlap, not with frames: pixels are only counted, in
    integers.

    Args:
        categories: the known categories; None takes all.
        area_limits: mean areas in pixels that part small, medium and large tracks; tracks exactly
            at a limit are of both kinds.
        absent: value of a number without ground truth.

    Raises:
        ValueError: area limits not in order.
    """

    def __init__(
        self,
        categories: Collection[int] | None = None,
        area_limits: tuple[float, float] = _AREA_LIMITS,
        absent: float = -1.0,
    ):
        low, high = area_limits
        if not 0 <= low <= high:
            raise ValueError(f"area_limits: expected 0 <= first <= second, got {area_limits}")
        self.categories = None if categories is None else frozenset(categories)
        self.absent = absent
        # The end of the official ranges, 1e5^2 pixels, is out of reach.
        self._ranges = [(0.0, np.inf), (0.0, low), (low, high), (high, np.inf)]
        self._videos: dict[Hashable, _Video] = {}

    def update(
        self,
        truth: Sequence[TrueTrack],
        predicted: Sequence[PredictedTrack],
        sequence: Hashable = 0,
    ) -> None:
        """Add the next frames of a video.

        Args:
            truth, predicted: the tracks in these frames, all of as many frames; who is not there
                may be left out. Ids hold within a sequence. Of a predicted track the newest score
                counts, category and crowd must stay.
            sequence: name of the video; all its masks have one size.

        Raises:
            ValueError: an id is there twice, a track changes, frames or sizes differ, a score is
                not finite, a category is unknown, or a mask is malformed.
        """
        video = self._videos.get(sequence) or _Video()
        self._check("ground-truth", truth, video.truth)
        self._check("predicted", predicted, video.predicted)
        true_masks = [_run_lengths(track.masks) for track in truth]
        predicted_masks = [_run_lengths(track.masks) for track in predicted]
        video.size = _one_size([*true_masks, *predicted_masks], video.size)
        self._videos[sequence] = video
        for true, masks in zip(truth, true_masks, strict=True):
            tube = video.truth.setdefault(true.id, _Tube(true.category, bool(true.crowd)))
            tube.add(masks)
        for guess, masks in zip(predicted, predicted_masks, strict=True):
            tube = video.predicted.setdefault(guess.id, _Tube(guess.category))
            tube.add(masks)
            tube.score = float(guess.score)
        for frame, other in zip(zip(*predicted_masks), zip(*true_masks)):  # noqa: B905
            video.add_overlaps([t.id for t in predicted], frame, [t.id for t in truth], other)

    def compute(self) -> VideoInstanceQuality:
        """Quality of everything seen so far."""
        categories = {tube.category for v in self._videos.values() for tube in v.truth.values()}
        precision, recall = self._curves(sorted(categories))

        def mean(values: NDArray[np.float64]) -> float:
            measured = values[values > -1]
            return float(measured.mean()) if len(measured) else self.absent

        areas = range(len(self._ranges))
        ap, ap_small, ap_medium, ap_large = (mean(precision[..., a, -1]) for a in areas)
        ar100, ar_small, ar_medium, ar_large = (mean(recall[..., a, -1]) for a in areas)
        curves = {
            category: ClassPrecision(float(curve.mean()), curve, recall[:, k, 0, -1])
            for k, category in enumerate(sorted(categories))
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
        coco, videos = COCOeval(iouType="segm"), list(self._videos.values())
        coco.params.imgIds, coco.params.catIds = list(range(len(videos))), categories
        coco.params.areaRng, coco.params.maxDets = self._ranges, list(_MAX_TRACKS)
        coco._paramsEval = coco.params
        for i, video in enumerate(videos):
            for category in categories:
                entries = video.entries(category)
                coco._gts[i, category], coco._dts[i, category], coco.ious[i, category] = entries
        coco.evalImgs = [
            coco.evaluateImg(i, category, area, _MAX_TRACKS[-1])
            for category in categories
            for area in self._ranges
            for i in range(len(videos))
        ]
        with redirect_stdout(io.StringIO()):
            coco.accumulate()
        return coco.eval["precision"], coco.eval["recall"]

    def _check(
        self,
        name: str,
        tracks: Sequence[TrueTrack] | Sequence[PredictedTrack],
        known: dict[Hashable, _Tube],
    ) -> None:
        """ValueError if a track is there twice, changes, or has a bad category or score."""
        twice = [i for i, number in Counter(track.id for track in tracks).items() if number > 1]
        if twice:
            raise ValueError(f"{name} tracks: expected different ids, got {twice[0]!r} twice")
        for track in tracks:
            where = f"{name} track {track.id!r}"
            if self.categories is not None and track.category not in self.categories:
                raise ValueError(
                    f"{where}: expected a category of {sorted(self.categories)}, "
                    f"got {track.category}"
                )
            kind = (track.category, getattr(track, "crowd", False))
            before = known.get(track.id)
            if before is not None and kind != (before.category, before.crowd):
                raise ValueError(
                    f"{where}: expected category and crowd {before.category, before.crowd} "
                    f"as before, got {kind}"
                )
            if not np.isfinite(score := getattr(track, "score", 0.0)):
                raise ValueError(f"{where}: expected a finite score, got {score}")


@dataclass
class _Tube:
    """Sums over the frames of one track."""

    category: int
    crowd: bool = False
    score: float = 0.0
    pixels: int = 0
    frames: int = 0
    """Those with a pixel."""

    def add(self, masks: Sequence[RunLengths | None]) -> None:
        areas = [mask.area for mask in masks if mask is not None]
        self.pixels += sum(areas)
        self.frames += np.count_nonzero(areas)

    def entry(self, number: int) -> dict[str, Any]:
        """In the form of COCOeval, with its own number from 1: 0 stands for no match there."""
        area = self.pixels / self.frames if self.frames else 0.0
        kind = {"ignore": self.crowd, "iscrowd": self.crowd}
        return {"id": number, "area": area, "score": self.score, **kind}


@dataclass
class _Video:
    """Tracks of one video in the order of their first appearance, and common pixels of pairs."""

    truth: dict[Hashable, _Tube] = field(default_factory=dict)
    predicted: dict[Hashable, _Tube] = field(default_factory=dict)
    overlap: Counter[tuple[Hashable, Hashable]] = field(default_factory=Counter)
    """By ids of a predicted and a true track."""
    size: tuple[int, int] | None = None

    def add_overlaps(
        self,
        predicted: Sequence[Hashable],
        predicted_masks: Sequence[RunLengths | None],
        truth: Sequence[Hashable],
        true_masks: Sequence[RunLengths | None],
    ) -> None:
        """Count the common pixels of one frame: ids and masks of the tracks."""
        rows = [(i, m.entry) for i, m in zip(predicted, predicted_masks, strict=True) if m]
        columns = [(i, m.entry) for i, m in zip(truth, true_masks, strict=True) if m]
        if not rows or not columns:
            return
        guesses = [entry for _, entry in rows]
        # between a mask and a crowd, COCO's IoU is the intersection by the area of the mask
        shares = coco_mask.iou(guesses, [entry for _, entry in columns], [1] * len(columns))
        pixels = np.rint(shares * coco_mask.area(guesses)[:, None]).astype(np.int64)
        for row, column in np.argwhere(pixels).tolist():
            self.overlap[rows[row][0], columns[column][0]] += int(pixels[row, column])

    def entries(
        self, category: int
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], NDArray[np.float64]]:
        """True and predicted tracks of one class, and the IoU of the best predicted ones."""
        truth = {key: t for key, t in self.truth.items() if t.category == category}
        by_score = sorted(self.predicted.items(), key=lambda item: -item[1].score)
        best = [(key, t) for key, t in by_score if t.category == category][: _MAX_TRACKS[-1]]
        iou = [[self._iou(true, guess) for true in truth] for guess, _ in best]
        return (
            [tube.entry(number) for number, tube in enumerate(truth.values(), 1)],
            [tube.entry(number) for number, (_, tube) in enumerate(best, 1)],
            np.array(iou, np.float64).reshape(len(best), len(truth)),
        )

    def _iou(self, true: Hashable, guess: Hashable) -> float:
        common = self.overlap[guess, true]
        union = self.truth[true].pixels + self.predicted[guess].pixels - common
        return common / union if union else 0.0


def _run_lengths(masks: Masks) -> list[RunLengths | None]:
    """One entry per frame; ValueError if a mask is malformed."""
    if isinstance(masks, np.ndarray) and masks.ndim == 2:
        masks = masks[None]
    if isinstance(masks, (RunLengths, Mapping, str, bytes)):
        raise ValueError(
            f"masks: expected [T, H, W], [H, W] or one entry per frame, got {type(masks).__name__}"
        )
    return [_frame(mask) for mask in masks]


def _frame(mask: Mask) -> RunLengths | None:
    if mask is None or isinstance(mask, RunLengths):
        return mask
    return RunLengths.from_coco(mask) if isinstance(mask, Mapping) else RunLengths.from_mask(mask)


def _one_size(
    tracks: Sequence[Sequence[RunLengths | None]], known: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Size of all masks and of earlier ones; ValueError if they or the frames differ."""
    lengths = sorted({len(masks) for masks in tracks})
    if len(lengths) > 1:
        raise ValueError(f"tracks: expected as many frames as each other, got {lengths}")
    sizes = {mask.size for masks in tracks for mask in masks if mask is not None}
    sizes |= {known} if known is not None else set()
    if len(sizes) > 1:
        raise ValueError(f"masks of a video: expected one size, got {sorted(sizes)}")
    return sizes.pop() if sizes else None
