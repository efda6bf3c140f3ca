"""What the merges of all tasks have in common: their result, and maps of many slots."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..config import STRIDE


@dataclass(frozen=True)
class MergedMap:
    """Segments of one image, N slots.

    h x w is the mask size times `PanopticConfig.upsample`, without the padding; by the reference
    merge it is the image's.
    """

    segment_map: Tensor
    """[h,w] uint8; 0 = no segment, s + 1 = slot s."""
    logit_classes: Tensor
    """[N] int64 class of each slot, in logit order."""
    scores: Tensor
    """[N] class score 0..1."""
    areas: Tensor
    """[N] int64 pixels of each slot in the map, or in `masks` if there are any; 0 = the slot holds
    no segment."""
    masks: Tensor | None = None
    """[N,h,w] uint8 of 0 and 1, in task instance: masks may overlap. Those of slots without a
    segment are empty."""


def enlarged_slots_last(mask_logits: Tensor, factor: int, image_size: tuple[int, int]) -> Tensor:
    """[N,h,w] of a padded input -> [H,W,N], `factor` times finer and of the image alone."""
    maps = enlarge_slots_last(mask_logits, factor)
    height, width = (
        round(size * cells / whole)
        for size, cells, whole in zip(image_size, maps.shape[:2], padded(image_size), strict=True)
    )
    return maps[:height, :width]


def padded(image_size: tuple[int, int]) -> list[int]:
    """Height and width of the network's input for an image."""
    return [-(-size // STRIDE) * STRIDE for size in image_size]


def enlarge_slots_last(maps: Tensor, factor: int) -> Tensor:
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


def slot_areas(winner: Tensor, slots: int) -> Tensor:
    """[N] float32 pixels of each slot in a map [h,w] of slot numbers; -1 is no slot."""
    is_high, is_low = _digits(winner, slots)
    return (is_high @ is_low.T).flatten()[:slots]


def slot_sums(winner: Tensor, values: Tensor, slots: int) -> Tensor:
    """[N] sum of `values` [h,w] over the pixels of each slot in a map of slot numbers."""
    is_high, is_low = _digits(winner, slots)
    return ((is_high * values.flatten()) @ is_low.T).flatten()[:slots]


def _digits(winner: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Which high and which low digit the slot number of each pixel has: [base,hw] float32 both.

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
    return is_high, is_low


def count(mask: Tensor) -> Tensor:
    """[N] float32 pixels of each mask [N,h,w]: exact up to 2^24, and much faster than integers."""
    return mask.to(torch.float32).flatten(1).sum(1)


def count_slots_last(mask: Tensor) -> Tensor:
    """The same of masks [h,w,N], as a product: summing over the first axis is slow on a CPU."""
    cells = mask.to(torch.float32).flatten(0, 1)
    return (cells.new_ones(1, len(cells)) @ cells).squeeze(0)


def as_bytes(values: Tensor) -> Tensor:
    """As uint8. TensorRT makes 8-bit outputs from floating point alone."""
    return values.to(torch.float32).to(torch.uint8)
