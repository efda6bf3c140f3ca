"""Task panoptic: from overlapping masks with class scores to one label map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..config import PanopticConfig
from .maps import (
    MergedMap,
    as_bytes,
    count,
    count_slots_last,
    enlarged_slots_last,
    padded,
    slot_areas,
)


def slot_classes(class_logits: Tensor, things: int, thing_classes: int) -> tuple[Tensor, Tensor]:
    """Scores and classes [N] of slots with logits [N,K]: thing rows by best thing column, stuff row
    j by its own column."""
    probabilities = class_logits.sigmoid()
    scores, classes = probabilities[:things, :thing_classes].max(1)
    stuff_scores = probabilities[things:, thing_classes:].diagonal()
    stuff = torch.arange(thing_classes, class_logits.shape[1], device=class_logits.device)
    return torch.cat((scores, stuff_scores)), torch.cat((classes, stuff))


def merge(
    class_logits: Tensor,
    mask_logits: Tensor,
    thing_classes: int,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> MergedMap:
    """One label map out of the kernels' masks, by the rule that `config.merge` names.

    Args:
        class_logits: [N,K]; mask_logits: [N,h,w]; things first in both.
        image_size: height and width of the image in the padded input that the masks cover.
    """
    stuff = class_logits.shape[1] - thing_classes
    things = class_logits.shape[0] - stuff
    scores, classes = slot_classes(class_logits, things, thing_classes)
    is_thing = torch.arange(len(scores), device=scores.device) < things
    if config.merge == "reference":
        every = class_logits[:things, :thing_classes].sigmoid().flatten()
        segment_map = _merge_like_authors(
            scores, every.topk(things).values[-1], mask_logits, is_thing, config, image_size
        )
    else:
        segment_map = _merge_fast(scores, mask_logits, is_thing, config, image_size)
    areas = slot_areas(segment_map - 1, len(scores))
    return MergedMap(as_bytes(segment_map), classes, scores, areas.to(torch.int64))


def _merge_fast(
    scores: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> Tensor:
    """Every pixel goes to the slot with the best score x mask probability: [h,w] int64.

    The authors' joint merge, made for a graph. What differs: it works at `upsample` times the mask
    size, not at the image's, and enlarges logits, not probabilities; a thing that is dropped (below
    the score threshold, or it won too little of its own mask) gives its pixels to the next best
    slot instead of leaving them unassigned; and stuff needs no share of its own mask, since a thin
    pole in front of a wall would often miss it.
    """
    masks = enlarged_slots_last(mask_logits, config.upsample, image_size)
    kept = ~is_thing | (scores >= config.score_threshold)
    weighted = masks.sigmoid() * (scores * kept)
    own = count_slots_last(masks > 0)
    won = slot_areas(weighted.argmax(2), len(scores))
    enough = won >= config.overlap_threshold * own
    kept = kept & (won > 0) & (enough | ~is_thing)
    best, winner = (weighted * kept).max(2)
    return torch.where(best > 0, winner + 1, 0)


def _merge_like_authors(
    scores: Tensor,
    least: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> Tensor:
    """`merge_stuff_thing_stuff_joint` of the authors' code: [H,W] int64 at the image's size.

    They let the best P pairs of thing kernel and class compete. A kernel's second class never wins
    a pixel from its first, so kernels whose best score is at least `least`, the P-th, are the same.
    A dropped segment leaves its pixels without any.
    """
    probabilities = _resize(mask_logits, [s * config.upsample for s in mask_logits.shape[-2:]])
    probabilities = _resize(probabilities.sigmoid(), padded(image_size))[
        :, : image_size[0], : image_size[1]
    ]
    competing = ~is_thing | (scores >= least)
    winner = (probabilities * (scores * competing)[:, None, None]).argmax(0)
    own = count(probabilities >= 0.5)
    won = slot_areas(winner, len(scores))
    kept = (won > 0) & (own > 0) & (won >= config.overlap_threshold * own)
    kept = kept & (~is_thing | (scores >= config.score_threshold))
    kept_here = kept.index_select(0, winner.flatten()).unflatten(0, image_size)
    return torch.where(kept_here, winner + 1, 0)


def authors_boxes(
    segment_map: Tensor, semantic_logits: Tensor, slots: int, thing_classes: int
) -> Tensor:
    """The boxes that the authors' tracker sees: xmin, ymin, xmax, ymax [slots,4], all inclusive.

    They are tight around the pixels of a segment that the semantic branch calls a thing too. Its
    logits [K,h,w] cover the padded input but are stretched to the image's size, as the authors do.
    A segment without such pixels has the box -1, -1, 10, 10.
    """
    semantic = _resize(semantic_logits, list(segment_map.shape)).argmax(0)
    seen = torch.where(semantic < thing_classes, segment_map.to(torch.int64), 0)
    masks = seen == torch.arange(1, slots + 1, device=seen.device)[:, None, None]
    (left, right), (top, bottom) = _extent(masks.any(1)), _extent(masks.any(2))
    boxes = torch.stack((left, top, right, bottom), 1)
    nothing = torch.tensor([-1, -1, 10, 10], device=boxes.device)
    return torch.where(masks.flatten(1).any(1)[:, None], boxes, nothing)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true place [N] of each row [N,L]."""
    flags = occupied.to(torch.uint8)
    return flags.argmax(1), flags.shape[1] - 1 - flags.flip(1).argmax(1)


def _resize(maps: Tensor, size: list[int]) -> Tensor:
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False).squeeze(0)
