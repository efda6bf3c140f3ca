"""From overlapping masks with class scores to one label map, also inside the exported graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .config import PanopticConfig


@dataclass(frozen=True)
class PanopticMap:
    """Segments of one image, N slots; h x w = the mask size times `PanopticConfig.upsample`."""

    segment_map: Tensor
    """[h,w] uint8; 0 = no segment, s + 1 = slot s."""
    logit_classes: Tensor
    """[N] int64 class of each slot, in logit order."""
    scores: Tensor
    """[N] class score 0..1."""
    areas: Tensor
    """[N] int64 pixels of each slot in the map; 0 = the slot holds no segment."""


def slot_classes(class_logits: Tensor, things: int, thing_classes: int) -> tuple[Tensor, Tensor]:
    """Scores and classes [N] of slots with logits [N,K]: thing rows by best thing column, stuff row
    j by its own column."""
    probabilities = class_logits.sigmoid()
    scores, classes = probabilities[:things, :thing_classes].max(1)
    stuff_scores = probabilities[things:, thing_classes:].diagonal()
    stuff = torch.arange(thing_classes, class_logits.shape[1], device=class_logits.device)
    return torch.cat((scores, stuff_scores)), torch.cat((classes, stuff))


def merge(
    class_logits: Tensor, mask_logits: Tensor, thing_classes: int, config: PanopticConfig
) -> PanopticMap:
    """Every pixel goes to the slot with the best score x mask probability.

    The authors' joint merge, made for a graph. What differs: it works at `upsample` times the mask
    size, not at the image's, and enlarges logits, not probabilities; a slot has its best class
    only; a thing that is dropped (below the score threshold, or it won too little of its own mask)
    gives its pixels to the next best slot instead of leaving them unassigned; and stuff needs no
    share of its own mask, since a thin pole in front of a wall would often miss it.

    Args:
        class_logits: [N,K]; mask_logits: [N,h,w]; things first in both.
    """
    stuff = class_logits.shape[1] - thing_classes
    things = class_logits.shape[0] - stuff
    scores, classes = slot_classes(class_logits, things, thing_classes)
    size = [s * config.upsample for s in mask_logits.shape[-2:]]
    masks = interpolate(mask_logits[None], size=size, mode="bilinear", align_corners=False)[0]
    is_thing = torch.arange(len(scores), device=scores.device) < things
    kept = ~is_thing | (scores > config.score_threshold)
    weighted = masks.sigmoid() * (scores * kept)[:, None, None]
    own = _count(masks > 0)
    won = _slot_areas(weighted.argmax(0), len(scores))
    enough = won >= config.overlap_threshold * own
    kept = kept & (won > 0) & (enough | ~is_thing)
    best, winner = (weighted * kept[:, None, None]).max(0)
    segment_map = torch.where(best > 0, winner + 1, 0)
    areas = _slot_areas(segment_map - 1, len(scores))
    return PanopticMap(segment_map.to(torch.uint8), classes, scores, areas.to(torch.int64))


def _slot_areas(winner: Tensor, slots: int) -> Tensor:
    """[N] pixels of each slot in a map [h,w] of slot numbers."""
    numbers = torch.arange(slots, device=winner.device)[:, None, None]
    return _count(winner[None] == numbers)


def _count(mask: Tensor) -> Tensor:
    """[N] float32 pixels of each mask [N,h,w]: exact up to 2^24, and much faster than integers."""
    return mask.to(torch.float32).flatten(1).sum(1)
