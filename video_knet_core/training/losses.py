"""Every loss of Video K-Net, unweighted (kernel head, update stages and track head of the authors).

Cells that are not labelled count in no mask or rank loss; with `valid` all ones the formulas are
the authors'. Means over masks, positives and cells of a class are over all processes' batches.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    logsigmoid,
    normalize,
)

from . import processes
from .targets import IGNORE


def mask_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy per cell, mean over all [M,h,w]; `valid` is [M,h,w]. Zero without masks."""
    errors = binary_cross_entropy_with_logits(logits, targets, weight=valid, reduction="sum")
    return errors / _share_of(len(logits), logits) / (logits.shape[1] * logits.shape[2])


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor, eps: float = 1e-3) -> Tensor:
    """1 - dice overlap of each mask, mean over [M,h,w]. Zero without masks."""
    p = (logits.sigmoid() * valid).flatten(1)
    g = (targets * valid).flatten(1)
    squares = p.square().sum(1) + eps + g.square().sum(1) + eps
    return (1 - 2 * (p * g).sum(1) / squares).sum() / _share_of(len(logits), logits)


def rank_loss(logits: Tensor, owners: Tensor, balance: float = 0.0) -> Tensor:
    """Kernels compete for cells: cross-entropy over [B,N,h,w] kernels, mean over all cells.

    `owners` [B,h,w] int64 is the slot that must win, `IGNORE` where nobody is known to.
    """
    return _cell_loss(logits, owners, balance)


def semantic_loss(logits: Tensor, classes: Tensor, balance: float = 0.0) -> Tensor:
    """Cross-entropy over [B,K,h,w] classes, mean over all cells, ignored ones included."""
    return _cell_loss(logits, classes, balance)


def class_map_loss(logits: Tensor, classes: Tensor, known: Tensor) -> Tensor:
    """Focal loss of each class by itself over [B,K,h,w], where a cell may be of no class.

    `classes` [B,h,w] int64 may be `IGNORE`; such a cell is of no class as far as it is `known`
    ([B,h,w], 0..1). Source: `loss_seg` of the authors' instance segmentation.
    """
    of_class = classes != IGNORE
    goals = torch.zeros_like(logits)
    goals.scatter_(1, classes.clamp(min=0)[:, None], of_class[:, None].to(goals.dtype))
    weights = torch.where(of_class, torch.ones_like(known), known)[:, None].expand_as(goals)
    return class_loss(logits, goals, weights, int(of_class.sum()))


def _cell_loss(logits: Tensor, goals: Tensor, balance: float) -> Tensor:
    """Cross-entropy per cell, its mean over all cells.

    A cell whose goal has n cells in the batch weighs n^-`balance` (mean 1 over the known cells), so
    that road does not drown the poles; 0 is the authors' loss.
    """
    known = goals != IGNORE
    counts = processes.total(goals[known].bincount(minlength=logits.shape[1]).to(logits.dtype))
    weights = counts.clamp(min=1) ** -balance
    mean = (weights * counts).sum() / counts.sum().clamp(min=1)
    loss = cross_entropy(logits, goals, weights, ignore_index=IGNORE, reduction="sum")
    return loss / mean.clamp(min=1e-12) / goals.numel()


def center_loss(codes: Tensor, goals: Tensor, owners: Tensor, balance: float = 0.0) -> Tensor:
    """Squared error of the position codes [F,h,w] of one frame, mean over the cells of instances.

    Args:
        codes: what the cells say of the centre of their instance.
        goals: [G,F] the code of each instance's centre.
        owners: [h,w] int64; 0..G-1 where an instance owns the cell.
        balance: an instance of n cells weighs n^(1 - `balance`).
    """
    inside = (owners >= 0) & (owners < len(goals))
    if not inside.any():
        return codes.sum() * 0
    rows = owners[inside]
    weights = rows.bincount(minlength=len(goals)).clamp(min=1).to(codes.dtype)[rows] ** -balance
    errors = (codes[:, inside].T - goals[rows]).square().mean(1)
    return (errors * weights).sum() / weights.sum()


def heat_loss(logits: Tensor, goals: Tensor) -> Tensor:
    """Focal loss of a map of centres [h,w], per centre.

    `goals` [h,w] is 1 at centres and falls off around them, where a miss is forgiven by the fourth
    power. Source: Law and Deng, "CornerNet", 2018, equation 1 (alpha 2, beta 4).
    """
    p = logits.sigmoid()
    centers = goals == 1
    hit = -(1 - p).square() * logsigmoid(logits)
    miss = -((1 - goals) ** 4) * p.square() * logsigmoid(-logits)
    return torch.where(centers, hit, miss).sum() / centers.sum().clamp(min=1)


def class_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    positives: int,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Sigmoid focal loss over [.., N, K], summed and divided by the number of positives."""
    p = logits.sigmoid()
    wrong = (1 - p) * targets + p * (1 - targets)
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    cross = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (balance * wrong**gamma * cross * weights).sum() / _share_of(positives, logits)


def track_loss(key: Tensor, reference: Tensor, same: Tensor) -> Tensor:
    """Contrastive loss: each key instance must be nearer to itself than to any other.

    Args:
        key: [Gk,E] embeddings of the key frame; reference: [Gr,E].
        same: [Gk,Gr] bool, the two are one instance (at most one per row).

    Rows without a partner do not count; zero when none has one.
    """
    rows = same.any(1)
    if not rows.any():
        return (key.sum() + reference.sum()) * 0
    dots, same = (key @ reference.T)[rows], same[rows]
    positive = dots.masked_fill(~same, 0).sum(1, keepdim=True)
    differences = (dots - positive).masked_fill(same, float("-inf"))
    # log(1 + sum exp(d)) = logsumexp over the differences and a zero
    zero = torch.zeros_like(positive)
    return torch.cat((differences, zero), 1).logsumexp(1).mean()


def track_aux_loss(
    key: Tensor,
    reference: Tensor,
    same: Tensor,
    margin: float = 0.1,
    negatives_per_positive: int = 3,
) -> Tensor:
    """Squared error of the cosines against `same`, with margin and hard-negative mining."""
    if not same.numel():
        return (key.sum() + reference.sum()) * 0
    cosine = normalize(key, dim=1) @ normalize(reference, dim=1).T
    error = ((cosine - margin * (~same)).clamp(0, 1) - same.float()).square()
    positives, negatives = error[same], error[~same]
    if len(negatives) > negatives_per_positive * (len(positives) + 1):
        negatives = negatives.topk(negatives_per_positive * len(positives)).values
    kept = len(positives) + len(negatives)
    return (positives.sum() + negatives.sum()) / max(kept, 1)


def _share_of(number: int, like: Tensor) -> Tensor:
    """See `processes.share`; `like` has the device of the result."""
    return processes.share(torch.tensor(float(number), device=like.device))
