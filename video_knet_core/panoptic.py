"""From overlapping masks with class scores to one label map, also inside the exported graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .config import STRIDE, PanopticConfig


@dataclass(frozen=True)
class PanopticMap:
    """Segments of one image, N slots.

    h x w is the mask size times `PanopticConfig.upsample`, or, by the reference merge, the image's.
    """

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
    class_logits: Tensor,
    mask_logits: Tensor,
    thing_classes: int,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> PanopticMap:
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
    areas = _slot_areas(segment_map - 1, len(scores))
    # TensorRT makes 8-bit outputs from floating point alone
    pixels = segment_map.to(torch.float32).to(torch.uint8)
    return PanopticMap(pixels, classes, scores, areas.to(torch.int64))


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
    masks = _enlarge_slots_last(mask_logits, config.upsample)
    height, width = (
        round(size * cells / padded)
        for size, cells, padded in zip(
            image_size, masks.shape[:2], _padded(image_size), strict=True
        )
    )
    masks = masks[:height, :width]
    kept = ~is_thing | (scores >= config.score_threshold)
    weighted = masks.sigmoid() * (scores * kept)
    own = _count_slots_last(masks > 0)
    won = _slot_areas(weighted.argmax(2), len(scores))
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
    probabilities = _resize(probabilities.sigmoid(), _padded(image_size))[
        :, : image_size[0], : image_size[1]
    ]
    competing = ~is_thing | (scores >= least)
    winner = (probabilities * (scores * competing)[:, None, None]).argmax(0)
    own = _count(probabilities >= 0.5)
    won = _slot_areas(winner, len(scores))
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


def _padded(image_size: tuple[int, int]) -> list[int]:
    """Height and width of the network's input for an image."""
    return [-(-size // STRIDE) * STRIDE for size in image_size]


def _resize(maps: Tensor, size: list[int]) -> Tensor:
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False).squeeze(0)


def _enlarge_slots_last(maps: Tensor, factor: int) -> Tensor:
    """[N,h,w] -> [h * factor, w * factor, N].

    On a CPU the best slot of a pixel is found several times as fast where its slots lie side by
    side, and a map with many channels grows faster too. The slots move before the map grows, as a
    matrix, so that no graph optimiser moves them back.
    """
    height, width = (size * factor for size in maps.shape[1:])
    last = maps.flatten(1).T.reshape(1, *maps.shape[1:], len(maps))
    large = interpolate(
        last.permute(0, 3, 1, 2), size=(height, width), mode="bilinear", align_corners=False
    )
    return large.permute(0, 2, 3, 1).squeeze(0)


def _slot_areas(winner: Tensor, slots: int) -> Tensor:
    """[N] pixels of each slot in a map [h,w] of slot numbers; -1 is no slot.

    A number is two digits. Comparing each digit with all its values and counting the pairs is much
    less than comparing every pixel with every slot.
    """
    base = 1 << math.ceil(math.log2(slots) / 2)  # a power of two: no division is rounded
    number = winner.flatten().to(torch.float32)
    high = (number / base).floor()
    digits = torch.arange(base, device=winner.device)[:, None]
    is_high, is_low = (
        (digit == digits).to(torch.float32) for digit in (high, number - base * high)
    )
    return (is_high @ is_low.T).flatten()[:slots]


def _count(mask: Tensor) -> Tensor:
    """[N] float32 pixels of each mask [N,h,w]: exact up to 2^24, and much faster than integers."""
    return mask.to(torch.float32).flatten(1).sum(1)


def _count_slots_last(mask: Tensor) -> Tensor:
    """The same of masks [h,w,N], as a product: summing over the first axis is slow on a CPU."""
    cells = mask.to(torch.float32).flatten(0, 1)
    return (cells.new_ones(1, len(cells)) @ cells).squeeze(0)
