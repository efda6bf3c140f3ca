"""One-to-one assignment of thing kernels to ground-truth instances.

Source: MaskHungarianAssigner of the authors' code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


class Match(NamedTuple):
    """Pairs of one image: kernel `kernels[i]` is responsible for instance `instances[i]`."""

    kernels: Tensor
    """[M] int64 slots."""
    instances: Tensor
    """[M] int64 rows of the targets."""


@torch.no_grad()
def match_instances(
    mask_logits: Tensor, class_logits: Tensor | None, masks: Tensor, classes: Tensor, valid: Tensor
) -> Match:
    """Hungarian matching on focal (2), mask (1) and dice (4) costs.

    Args:
        mask_logits: [P,h,w] of the thing kernels.
        class_logits: [P,T], or None for the kernel head, which has no classes.
        masks: [G,h,w] soft masks; classes: [G]; valid: [h,w] weight of each cell.
    """
    if not len(masks):
        empty = torch.zeros(0, dtype=torch.int64, device=masks.device)
        return Match(empty, empty)
    weight = valid.flatten()
    probability = mask_logits.float().sigmoid().flatten(1)
    target = masks.flatten(1)
    cost = mask_cost(probability, target, weight) + 4 * dice_cost(probability, target, weight)
    if class_logits is not None:
        cost = cost + 2 * focal_cost(class_logits.float(), classes)
    kernels, instances = linear_sum_assignment(cost.cpu().numpy())
    device = masks.device
    return Match(torch.as_tensor(kernels, device=device), torch.as_tensor(instances, device=device))


def focal_cost(logits: Tensor, classes: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """[P,T] logits, [G] classes -> [P,G]."""
    p = logits.sigmoid()
    positive = -(p + 1e-12).log() * alpha * (1 - p) ** gamma
    negative = -(1 - p + 1e-12).log() * (1 - alpha) * p**gamma
    return (positive - negative)[:, classes]


def mask_cost(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """[P,hw] and [G,hw] -> [P,G], minus the mean agreement per cell."""
    p = probability.clamp(0.01, 1)
    agreement = (p * weight) @ target.T + ((1 - p) * weight) @ (1 - target).T
    return -agreement / p.shape[1]


def dice_cost(probability: Tensor, target: Tensor, weight: Tensor, eps: float = 1e-3) -> Tensor:
    """[P,hw] and [G,hw] -> [P,G], minus the dice overlap."""
    p = probability.clamp(0.001, 1) * weight
    g = target * weight
    overlap = 2 * p @ g.T
    return -overlap / (p.square().sum(1)[:, None] + g.square().sum(1)[None] + 2 * eps)
