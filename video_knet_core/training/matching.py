"""One-to-one assignment of thing kernels to ground-truth instances.

Source: MaskHungarianAssigner of the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .targets import FrameTargets


class Match(NamedTuple):
    """M assignments: in frame `frames[i]` of a batch kernel `kernels[i]` is `instances[i]`."""

    frames: Tensor
    """[M] int64"""
    kernels: Tensor
    """[M] int64 slots."""
    instances: Tensor
    """[M] int64 rows of `FrameTargets.masks`."""


@torch.no_grad()
def match_instances(
    predictions: Sequence[tuple[Tensor, Tensor | None]], targets: FrameTargets
) -> list[Match]:
    """Hungarian matching on mask (1), dice (4) and focal class (2) costs, for each prediction.

    The costs of all predictions and frames go to the host in one transfer. SciPy solves them there
    one by one: no library has a batched solver.

    Args:
        predictions: mask logits [F,P,h,w] of the thing kernels and their class logits [F,P,T];
            None for the kernel head, which has no classes.
        targets: of F frames, masks on the same grid.

    Raises:
        FloatingPointError: a mask logit is not a number.
    """
    weight, masks = targets.valid.flatten(1)[:, None], targets.masks.flatten(2)  # [F,1|G,hw]
    agreement = weight * (2 * masks - 1), (weight * (1 - masks)).sum(2)[:, None]
    overlap = weight.square() * masks
    size = (weight * masks).square().sum(2)[:, None]  # [F,1,G]
    classes = targets.classes[:, None]
    costs = []
    for mask_logits, class_logits in predictions:
        probability = mask_logits.float().sigmoid().flatten(2)  # [F,P,hw]
        p = probability.clamp(min=0.01)
        mask_cost = -(p @ agreement[0].transpose(1, 2) + agreement[1]) / p.shape[2]
        p = probability.clamp(min=0.001)
        sizes = p.square() @ weight.square().transpose(1, 2) + size + 2e-3
        dice_cost = -2 * (p @ overlap.transpose(1, 2)) / sizes
        cost = mask_cost + 4 * dice_cost  # [F,P,G]
        if class_logits is not None:
            focal = _focal_cost(class_logits.float())
            cost = cost + 2 * focal.gather(2, classes.expand(-1, focal.shape[1], -1))
        costs.append(cost)
    absent = ~targets.present[:, None]
    on_host = torch.stack(costs).masked_fill(absent, torch.inf).cpu().numpy()
    if np.isnan(on_host).any():
        raise FloatingPointError("mask logits: expected numbers, got NaN: the training diverged")
    parts = [_assign(part) for part in on_host]
    flat = torch.from_numpy(np.concatenate(parts, 1)).to(absent.device)
    return [Match(*rows) for rows in flat.split([part.shape[1] for part in parts], 1)]


def _focal_cost(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    p = logits.sigmoid()
    positive = -(p + 1e-12).log() * alpha * (1 - p) ** gamma
    negative = -(1 - p + 1e-12).log() * (1 - alpha) * p**gamma
    return positive - negative


def _assign(costs: np.ndarray) -> np.ndarray:
    """[F,P,G] costs, infinite in columns without an instance -> frame, kernel, instance [3,M]."""
    found = [np.zeros((3, 0), np.int64)]
    for frame, cost in enumerate(costs):
        columns = np.flatnonzero(np.isfinite(cost[0]))
        kernels, chosen = linear_sum_assignment(cost[:, columns])
        found.append(np.stack((np.full_like(kernels, frame), kernels, columns[chosen])))
    return np.concatenate(found, 1)
