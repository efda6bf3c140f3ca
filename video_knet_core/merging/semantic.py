"""Task semantic: every pixel has the class of its largest logit."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import PanopticConfig
from .maps import MergedMap, as_bytes, enlarged_slots_last, slot_areas, slot_sums


def merge_classes(
    mask_logits: Tensor, config: PanopticConfig, image_size: tuple[int, int]
) -> MergedMap:
    """A map of classes, slot k = class k; no pixel is without one, and no threshold is used.

    The score of a class is the mean of its softmax probability over the pixels that it has, 0 if it
    has none.

    Args:
        mask_logits: [K,h,w] of all classes.
        config: only `upsample` counts.
        image_size: height and width of the image in the padded input that the logits cover.
    """
    logits = enlarged_slots_last(mask_logits, config.upsample, image_size)
    best, winner = logits.max(2)
    certain = 1 / (logits - best[..., None]).exp().sum(2)  # softmax of the winner
    classes = len(mask_logits)
    areas = slot_areas(winner, classes)
    return MergedMap(
        segment_map=as_bytes(winner + 1),
        logit_classes=torch.arange(classes, device=logits.device),
        scores=slot_sums(winner, certain, classes) / areas.clamp(min=1),
        areas=areas.to(torch.int64),
    )
