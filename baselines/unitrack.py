"""UniTrack: tracking by an image network that was trained for something else.

Wang et al., "Do Different Tracking Tasks Require Different Appearance Models?", NeurIPS 2021,
with what its public program (github.com/Zhongdao/UniTrack) adds to the text. For each frame:
1. Kalman filters of constant velocity predict the boxes of all tracks, as in DeepSORT.
2. Confirmed tracks, also those out of sight, are matched by appearance and motion.
3. Confirmed tracks that were in sight until now are matched by box overlap.
4. Tentative tracks are matched by box overlap.
Each of the matchings has the best sum (Hungarian method). Time is counted in frames, as published:
the noise of the filters is per frame, however long a frame lasts.

What differs from the program:
- Births, confirmation and deaths are those of `LifecycleTracker`, so that a difference from another
  tracker is not one of these. So a tentative track that was not seen is kept for a short while, and
  of a track and a lost one at the same place neither is removed.
- Boxes are the tight ones of the masks. For masks the program has mean +- 2 mean absolute
  deviations of the pixels, which for a filled rectangle is the same.
- An object that covers less than half a cell of the feature map has the features of the cell that
  it covers most; the program gives it random ones.
- The filters of tentative tracks advance as well; there, only those of its mask tracker do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from video_knet_core.config_io import ConfigError, settings_class
from video_knet_core.geometry import box_overlap
from video_knet_core.tracking.baselines import image_of
from video_knet_core.tracking.clock import StreamTime
from video_knet_core.tracking.embedding import (
    Expected,
    LifecycleSettings,
    LifecycleTracker,
    Ranking,
)
from video_knet_core.tracking.tracker import register, select_rows
from video_knet_core.types import Detections

LEVEL = 1
"""Stride 8 of the pyramid of the ImageNet network, as published."""
MAX_POINTS = 200
"""Points of the feature map that an object has at most, about: a larger one is made smaller."""
SHARPNESS = 100.0
"""Of the softmax over cosines with which an object is reconstructed."""
LARGEST_EXPONENT = 75
"""Of e in the softmax. In float32 it leaves room for the sum of many above, and for cosines of -0.6
below."""
TINY = np.float32(1e-30)
"""Added to sums of weights: those of a point nearly opposite to all others are 0."""
MOTION_WEIGHT = 0.02
"""Of the squared Mahalanobis distance in the cost; appearance has the rest."""
MAX_COST = 0.7
"""Maximum cost of appearance and motion. As in the published mask tracker there is no other gate;
its box tracker has one, a distance of 9.4877."""
REACH = MAX_COST / MOTION_WEIGHT
"""Distance from which on a pair costs too much however similar it looks."""
MIN_OVERLAP = 0.5
"""Minimum intersection over union of a confirmed track with a box."""
MIN_TENTATIVE_OVERLAP = 0.3
"""Minimum intersection over union of a tentative track with a box."""

STEP = np.eye(8) + np.eye(8, k=4)
"""One frame: each of centre x, y, aspect and height continues by its speed."""
_PLACE, _SPEED = np.array([1, 1, 0, 1]) / 20, np.array([1, 1, 0, 1]) / 160
_ASPECT = np.array([0, 0, 1e-2, 0, 0, 0, 1e-5, 0])
FIRST_NOISE = np.concatenate([2 * _PLACE, 10 * _SPEED]), _ASPECT
"""Standard deviations of a new box and of its speeds: multiples of its height, plus constants."""
MOTION_NOISE = np.concatenate([_PLACE, _SPEED]), _ASPECT
"""Those that a frame adds."""
BOX_NOISE = _PLACE, np.array([0, 0, 1e-1, 0])
"""Those of a seen box. All these values are those of DeepSORT."""

Floats = NDArray[np.float64]
Points = NDArray[np.float32]
"""[P, C] features of the points of an object, each of length 1, or 0 if it has no direction."""
_Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""RGB image [H, W, 3] -> features [C, h, w] of it."""


# --- appearance


def object_points(features: NDArray[np.float32], mask: NDArray[np.bool_]) -> Points:
    """Features of one object, only of what is under its mask.

    Args:
        features: [h, w, C] of the image.
        mask: [h', w'] of the same image, of any size; some pixel is in it.
    """
    height, width = features.shape[:2]
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    inside = _at_least_half(covered)
    x, y, columns, rows = cv2.boundingRect(inside.view(np.uint8))
    box = slice(y, y + rows), slice(x, x + columns)
    weight = inside[box].astype(np.float32)
    points = features[box] * weight[..., None]  # so that no other object shines in at its border
    scale = math.sqrt(MAX_POINTS / np.count_nonzero(inside))
    if scale < 1:
        size = max(int(columns * scale), 1), max(int(rows * scale), 1)
        weight, points = cv2.resize(weight, size), cv2.resize(points, size)
    return _unit(points.reshape(*weight.shape, -1)[_at_least_half(weight)])


def _at_least_half(covered: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Cells that are covered by half; if there are none, those that are covered most."""
    return np.asarray(covered >= min(0.5, covered.max()))


def _unit(vectors: NDArray[np.float32]) -> Points:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def reconstruction_similarity(
    a: Sequence[Points], b: Sequence[Points], pairs: NDArray[np.bool_] | None = None
) -> Floats:
    """Reconstruction Similarity Metric (figure 5 of the paper): [N, M] of N with M objects, 0..1.

    Each point of an object is reconstructed from the points of another, weighted by a softmax of
    the cosines with the points of all objects there. So points that look more like a third object
    count little. The similarity is the cosine between the object and its reconstruction, over all
    points at once; the mean of both directions.

    Args:
        a: N objects of one frame, one at least.
        b: M objects of another frame, one at least.
        pairs: [N, M] those to compare, all if None; the others get 0.
    """
    compared = np.ones((len(a), len(b)), np.bool_) if pairs is None else pairs
    rows, columns = _slices(a), _slices(b)
    weights = _softmax_numerators(np.concatenate(a) @ np.concatenate(b).T)
    scale_of_a, scale_of_b = (1 / (weights.sum(axis=axis) + TINY)[:, None] for axis in (1, 0))
    similarity = np.zeros(compared.shape)
    for i, j in np.argwhere(compared).tolist():
        block = weights[rows[i], columns[j]]
        made_of_b = block @ b[j] * scale_of_a[rows[i]]
        made_of_a = block.T @ a[i] * scale_of_b[columns[j]]
        similarity[i, j] = (_cosine(a[i], made_of_b) + _cosine(b[j], made_of_a)) / 2
    return similarity


def _slices(objects: Sequence[Points]) -> list[slice]:
    """Where the points of each object are among those of all."""
    ends = accumulate(map(len, objects))
    return [slice(end - len(points), end) for points, end in zip(objects, ends, strict=True)]


def _softmax_numerators(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """[P, Q] the same for a softmax over P and one over Q; in place, as this is by far the largest
    array."""
    cosines *= np.float32(SHARPNESS)
    cosines += np.float32(LARGEST_EXPONENT - SHARPNESS)
    return np.asarray(cv2.exp(cosines, cosines))  # three times as fast as that of NumPy


def _cosine(a: Points, b: Points) -> float:
    """Of all values at once; 0 if either has none."""
    product, scale = np.vdot(a, b), math.sqrt(np.vdot(a, a) * np.vdot(b, b))
    return float(product / scale) if scale > 0 else 0.0


# --- motion


@dataclass(frozen=True)
class Motion:
    """Kalman filters of M boxes, as in DeepSORT (Wojke et al., ICIP 2017) and JDE.

    The state is centre x, y, width / height, height in pixels, and their changes per frame.
    """

    mean: Floats
    """[M, 8]"""
    covariance: Floats
    """[M, 8, 8]"""

    @classmethod
    def of(cls, boxes: NDArray) -> Motion:
        """New ones at boxes [M, 4] of x, y, width, height: where these go is not known."""
        size = boxes[:, 2:].astype(np.float64)
        aspect = size[:, :1] / size[:, 1:]
        seen = np.hstack([boxes[:, :2] + size / 2, aspect, size[:, 1:]])
        return cls(np.hstack([seen, np.zeros_like(seen)]), _covariance(size[:, 1], FIRST_NOISE))

    @classmethod
    def stack(cls, motions: Sequence[Motion]) -> Motion:
        """Several as one; there is one at least."""
        mean = np.concatenate([motion.mean for motion in motions])
        return cls(mean, np.concatenate([motion.covariance for motion in motions]))

    def __getitem__(self, i: int) -> Motion:
        """The filter of one box."""
        return Motion(self.mean[i : i + 1], self.covariance[i : i + 1])

    def predict(self, visible: NDArray[np.bool_]) -> Motion:
        """One frame later.

        A box keeps its height if it was not `visible` [M] in the frame before, and if it would
        shrink to nothing.
        """
        mean = self.mean.copy()
        mean[~visible | (mean[:, 3] + mean[:, 7] <= 0), 7] = 0.0
        noise = _covariance(mean[:, 3], MOTION_NOISE)
        return Motion(mean @ STEP.T, STEP @ self.covariance @ STEP.T + noise)

    def correct(self, seen: Floats) -> Motion:
        """After seeing [M, 4] of centre x, y, aspect and height."""
        gain = self.covariance[:, :, :4] @ np.linalg.inv(self._seen_covariance())
        mean = self.mean + (gain @ (seen - self.mean[:, :4])[..., None])[..., 0]
        return Motion(mean, self.covariance - gain @ self.covariance[:, :4])

    def distance(self, seen: Floats) -> Floats:
        """[N, M] squared Mahalanobis distance of N boxes [N, 4] as above."""
        away = seen[:, None] - self.mean[:, :4]
        return np.einsum("nmi,mij,nmj->nm", away, np.linalg.inv(self._seen_covariance()), away)

    def boxes(self) -> Floats:
        """[M, 4] x, y, width, height."""
        size = np.stack([self.mean[:, 2] * self.mean[:, 3], self.mean[:, 3]], axis=1)
        return np.hstack([self.mean[:, :2] - size / 2, size])

    def _seen_covariance(self) -> Floats:
        """[M, 4, 4] of the box that will be seen."""
        return self.covariance[:, :4, :4] + _covariance(self.mean[:, 3], BOX_NOISE)


def _covariance(height: Floats, noise: tuple[Floats, Floats]) -> Floats:
    """[M, S, S] of independent values, for boxes of `height` [M]."""
    relative, absolute = noise
    deviation = height[:, None] * relative + absolute
    return deviation[:, :, None] ** 2 * np.eye(len(relative))


# --- the tracker


@dataclass(frozen=True)
class Observation:
    """An object as it was last seen, and its motion.

    The program also keeps a running mean of features, but compares those of the last frame: two
    masks have no points in common of which there could be a mean.
    """

    points: Points
    motion: Motion


@register
class UniTrackTracker(LifecycleTracker):
    """Features of an ImageNet network under the masks, and motion; see the module.

    Args:
        settings: settings; the defaults if None.
        features: the image network; None = one that was trained on ImageNet.

    Raises:
        ConfigError: a package is missing.
    """

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "unitrack"

    def __init__(self, settings: Settings | None = None, features: _Features | None = None) -> None:
        super().__init__(settings)
        try:  # only who needs this tracker needs these
            from scipy.optimize import linear_sum_assignment

            self._solve = linear_sum_assignment
            self._features = features or _imagenet_features()
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"tracker 'unitrack' needs {error.name}: pip install 'video_knet_ros[train]'"
            ) from None

    def describe(self, detections: Detections) -> list[Observation]:
        """New observations; the motion of the tracks goes on to this frame.

        Raises:
            ConfigError: there is no image.
        """
        image = image_of(detections, self.settings.tracker)
        self._predict()
        if not len(detections):
            return []
        features = np.ascontiguousarray(self._features(image).transpose(1, 2, 0))
        motion = Motion.of(detections.regions.boxes)
        return [
            Observation(object_points(features, mask), motion[i])
            for i, mask in enumerate(detections.row_masks)
        ]

    def blend(self, previous: Observation, cue: Observation) -> Observation:
        """The new features; the motion of the track, corrected by the new box."""
        return replace(cue, motion=previous.motion.correct(cue.motion.mean[:, :4]))

    def compare(
        self, detections: Detections, cues: list[Observation], expected: Expected
    ) -> Ranking:
        """1 - the cost of appearance and motion, for boxes within `REACH` of a track."""
        seen = np.concatenate([cue.motion.mean[:, :4] for cue in cues])
        distance = Motion.stack([cue.motion for cue in expected.cues]).distance(seen)
        near = distance < REACH
        similarity = reconstruction_similarity(
            [cue.points for cue in cues], [cue.points for cue in expected.cues], near
        )
        return 1 - (1 - MOTION_WEIGHT) * (1 - similarity) - MOTION_WEIGHT * distance, near

    def _predict(self) -> None:
        """Advance the motion of all tracks; in a new table, for a suspended stream has the old."""
        if not self.cues:
            return
        ids = self.tracks["row"]["track_id"].tolist()
        motion = Motion.stack([self.cues[i].motion for i in ids]).predict(self.tracks["visible"])
        self.cues = {i: replace(self.cues[i], motion=motion[k]) for k, i in enumerate(ids)}

    def match(
        self,
        detections: Detections,
        cues: list[Observation],
        known: NDArray[np.void],
        now: StreamTime,
    ) -> list[tuple[int, int]]:
        """Pairs of a detection and a track of `known`: steps 2 to 4 of the module."""
        confirmed, overlap = known["confirmed"], self._expected(detections, known).overlap
        pairs = self._match_by_appearance(detections, cues, known, np.flatnonzero(confirmed))
        for tracks, minimum in (
            (confirmed & known["visible"], MIN_OVERLAP),
            (~confirmed, MIN_TENTATIVE_OVERLAP),
        ):
            free = np.broadcast_to(tracks, overlap.shape).copy()
            for i, j in pairs:
                free[i], free[:, j] = False, False
            pairs += self._best(overlap, free, minimum)
        return pairs

    def _match_by_appearance(
        self,
        detections: Detections,
        cues: list[Observation],
        known: NDArray[np.void],
        chosen: NDArray[np.int64],
    ) -> list[tuple[int, int]]:
        """Pairs of one class. Only the tracks at `chosen` of `known` compete for points."""
        if not len(chosen):
            return []
        tracks = select_rows(known, chosen)
        rank, possible = self.compare(detections, cues, self._expected(detections, tracks))
        same_class = detections.class_ids[:, None] == tracks["row"]["class_id"]
        pairs = self._best(rank, possible & same_class, 1 - MAX_COST)
        return [(i, int(chosen[j])) for i, j in pairs]

    def _expected(self, detections: Detections, tracks: NDArray[np.void]) -> Expected:
        """What is remembered of `tracks`, and where their filters expect them in this frame."""
        cues = [self.cues[track_id] for track_id in tracks["row"]["track_id"].tolist()]
        boxes = Motion.stack([cue.motion for cue in cues]).boxes()
        overlap = box_overlap(detections.regions.boxes, boxes)
        return Expected(cues, boxes, overlap, tracks["visible"])

    def _best(
        self, similarity: NDArray[np.floating], allowed: NDArray[np.bool_], minimum: float
    ) -> list[tuple[int, int]]:
        """Pairs (detection, track) above `minimum`, with the largest sum of what they are above.

        To leave both single is worth as much as a pair at the minimum, as in the `lap.lapjv` with
        `cost_limit` of the program.
        """
        value = np.where(allowed, np.maximum(similarity, minimum), minimum)
        rows, columns = self._solve(value, maximize=True)
        good = value[rows, columns] > minimum
        return list(zip(rows[good].tolist(), columns[good].tolist(), strict=True))


def _imagenet_features() -> _Features:
    from video_knet_core.model.backbone import imagenet_features

    return imagenet_features(LEVEL)
