"""From predictions and targets to the weighted losses of a training step, in task semantic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..model.video_knet import Prediction
from . import losses
from .criterion import resize_logits
from .matching import Match
from .targets import ClassTargets
from .train_config import LossWeights


class SemanticCriterion:
    """Cross-entropy over classes, of the head, of each stage and of the auxiliary head.

    A kernel is a class, so nothing is matched, and nothing is associated over time: what looks back
    changes masks, and learns by them. Source: the semantic configurations of K-Net (each stage 1.0,
    auxiliary head 0.4).
    """

    def __init__(self, weights: LossWeights) -> None:
        self.weights = weights

    def frames(
        self, prediction: Prediction, targets: Sequence[ClassTargets]
    ) -> tuple[dict[str, Tensor], dict[str, list[Match]]]:
        """Losses of B frames; "track" has a match for each, of nothing."""
        goals = torch.stack([target.semantic for target in targets])
        weighted = {"head": (prediction.head.semantic_logits, self.weights.semantic)}
        for i, stage in enumerate(prediction.stages):
            weighted[f"stage{i}"] = stage.mask_logits, self.weights.semantic
        if prediction.auxiliary is not None:
            weighted["auxiliary"] = prediction.auxiliary, self.weights.auxiliary
        found = {
            f"{name}_semantic": weight * self._loss(logits, goals)
            for name, (logits, weight) in weighted.items()
        }
        nothing = torch.zeros(0, dtype=torch.int64, device=goals.device)
        return found, {"track": [Match(nothing, nothing)] * len(goals)}

    def pairs(self, key: Any, reference: Any) -> dict[str, Tensor]:
        """None: there are no tracks."""
        return {}

    def _loss(self, logits: Tensor, goals: Tensor) -> Tensor:
        logits = resize_logits(logits, goals.shape[1:])
        return losses.semantic_loss(logits, goals, self.weights.balance)
