"""Average precision of video instance segmentation, as in YouTube-VIS (Yang et al., ICCV 2019).

COCO's AP with tracks in place of boxes: the IoU of two tracks of a class is taken over all their
frames together, the sum of intersections by the sum of unions. The details are those of the
released evaluation (youtubevos/cocoapi, `ytvoseval.py`):

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

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..run_lengths import RunLengths

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
"""Where precision is sampled."""
AREA_LIMITS = (128**2, 256**2)
"""Pixels that part small, medium and large."""
MOST_TRACKS = 100
"""Predicted tracks that count for each (video, class)."""

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


_Curves = dict[tuple[int, int], ClassPrecision]
"""Curves of one class by (number of the area range, most tracks of a video)."""


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
        area_limits: tuple[float, float] = AREA_LIMITS,
        absent: float = -1.0,
    ):
        low, high = area_limits
        if not 0 <= low <= high:
            raise ValueError(f"area_limits must be 0 <= first <= second, found {area_limits}")
        self.categories = None if categories is None else frozenset(categories)
        self.absent = absent
        # The end of the official ranges, 1e5^2 pixels, is out of reach.
        self._ranges = ((0.0, np.inf), (0.0, low), (low, high), (high, np.inf))
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
        _check_scores(predicted)
        true_masks = [_run_lengths(track.masks) for track in truth]
        predicted_masks = [_run_lengths(track.masks) for track in predicted]
        size = _one_size([*true_masks, *predicted_masks], video.size)
        self._videos[sequence] = video
        video.size = size
        video.add(truth, true_masks, predicted, predicted_masks)

    def compute(self) -> VideoInstanceQuality:
        """Quality of everything seen so far."""
        categories = {tube.category for v in self._videos.values() for tube in v.truth.values()}
        curves = {category: self._curves(category) for category in sorted(categories)}

        def ap(area: int = 0, thresholds: slice = slice(None)) -> float:
            found = _select(curves, area, MOST_TRACKS)
            return self._mean([curve.precision[thresholds] for curve in found.values()])

        def ar(area: int = 0, tracks: int = MOST_TRACKS) -> float:
            found = _select(curves, area, tracks)
            return self._mean([curve.recall for curve in found.values()])

        return VideoInstanceQuality(
            ap=ap(),
            ap50=ap(thresholds=slice(0, 1)),
            ap75=ap(thresholds=slice(5, 6)),
            ap_small=ap(1),
            ap_medium=ap(2),
            ap_large=ap(3),
            ar1=ar(tracks=1),
            ar10=ar(tracks=10),
            ar100=ar(),
            ar_small=ar(1),
            ar_medium=ar(2),
            ar_large=ar(3),
            per_class=_select(curves, 0, MOST_TRACKS),
        )

    def _check(
        self,
        name: str,
        tracks: Sequence[TrueTrack] | Sequence[PredictedTrack],
        known: dict[Hashable, _Tube],
    ) -> None:
        """ValueError if a track is there twice, changes or has an unknown category."""
        twice = [i for i, number in Counter(track.id for track in tracks).items() if number > 1]
        if twice:
            raise ValueError(f"{name} tracks must have different ids, found {twice[0]!r} twice")
        for track in tracks:
            if self.categories is not None and track.category not in self.categories:
                raise ValueError(
                    f"{name} track {track.id!r} has category {track.category}, "
                    f"wanted one of {sorted(self.categories)}"
                )
            kind = (track.category, getattr(track, "crowd", False))
            before = known.get(track.id)
            if before is not None and kind != (before.category, before.crowd):
                raise ValueError(
                    f"{name} track {track.id!r} must keep category and crowd "
                    f"{before.category, before.crowd}, found {kind}"
                )

    def _curves(self, category: int) -> _Curves:
        """All curves of one class for which there is ground truth."""
        pairings = [video.pairing(category) for video in self._videos.values()]
        curves: _Curves = {}
        for area, (low, high) in enumerate(self._ranges):
            outcomes = [pairing.outcome(low, high) for pairing in pairings]
            if not any(outcome.positives for outcome in outcomes):
                continue
            for tracks in (1, 10, MOST_TRACKS) if area == 0 else (MOST_TRACKS,):
                curves[area, tracks] = _curve(outcomes, tracks)
        return curves

    def _mean(self, values: Sequence[NDArray[np.float64]]) -> float:
        return float(np.mean(values)) if values else self.absent


@dataclass
class _Tube:
    """What is known of one track."""

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

    @property
    def mean_area(self) -> float:
        """Pixels per frame in which there are any."""
        return self.pixels / self.frames if self.frames else 0.0


@dataclass
class _Video:
    """Tracks of one video in the order of their first appearance, and common pixels of pairs."""

    truth: dict[Hashable, _Tube] = field(default_factory=dict)
    predicted: dict[Hashable, _Tube] = field(default_factory=dict)
    overlap: Counter[tuple[Hashable, Hashable]] = field(default_factory=Counter)
    size: tuple[int, int] | None = None

    def add(
        self,
        truth: Sequence[TrueTrack],
        true_masks: Sequence[Sequence[RunLengths | None]],
        predicted: Sequence[PredictedTrack],
        predicted_masks: Sequence[Sequence[RunLengths | None]],
    ) -> None:
        """Count the pixels of some frames."""
        for true, masks in zip(truth, true_masks, strict=True):
            self.truth.setdefault(true.id, _Tube(true.category, bool(true.crowd))).add(masks)
        for guess, masks in zip(predicted, predicted_masks, strict=True):
            tube = self.predicted.setdefault(guess.id, _Tube(guess.category))
            tube.add(masks)
            tube.score = float(guess.score)
        true_pairs = zip(truth, true_masks, strict=True)
        guess_pairs = zip(predicted, predicted_masks, strict=True)
        for (true, a), (guess, b) in product(true_pairs, guess_pairs):
            pixels = _common(a, b) if true.category == guess.category else 0
            if pixels:
                self.overlap[true.id, guess.id] += pixels

    def pairing(self, category: int) -> _Pairing:
        """The tracks of one class, predicted ones by score and only those that count."""
        truth = {key: t for key, t in self.truth.items() if t.category == category}
        by_score = sorted(self.predicted.items(), key=lambda item: -item[1].score)
        best = [(key, t) for key, t in by_score if t.category == category][:MOST_TRACKS]
        iou = [[self._iou(true, guess) for true in truth] for guess, _ in best]
        return _Pairing(
            np.array(iou, np.float64).reshape(len(best), len(truth)),
            np.array([t.score for _, t in best], np.float64),
            np.array([t.mean_area for _, t in best], np.float64),
            np.array([t.mean_area for t in truth.values()], np.float64),
            np.array([t.crowd for t in truth.values()], np.bool_),
        )

    def _iou(self, true: Hashable, guess: Hashable) -> float:
        common = self.overlap[true, guess]
        union = self.truth[true].pixels + self.predicted[guess].pixels - common
        return common / union if union else 0.0


@dataclass(frozen=True)
class _Outcome:
    """One video and class: what became of its D predictions in one range of areas."""

    scores: NDArray[np.float64]
    hits: NDArray[np.bool_]
    """[10, D] by IoU threshold; neither hit nor miss: ignored."""
    misses: NDArray[np.bool_]
    positives: int
    """Ground truth that is not ignored."""


@dataclass(frozen=True)
class _Pairing:
    """One video and class: D predictions by falling score, G ground truth tracks."""

    iou: NDArray[np.float64]
    """[D, G]"""
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    true_areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]

    def outcome(self, low: float, high: float) -> _Outcome:
        """Match where only tracks of a mean area of low..high count."""
        ignored = self.crowd | (self.true_areas < low) | (self.true_areas > high)
        match = self._match(ignored)
        found = match >= 0
        outside = (self.areas < low) | (self.areas > high)
        not_counted = np.where(found, np.append(ignored, False)[match], outside)
        return _Outcome(
            self.scores,
            found & ~not_counted,
            ~found & ~not_counted,
            np.count_nonzero(~ignored),
        )

    def _match(self, ignored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[10, D] the ground truth of each prediction by IoU threshold, -1 for none.

        In the order of scores each prediction takes what is best of the rest: not ignored before
        ignored, then by IoU, then the last.
        """
        number = len(IOU_THRESHOLDS)
        match = np.full((number, len(self.iou)), -1)
        taken = np.zeros((number, len(ignored)), np.bool_)
        for d, iou in enumerate(self.iou if len(ignored) else ()):
            preference = np.empty(len(ignored), np.int64)
            preference[np.lexsort((iou, ~ignored))] = np.arange(len(ignored))
            possible = (iou >= IOU_THRESHOLDS[:, None]) & (self.crowd | ~taken)
            best = np.where(possible, preference, -1).argmax(1)
            found = np.flatnonzero(possible.any(1))
            match[found, d] = best[found]
            taken[found, best[found]] = True
        return match


def _select(curves: Mapping[int, _Curves], area: int, tracks: int) -> dict[int, ClassPrecision]:
    """The curves of one kind, by category, where there are any."""
    return {k: c[area, tracks] for k, c in curves.items() if (area, tracks) in c}


def _curve(outcomes: Sequence[_Outcome], tracks: int) -> ClassPrecision:
    """Precision and recall of one class over all videos, with so many tracks of each video."""
    order = np.argsort(-np.concatenate([o.scores[:tracks] for o in outcomes]), kind="stable")
    hits = np.concatenate([o.hits[:, :tracks] for o in outcomes], 1)[:, order].cumsum(1)
    misses = np.concatenate([o.misses[:, :tracks] for o in outcomes], 1)[:, order].cumsum(1)
    recall = hits / sum(outcome.positives for outcome in outcomes)
    precision = hits / np.maximum(hits + misses, 1)
    # The best precision at this recall or a higher one.
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    padded = np.pad(precision, ((0, 0), (0, 1)))  # 0 for recalls that are not reached
    places = [np.searchsorted(row, RECALLS, side="left") for row in recall]
    sampled = np.take_along_axis(padded, np.array(places), 1)
    reached = recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
    return ClassPrecision(float(sampled.mean()), sampled, reached)


def _check_scores(predicted: Sequence[PredictedTrack]) -> None:
    for track in predicted:
        if not np.isfinite(track.score):
            raise ValueError(
                f"predicted track {track.id!r} must have a finite score, found {track.score}"
            )


def _common(a: Sequence[RunLengths | None], b: Sequence[RunLengths | None]) -> int:
    """Pixels of two tracks in common."""
    pairs = zip(a, b, strict=True)
    return sum(x.intersection(y) for x, y in pairs if x is not None and y is not None)


def _run_lengths(masks: Masks) -> list[RunLengths | None]:
    """One entry per frame; ValueError if a mask is malformed."""
    if isinstance(masks, np.ndarray) and masks.ndim == 2:
        masks = masks[None]
    if isinstance(masks, (RunLengths, Mapping, str, bytes)):
        raise ValueError(
            f"masks must be [T, H, W], [H, W] or one entry per frame, found {type(masks).__name__}"
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
        raise ValueError(f"tracks must have as many frames as each other, found {lengths}")
    sizes = {mask.size for masks in tracks for mask in masks if mask is not None}
    sizes |= {known} if known is not None else set()
    if len(sizes) > 1:
        raise ValueError(f"masks of a video must have one size, found {sorted(sizes)}")
    return sizes.pop() if sizes else None
