"""From the masks of kernels to the segments of a frame: one merge for each task.

The merges are a part of exported graphs, so all here is made of what TensorRT builds: no scatter,
NonZero, boolean indexing or `table[index]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pixel_shuffle

from ..config import STRIDE, ModelConfig, PanopticConfig
from ..tasks import INSTANCE, PANOPTIC, SEMANTIC
from .video_knet import Prediction


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
    height, width = _without_padding(maps.shape[:2], image_size)
    return maps[:height, :width]


def _without_padding(cells: Sequence[int], image_size: tuple[int, int]) -> list[int]:
    """Height and width of the image in a map of so many cells of its padded input."""
    return [
        round(size * number / whole)
        for size, number, whole in zip(image_size, cells, _padded(image_size), strict=True)
    ]


def _padded(image_size: tuple[int, int]) -> list[int]:
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


def best_slot(values: Tensor) -> tuple[Tensor, Tensor]:
    """[h,w,N] -> the largest value of each pixel and its slot, the first of equal ones: [h,w] each.

    As `max(2)`, slots as float32. On a CPU OpenVINO finds a maximum ten times as fast as its place,
    and the place is a maximum too: of the numbers of the slots that have the value.
    """
    slots = values.shape[2]
    from_last = torch.arange(slots, 0, -1, dtype=torch.float32, device=values.device)
    best = values.amax(2)
    return best, slots - ((values >= best[..., None]) * from_last).amax(2)


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


def _count(mask: Tensor) -> Tensor:
    """[N] float32 pixels of each mask [N,h,w]: exact up to 2^24, and much faster than integers."""
    return mask.to(torch.float32).flatten(1).sum(1)


def _count_slots_last(mask: Tensor) -> Tensor:
    """The same of masks [h,w,N], as a product: summing over the first axis is slow on a CPU."""
    cells = mask.to(torch.float32).flatten(0, 1)
    return (cells.new_ones(1, len(cells)) @ cells).squeeze(0)


def _as_bytes(values: Tensor) -> Tensor:
    """As uint8. TensorRT makes 8-bit outputs from floating point alone."""
    return values.to(torch.float32).to(torch.uint8)


def slot_classes(class_logits: Tensor, things: int, thing_classes: int) -> tuple[Tensor, Tensor]:
    """Scores and classes [N] of slots with logits [N,K]: thing rows by best thing column, stuff row
    j by its own column."""
    probabilities = class_logits.sigmoid()
    scores, classes = probabilities[:things, :thing_classes].max(1)
    stuff_scores = probabilities[things:, thing_classes:].diagonal()
    stuff = torch.arange(thing_classes, class_logits.shape[1], device=class_logits.device)
    return torch.cat((scores, stuff_scores)), torch.cat((classes, stuff))


def merge_panoptic(
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
    return MergedMap(_as_bytes(segment_map), classes, scores, areas.to(torch.int64))


def _merge_fast(
    scores: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> Tensor:
    """Every pixel goes to the slot with the best score x mask probability: [h,w] int64.

    The authors' joint merge, made for a graph. What differs: it works at the mask size, with edges
    that are drawn `upsample` times finer, not at the image's, and enlarges logits, not
    probabilities; a thing that is dropped (below the score threshold, or it won too little of its
    own mask) gives its pixels to the next best slot instead of leaving them unassigned; and stuff
    needs no part of its own mask, since a thin pole in front of a wall would often miss it.
    """
    masks = enlarge_slots_last(mask_logits, 1)
    finer = _without_padding([config.upsample * cells for cells in masks.shape[:2]], image_size)
    height, width = (-(-size // config.upsample) for size in finer)  # the cells that are shown
    kept = ~is_thing | (scores >= config.score_threshold)
    weighted = masks.sigmoid() * (scores * kept)
    own = _count_slots_last(masks[:height, :width] > 0)
    won = slot_areas(best_slot(weighted[:height, :width])[1], len(scores))
    enough = won >= config.overlap_threshold * own
    kept = kept & (won > 0) & (enough | ~is_thing)
    best, winner = best_slot(weighted * kept)
    if config.upsample > 1:
        best, winner = _finer_edges(masks, scores * kept, winner, config.upsample)
    return torch.where(best > 0, winner + 1, 0)[: finer[0], : finer[1]]


def _finer_edges(
    logits: Tensor, weights: Tensor, winner: Tensor, factor: int
) -> tuple[Tensor, Tensor]:
    """The best slot of each pixel of a map `factor` times as fine, of those that win around it.

    Logits are enlarged bilinearly, so a pixel lies between four cells. One of their winners nearly
    always wins it too: four candidates in place of all slots, whose logits one convolution
    enlarges.

    Args:
        logits: [h,w,N]; weights: [N], what the probability of a slot is multiplied by.
        winner: [h,w] the best slot of each cell.

    Returns:
        As `best_slot`, [h * factor, w * factor] each.
    """
    height, width = winner.shape
    slots_at = winner.clamp(max=len(weights) - 1)  # of logits that are not numbers none is the best
    around = _with_border(_with_border(slots_at))
    importance = weights.index_select(0, around.flatten().to(torch.int64)).view(around.shape)
    # [h+2,w+2,9]: the logit that a cell has for the winner of each cell around it
    there = torch.stack([_shifted(around, y, x, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    cells = torch.arange(height * width, device=winner.device).view(height, width)
    place = _with_border(cells) * logits.shape[2] + there.to(torch.int64)
    shared = logits.flatten().index_select(0, place.flatten()).view(1, *place.shape)
    shared = shared.clamp(-_LARGEST, _LARGEST)  # nothing times infinity is no number
    kernel = torch.tensor(_edge_kernel(factor), dtype=logits.dtype, device=logits.device)
    finer = conv2d(shared, kernel).sigmoid()[0].unflatten(0, (4, -1))
    sides = _sides(factor)
    near = [4 + 3 * y * down + x * right for down, right in _CORNERS for y in sides for x in sides]
    chosen = torch.tensor(near, device=winner.device)
    values, slots = (
        torch.stack([_shifted(maps, y, x, 2) for y in (-1, 0, 1) for x in (-1, 0, 1)])
        .index_select(0, chosen)
        .unflatten(0, (4, -1))
        for maps in (importance, around)
    )
    best, winners = finer[0] * values[0], slots[0]
    for candidate, value, slot in zip(finer[1:].unbind(), values[1:], slots[1:], strict=True):
        better = candidate * value > best
        best = torch.maximum(best, candidate * value)
        winners = torch.where(better, slot, winners)
    return pixel_shuffle(best, factor)[0], pixel_shuffle(winners, factor)[0]


def _shifted(maps: Tensor, y: int, x: int, border: int) -> Tensor:
    """Of maps with a border, those that lie `y` cells below and `x` beside, with less of it."""
    height, width = (size - 2 * border for size in maps.shape)
    return maps[border + y : border + y + height, border + x : border + x + width]


_LARGEST = 1e4
"""Of a logit, more than which makes no difference."""
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Cells around a pixel: its own, and the nearest in each direction."""


def _sides(factor: int) -> list[int]:
    """By place in a cell, whether the nearest other one comes before (-1) or after it (1)."""
    return [1 if 2 * i + 1 >= factor else -1 for i in range(factor)]


@cache
def _edge_kernel(factor: int) -> list:
    """[4 * factor^2,9,3,3], as lists: bilinear enlargement at all places in a cell, of the logits
    for the winners of the four cells around the place."""
    kernel = np.zeros((4, factor, factor, 3, 3, 3, 3))
    parts = [abs((2 * i + 1) / (2 * factor) - 0.5) for i in range(factor)]
    for (n, (down, right)), (row, y), (column, x) in product(
        enumerate(_CORNERS), enumerate(_sides(factor)), enumerate(_sides(factor))
    ):
        for below, beside in _CORNERS:
            weight = (parts[row] if below else 1 - parts[row]) * (
                parts[column] if beside else 1 - parts[column]
            )
            at = (1 + y * (down - below), 1 + x * (right - beside), 1 + y * below, 1 + x * beside)
            kernel[n, row, column][at] += weight
    return kernel.reshape(4 * factor**2, 9, 3, 3).tolist()


def _with_border(maps: Tensor) -> Tensor:
    """[h,w,...] with the cells of its edge repeated: [h+2,w+2,...]."""
    maps = torch.cat((maps[:1], maps, maps[-1:]))
    return torch.cat((maps[:, :1], maps, maps[:, -1:]), 1)


def _merge_like_authors(
    scores: Tensor,
    limit: Tensor,
    mask_logits: Tensor,
    is_thing: Tensor,
    config: PanopticConfig,
    image_size: tuple[int, int],
) -> Tensor:
    """`merge_stuff_thing_stuff_joint` of the authors' code: [H,W] int64 at the image's size.

    They let the best P pairs of thing kernel and class compete. A kernel's second class never wins
    a pixel from its first, so kernels whose best score is at least `limit`, the P-th, are the same.
    A dropped segment leaves its pixels without any.
    """
    probabilities = _resize(mask_logits, [s * config.upsample for s in mask_logits.shape[-2:]])
    probabilities = _resize(probabilities.sigmoid(), _padded(image_size))[
        :, : image_size[0], : image_size[1]
    ]
    competing = ~is_thing | (scores >= limit)
    winner = (probabilities * (scores * competing)[:, None, None]).argmax(0)
    own = _count(probabilities >= 0.5)
    won = slot_areas(winner, len(scores))
    kept = (won > 0) & (own > 0) & (won >= config.overlap_threshold * own)
    kept = kept & (~is_thing | (scores >= config.score_threshold))
    kept_here = kept.index_select(0, winner.flatten()).unflatten(0, image_size)
    return torch.where(kept_here, winner + 1, 0)


def authors_boxes(
    segment_map: Tensor, semantic_logits: Tensor, slots: int, thing_classes: int
) -> Tensor:
    """The boxes that the authors' tracker gets: xmin, ymin, xmax, ymax [slots,4], all inclusive.

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
    best, winner = best_slot(torch.where(masks, logits.sigmoid() * scores, 0))
    return MergedMap(
        segment_map=_as_bytes(torch.where(best > 0, winner + 1, 0)),
        logit_classes=classes,
        scores=scores,
        areas=_count_slots_last(masks).to(torch.int64),
        masks=_as_bytes(masks.permute(2, 0, 1)),
    )


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
    winner, scores, areas = class_winners(mask_logits, config.upsample, image_size)
    return MergedMap(
        segment_map=_as_bytes(winner + 1),
        logit_classes=torch.arange(len(mask_logits), device=winner.device),
        scores=scores,
        areas=areas.to(torch.int64),
    )


def class_winners(
    logits: Tensor, factor: int, image_size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The class of each pixel [h,w], and score and area [K] of each class, of logits [K,h,w] that
    are made `factor` times finer; see `merge_classes`."""
    finer = enlarged_slots_last(logits, factor, image_size)
    best, winner = best_slot(finer)
    certain = 1 / (finer - best[..., None]).exp().sum(2)  # softmax of the winner
    areas = slot_areas(winner, len(logits))
    return winner, slot_sums(winner, certain, len(logits)) / areas.clamp(min=1), areas


def _panoptic(prediction: Prediction, config: ModelConfig, size: tuple[int, int]) -> MergedMap:
    classes, things = prediction.class_logits.squeeze(0), len(config.classes.things)
    return merge_panoptic(classes, _masks(prediction), things, config.panoptic, size)


def _semantic(prediction: Prediction, config: ModelConfig, size: tuple[int, int]) -> MergedMap:
    return merge_classes(_masks(prediction), config.panoptic, size)


def _instance(prediction: Prediction, config: ModelConfig, size: tuple[int, int]) -> MergedMap:
    classes = prediction.class_logits.squeeze(0)
    return merge_instances(classes, _masks(prediction), config.panoptic, size)


def _masks(prediction: Prediction) -> Tensor:
    """[N,h,w] logits of a batch of one, as float32 also where maps are in half precision."""
    # squeezing is free, an index would copy in the exported graph
    return prediction.mask_logits.squeeze(0).to(prediction.kernels.dtype)


MERGES: dict[str, Callable[[Prediction, ModelConfig, tuple[int, int]], MergedMap]] = {
    PANOPTIC.name: _panoptic,
    SEMANTIC.name: _semantic,
    INSTANCE.name: _instance,
}
"""By task: the prediction of a batch of one, and height and width of the image in its input."""
