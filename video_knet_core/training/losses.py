"""Every loss of Video K-Net, unweighted, over batches (the authors' head, stages and track head).

Each function returns one value per mask [M], frame [F] or pair [B]; `criterion` averages them.
Cells that are not labelled count in no mask or rank loss; with `valid` all ones the formulas are
the authors'.
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

from .targets import ANY_STUFF, IGNORE


def mask_loss(logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy of masks [M,h,w], mean over their cells; `valid` is [M,h,w]."""
    errors = binary_cross_entropy_with_logits(logits, targets, weight=valid, reduction="none")
    return errors.flatten(1).mean(1)


def dice_loss(logits: Tensor, targets: Tensor, valid: Tensor, eps: float = 1e-3) -> Tensor:
    """1 - dice overlap of masks [M,h,w]."""
    p = (logits.sigmoid() * valid).flatten(1)
    g = (targets * valid).flatten(1)
    squares = p.square().sum(1) + eps + g.square().sum(1) + eps
    return 1 - 2 * (p * g).sum(1) / squares


def cell_loss(
    logits: Tensor, goals: Tensor, weights: Tensor | None = None, stuff: int = 0
) -> Tensor:
    """Cross-entropy over the N maps of [F,N,h,w], mean over all cells, ignored ones included.

    Over kernels it is the authors' rank loss, over classes their semantic loss.

    Args:
        goals: [F,h,w] int64 map that must win each cell, `IGNORE`, or `ANY_STUFF`: one of the last
            `stuff` maps must win it, whichever.
        weights: [F,N+1] of the cells by their goal, the last of `ANY_STUFF`; see `balanced`.
    """
    named = goals.clamp(min=IGNORE)
    errors = cross_entropy(logits, named, ignore_index=IGNORE, reduction="none")
    any_stuff = goals == ANY_STUFF
    if stuff and any_stuff.any():
        either = logits.logsumexp(1) - logits[:, -stuff:].logsumexp(1)
        errors = torch.where(any_stuff, either, errors)
    if weights is not None:
        of_goal = torch.where(any_stuff, logits.shape[1], goals.clamp(min=0)).flatten(1)
        return (errors.flatten(1) * weights.gather(1, of_goal)).mean(1)
    return errors.flatten(1).mean(1)


def balanced(counts: Tensor, balance: float) -> Tensor:
    """[...,N] number of cells by goal -> weights of a cell, n^-`balance` with mean 1 over cells.

    So that road does not drown the poles; 0 is the authors' loss.
    """
    weights = counts.clamp(min=1) ** -balance
    mean = (weights * counts).sum(-1) / counts.sum(-1).clamp(min=1)
    return weights / mean.clamp(min=1e-12)[..., None]


def focal_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sigmoid focal loss over [F,...], the sum of each frame."""
    p = logits.sigmoid()
    wrong = (1 - p) * targets + p * (1 - targets)
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    cross = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (balance * wrong**gamma * cross * weights).flatten(1).sum(1)


def class_map_loss(logits: Tensor, classes: Tensor, known: Tensor) -> Tensor:
    """Focal loss of each class by itself over [F,K,h,w], where a cell may be of no class.

    `classes` [F,h,w] int64 may be `IGNORE`; such a cell is of no class as far as it is `known`
    ([F,h,w], 0..1). Source: `loss_seg` of the authors' instance segmentation.
    """
    of_class = classes != IGNORE
    goals = torch.zeros_like(logits)
    goals.scatter_(1, classes.clamp(min=0)[:, None], of_class[:, None].to(goals.dtype))
    weights = torch.where(of_class, torch.ones_like(known), known)[:, None]
    return focal_loss(logits, goals, weights)


def center_loss(codes: Tensor, goals: Tensor, instances: Tensor, balance: float = 0.0) -> Tensor:
    """Squared error of position codes [F,C,h,w], mean over the cells of instances.

    Args:
        codes: predicted code of the centre of each cell's instance.
        goals: [F,G,C] the code of each instance's centre.
        instances: [F,h,w] int64 instance that owns the cell, negative for none.
        balance: an instance of n cells weighs n^(1 - `balance`).
    """
    frames, rows, columns = (instances >= 0).nonzero(as_tuple=True)
    owner = instances[frames, rows, columns]
    errors = (codes[frames, :, rows, columns] - goals[frames, owner]).square().mean(1)
    sizes = codes.new_zeros(goals.shape[:2])
    sizes.index_put_((frames, owner), torch.ones_like(errors), accumulate=True)
    weights = sizes[frames, owner] ** -balance
    zero = codes.new_zeros(len(codes))
    total = zero.index_add(0, frames, weights)
    return zero.index_add(0, frames, errors * weights) / total.clamp(min=1e-12)


def heat_loss(logits: Tensor, goals: Tensor, known: Tensor) -> Tensor:
    """Focal loss of maps of centres [F,h,w], per centre.

    `goals` [F,h,w] is 1 at centres and falls off around them, where a miss is forgiven by the
    fourth power; `known` [F,h,w], 0..1, is how much of a cell is labelled. Source: Law and Deng,
    "CornerNet", 2018, equation 1 (alpha 2, beta 4).
    """
    p = logits.sigmoid()
    centers = goals == 1
    hit = -(1 - p).square() * logsigmoid(logits)
    miss = -known * ((1 - goals) ** 4) * p.square() * logsigmoid(-logits)
    errors = torch.where(centers, hit, miss).flatten(1).sum(1)
    return errors / centers.flatten(1).sum(1).clamp(min=1)


def track_loss(key: Tensor, reference: Tensor, same: Tensor, present: Tensor) -> Tensor:
    """Contrastive loss of B pairs: a key instance must be nearer to itself than to any other.

    Args:
        key: [B,Gk,E] embeddings of the key frames; reference: [B,Gr,E].
        same: [B,Gk,Gr] bool, the two are one instance (at most one per row).
        present: [B,Gk,Gr] bool, there are such instances: the rest is padding.

    Rows without a partner do not count; zero when none has one.
    """
    dots = key @ reference.transpose(1, 2)
    positive = (dots * same).sum(2, keepdim=True)
    differences = (dots - positive).masked_fill(same | ~present, -torch.inf)
    # log(1 + sum exp(d)) = logsumexp over the differences and a zero
    errors = torch.cat((differences, torch.zeros_like(positive)), 2).logsumexp(2)
    rows = same.any(2)
    return (errors * rows).sum(1) / rows.sum(1).clamp(min=1)


def track_aux_loss(
    key: Tensor,
    reference: Tensor,
    same: Tensor,
    present: Tensor,
    margin: float = 0.1,
    negatives_per_positive: int = 3,
) -> Tensor:
    """Squared error of the cosines against `same`, with margin and hard-negative mining.

    Arguments and result as in `track_loss`.
    """
    cosine = normalize(key, dim=2) @ normalize(reference, dim=2).transpose(1, 2)
    error = ((cosine - margin * (~same)).clamp(0, 1) - same.float()).square()
    positives, negatives = same.flatten(1).sum(1), (present & ~same).flatten(1)
    hardest = error.flatten(1).masked_fill(~negatives, -1).sort(1, descending=True).values
    number = negatives.sum(1)
    mined = negatives_per_positive * positives
    number = torch.where(number > mined + negatives_per_positive, mined, number)
    chosen = torch.arange(hardest.shape[1], device=error.device) < number[:, None]
    total = (error * same).flatten(1).sum(1) + (hardest * chosen).sum(1)
    return total / (positives + number).clamp(min=1)
