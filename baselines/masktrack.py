"""The tracker of MaskTrack R-CNN, which is VPSNet's too. Without torch.

Yang et al., "Video Instance Segmentation", ICCV 2019: a detection is one of the known
objects with the probability that a softmax over the products of embeddings gives it, or with that
of a zero logit a new one. Score, overlap of the boxes and class are added.

What differs from the paper:
- Births, confirmation and deaths are those of `LifecycleTracker`; the paper keeps all objects until
  the end of the video.
- Pairs are taken in descending order over all detections. The paper goes through the detections
  one by one, and of two that choose the same object it drops one; here that one has its next best.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from video_knet_core.config_io import ConfigError, settings_class
from video_knet_core.geometry import box_overlap
from video_knet_core.tracking.clock import StreamTime
from video_knet_core.tracking.embedding import (
    Expected,
    LifecycleSettings,
    LifecycleTracker,
    Ranking,
    match_greedily,
)
from video_knet_core.tracking.tracker import register
from video_knet_core.types import Detections

SCORE_WEIGHT, OVERLAP_WEIGHT, CLASS_WEIGHT = 1.0, 2.0, 10.0
"""alpha, beta and gamma of the paper."""

Floats = NDArray[np.floating]


def match_scores(
    products: Floats, scores: Floats, overlap: Floats, same_class: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """How well N detections match M objects [N, M], and how well each is a new one [N].

    A new object has the class of its detection, and overlaps with no box.

    Args:
        products: [N, M] dot products of embeddings.
        scores: [N] of the detections, above 0.
        overlap: [N, M] intersection over union of boxes.
        same_class: [N, M]
    """
    logits = np.pad(products.astype(np.float64), ((0, 0), (0, 1)))
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    log_p += SCORE_WEIGHT * np.log(np.maximum(scores, 1e-6))[:, None]
    known = log_p[:, :-1] + OVERLAP_WEIGHT * overlap + CLASS_WEIGHT * same_class
    return known, log_p[:, -1] + CLASS_WEIGHT


@register
class MaskTrackTracker(LifecycleTracker):
    """See the module. It compares the embeddings of a track head, vpsnet's."""

    any_network = False

    @settings_class
    class Settings(LifecycleSettings):
        tracker: ClassVar[str] = "masktrack"

    def describe(self, detections: Detections) -> Floats:
        """The embeddings; ConfigError if there are none."""
        if len(detections) and not detections.embeddings.shape[1]:
            raise ConfigError("tracker 'masktrack': expected embeddings of things, got none")
        return detections.embeddings

    def compare(self, detections: Detections, cues: Floats, expected: Expected) -> Ranking:
        """Without classes, which `match` adds: how much better than as a new object."""
        products = cues @ np.stack(expected.cues).T
        same = np.ones(products.shape, np.bool_)
        known, new = match_scores(products, detections.scores, expected.overlap, same)
        return known, known > new[:, None]

    def match(
        self, detections: Detections, cues: Floats, known: NDArray[np.void], now: StreamTime
    ) -> list[tuple[int, int]]:
        """Pairs of a detection and a track of `known`, by the paper's scores and the last boxes."""
        rows = known["row"]
        products = cues @ np.stack([self.cues[i] for i in rows["track_id"].tolist()]).T
        overlap = box_overlap(detections.regions.boxes, rows["box"].astype(np.float64))
        same_class = detections.class_ids[:, None] == rows["class_id"]
        rank, new = match_scores(products, detections.scores, overlap, same_class)
        return match_greedily(rank, rank > new[:, None], detections.scores)
