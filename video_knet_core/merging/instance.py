"""Task instance: masks that may overlap, and which of them is in front."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import PanopticConfig
from .maps import MergedMap, as_bytes, count_slots_last, enlarged_slots_last


def merge_instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> MergedMap:
    """Whole masks (logit > 0) of the slots whose class score is at least `score_threshold`.

    In the map a pixel shows the slot with the best score x mask probability of those whose mask
    covers it. Pixels of no mask are background, 0.

    Args:
        class_logits: [N,K].
        mask_logits: [N,h,w].
        config: `upsample` and `score_threshold` count.
        image_size: height and width of the image in the padded input that the masks cover.
    """
    scores, classes = class_logits.sigmoid().max(1)
    kept = scores >= config.score_threshold
    logits = enlarged_slots_last(mask_logits, config.upsample, image_size)
    masks = (logits > 0) & kept
    best, winner = torch.where(masks, logits.sigmoid() * scores, 0).max(2)
    return MergedMap(
        segment_map=as_bytes(torch.where(best > 0, winner + 1, 0)),
        logit_classes=classes,
        scores=scores,
        areas=count_slots_last(masks).to(torch.int64),
        masks=as_bytes(masks.permute(2, 0, 1)),
    )
