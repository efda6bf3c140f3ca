"""Depth-aware Video Panoptic Quality, and errors of depth.

DVPQ (Qiao et al., ViP-DeepLab, CVPR 2021, section 3.2): the prediction becomes void where the
absolute relative error of its depth is above a threshold lambda; what is left is scored by VPQ
(`metrics/vpq.py`). The result is the mean over all lambda and windows. As in the published
evaluation (joe-siyuan-qiao/ViP-DeepLab, `eval_dvpq.py`), pixels whose true depth is not known keep
their prediction, and true segments keep all their pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .overlaps import Labels
from .vpq import Absent, Crowd, PanopticMeans, PanopticQuality, VideoPanopticQuality

if TYPE_CHECKING:
    from typing_extensions import Self

THRESHOLDS = (0.1, 0.25, 0.5)
"""The published lambdas."""
DELTA = 1.25
"""Maximum factor between a depth and the true one that counts as right."""

Depth = NDArray[np.floating]
"""Metres; in ground truth 0 = unknown."""


@dataclass(frozen=True)
class DepthErrors:
    """Over all pixels of known depth; NaN if there is none."""

    abs_rel: float
    """Mean of |predicted - true| / true."""
    rmse: float
    """Root of the mean squared error, in metres."""
    delta: float
    """Fraction whose larger depth of the two is less than `DELTA` times the smaller."""


@dataclass(frozen=True)
class DepthAwareQuality(PanopticMeans):
    """Means over the thresholds of what VPQ is with each (`vpq` is DVPQ), and the depth alone."""

    per_threshold: dict[float, PanopticQuality]
    errors: DepthErrors


class DepthAwarePanopticQuality:
    """Collects frames of any number of sequences, frame by frame or in blocks.

    Args:
        num_classes, things, windows, absent, crowd: see `VideoPanopticQuality`.
        thresholds: absolute relative errors of depth (lambda of the paper), one at least.
    """

    def __init__(
        self,
        num_classes: int,
        things: Sequence[int],
        windows: Sequence[int] = (1, 2, 3, 4),
        thresholds: Sequence[float] = THRESHOLDS,
        absent: Absent = "skip",
        crowd: Crowd = "ignore",
    ) -> None:
        self._qualities = {
            threshold: VideoPanopticQuality(num_classes, things, windows, absent, crowd)
            for threshold in thresholds
        }
        self._sums: NDArray[np.float64] = np.zeros(4)
        """Pixels of known depth; sums of relative errors and of squared errors; right ones."""

    def update(
        self,
        gt_semantic: Labels,
        gt_instance: Labels,
        gt_depth: Depth,
        pred_semantic: Labels,
        pred_instance: Labels,
        pred_depth: Depth,
        sequence: Hashable = 0,
    ) -> None:
        """Add the next frames of a sequence; see `OverlapMetric.update`.

        Args:
            gt_depth, pred_depth: [H, W] or [T, H, W] as the labels; predictions are above 0.

        Raises:
            ValueError: maps have other shapes or labels than expected; nothing is added then.
        """
        for name, depth in (("gt_depth", gt_depth), ("pred_depth", pred_depth)):
            if depth.shape != gt_semantic.shape:
                expected = f"{gt_semantic.shape} like gt_semantic"
                raise ValueError(f"{name}: expected {expected}, got {depth.shape}")
        known = gt_depth > 0
        error = np.zeros(gt_depth.shape)
        np.divide(np.abs(pred_depth - gt_depth), gt_depth, out=error, where=known)
        for threshold, quality in self._qualities.items():
            kept = np.where(error > threshold, NO_CLASS, pred_semantic)
            quality.update(gt_semantic, gt_instance, kept, pred_instance, sequence)
        self._sums += _error_sums(gt_depth[known], pred_depth[known])

    def merge(self, other: Self) -> None:
        """Take over the sequences of `other`, of the same settings; none of them is known here."""
        for threshold, quality in self._qualities.items():
            quality.merge(other._qualities[threshold])
        self._sums = self._sums + other._sums

    def compute(self) -> DepthAwareQuality:
        """Quality of all windows finished so far."""
        found = {threshold: quality.compute() for threshold, quality in self._qualities.items()}
        means = [(quality.vpq, quality.things, quality.stuff) for quality in found.values()]
        vpq, things, stuff = np.mean(means, axis=0).tolist()
        return DepthAwareQuality(vpq, things, stuff, found, self._errors())

    def _errors(self) -> DepthErrors:
        pixels, *sums = self._sums
        relative, squared, right = np.array(sums) / pixels if pixels else np.full(3, np.nan)
        return DepthErrors(float(relative), float(np.sqrt(squared)), float(right))


def _error_sums(true: Depth, predicted: Depth) -> NDArray[np.float64]:
    """See `DepthAwarePanopticQuality._sums`; of [N] known depths."""
    true, predicted = true.astype(np.float64), predicted.astype(np.float64)
    error = predicted - true
    right = np.maximum(predicted, true) < DELTA * np.minimum(predicted, true)
    sums = (len(true), np.abs(error / true).sum(), np.square(error).sum(), right.sum())
    return np.array(sums, np.float64)
