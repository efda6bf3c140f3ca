"""Instances as centres and offsets: what a network learns of them, and the segments they make.

Cheng et al., "Panoptic-DeepLab", CVPR 2020, sections 3.2 and 3.3. Each thing pixel belongs to the
centre that is nearest to where its offset points; its semantics decide the class by majority vote.
Lengths are in cells of stride 4, places are row and column of a cell.

The authors' constants are in pixels of images of 375 to 1025 rows (KITTI-STEP, Cityscapes). Images
of fewer rows than `FULL_HEIGHT` have them in proportion.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, max_pool2d, pad

from video_knet_core.model.merge import best_slot
from video_knet_core.training.targets import ANY_STUFF, IGNORE, FrameTargets

from .baseline import Segments
from .baseline_config import MAP_STRIDE

FULL_HEIGHT = 384
"""Rows of an image from which on the constants are the published ones."""
SIGMA = 8.0
"""Width of the heat around a centre [pixels]; one cell at least."""
SMALL_AREA, SMALL_WEIGHT = 64**2, 3.0
"""Instances below this area [pixels] weigh so much in the semantic loss."""
HARD_PIXELS = 0.2
"""Part of the pixels of a frame, those with the largest errors, that the semantic loss is the mean
of. As in deeplab2; the paper that introduced it (DeeperLab) has 0.15."""
CENTER_WEIGHT = 200.0
"""Of the squared error of the heat."""
OFFSET_WEIGHT = 0.01
"""Of the absolute error of offsets, x and y added up [1/pixel]."""
PEAK_CELLS = 3
"""A centre is the largest value in a square of so many cells: 12 pixels. The paper has 7 pixels,
deeplab2 13."""
MIN_CONFIDENCE = 0.1
"""Minimum heat of a centre."""
_FAR = 1e9
"""Squared distance of a centre that is none."""


class Maps(NamedTuple):
    """What the heads predict for F frames."""

    semantic: Tensor
    """[F,K,h,w] logits, things first."""
    heat: Tensor
    """[F,h,w] 1 at centres."""
    offsets: Tensor
    """[F,2,h,w] rows and columns to the centre of the cell's instance."""


# --- training


def scale_of(rows: int) -> float:
    """Factor of lengths on a map of so many rows, 0..1; see the module."""
    return min(rows * MAP_STRIDE / FULL_HEIGHT, 1.0)


def render_heat(centers: Tensor, present: Tensor, height: int, width: int) -> Tensor:
    """[...,height,width] a Gaussian around each centre, the largest value of all.

    Args:
        centers: [...,N,2] cells; N may be 0.
        present: [...,N] 0..1, the height of the Gaussian: 0 for padding.
    """
    sigma = max(SIGMA / MAP_STRIDE * scale_of(height), 1.0)
    row, column = centers[..., None, None].unbind(-3)
    dy = torch.arange(height, device=centers.device)[:, None] - row
    dx = torch.arange(width, device=centers.device) - column
    down, across = ((-(d * d) / (2 * sigma**2)).exp() for d in (dy, dx))
    around = down * present.to(down.dtype)[..., None, None] * across
    return pad(around, (0, 0, 0, 0, 0, 1)).amax(-3)


def center_cells(targets: FrameTargets) -> Tensor:
    """[F,G,2] the cell at the middle of each instance's visible part."""
    height, width = targets.valid.shape[-2:]
    y, x = targets.centers
    return torch.stack(((y * height).floor(), (x * width).floor()), -1)


def with_identity(targets: FrameTargets) -> Tensor:
    """[F,G] bool: neither padding nor things without identity."""
    return targets.ids > 0


def panoptic_losses(maps: Maps, targets: FrameTargets) -> dict[str, Tensor]:
    """The weighted losses by name, each one number."""
    centers = center_cells(targets)
    return {
        "semantic": semantic_loss(maps.semantic.float(), targets),
        "center": CENTER_WEIGHT * heat_loss(maps.heat.float(), centers, targets),
        "offset": offset_loss(maps.offsets.float(), centers, with_identity(targets), targets),
    }


def semantic_loss(logits: Tensor, targets: FrameTargets) -> Tensor:
    """Cross-entropy of the hardest pixels of each frame, small instances weighted."""
    goals = targets.semantic
    errors = cross_entropy(logits, goals.clamp(min=IGNORE), ignore_index=IGNORE, reduction="none")
    if targets.stuff:
        either = logits.logsumexp(1) - logits[:, -targets.stuff :].logsumexp(1)
        errors = torch.where(goals == ANY_STUFF, either, errors)
    area = SMALL_AREA * scale_of(logits.shape[-2]) ** 2 / MAP_STRIDE**2
    small = targets.masks.sum((-2, -1)) < area
    weights = 1 + (SMALL_WEIGHT - 1) * _at_cells(small[..., None].float(), targets)[..., 0]
    errors = (errors * weights).flatten(1)
    return errors.topk(max(1, int(HARD_PIXELS * errors.shape[1])), 1, sorted=False).values.mean()


def heat_loss(heat: Tensor, centers: Tensor, targets: FrameTargets) -> Tensor:
    """Mean squared error over all cells whose owner is known and no thing without identity."""
    goals = render_heat(centers, with_identity(targets), *heat.shape[-2:])
    anonymous = (~with_identity(targets))[..., None].float()
    known = (targets.owners != IGNORE) & (_at_cells(anonymous, targets)[..., 0] == 0)
    return ((heat - goals).square() * known).sum() / known.sum().clamp(min=1)


def offset_loss(offsets: Tensor, centers: Tensor, counts: Tensor, targets: FrameTargets) -> Tensor:
    """Weighted absolute error of offsets [F,2,h,w], mean over the cells of instances.

    Args:
        centers: [F,G,2] where the offsets of each instance's cells shall point.
        counts: [F,G] bool, whether an instance takes part.
    """
    height, width = offsets.shape[-2:]
    parts = torch.cat((centers, counts[..., None].to(centers.dtype)), -1)
    goals = _at_cells(parts, targets)
    errors = (offsets.movedim(1, -1) + cells(height, width, offsets) - goals[..., :2]).abs().sum(-1)
    weights = goals[..., 2]
    mean = (errors * weights).sum() / weights.sum().clamp(min=1)
    return OFFSET_WEIGHT * MAP_STRIDE / scale_of(height) * mean


def _at_cells(values: Tensor, targets: FrameTargets) -> Tensor:
    """[F,h,w,V] of values [F,G,V] of instances, that of each cell's owner; 0 where it has none."""
    count = values.shape[1]
    instance = targets.owners - targets.stuff
    row = torch.where(instance >= 0, instance, count).flatten(1)[..., None]
    at = pad(values, (0, 0, 0, 1)).gather(1, row.expand(-1, -1, values.shape[2]))
    return at.unflatten(1, instance.shape[1:])


def cells(height: int, width: int, like: Tensor, finer: int = 1) -> Tensor:
    """[height,width,2] row and column of each pixel of a map `finer` times as fine, in cells."""
    rows, columns = (
        (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) / finer - 0.5
        for size in (height, width)
    )
    return torch.stack(torch.broadcast_tensors(rows[:, None], columns), -1)


# --- inference


class Grouping(NamedTuple):
    """The segments of one frame by their I centres."""

    segments: Segments
    """Their embeddings are x and y of the centres, as fractions 0..1 of width and height."""
    middles: Tensor
    """[I,2] the mean place of the pixels of each segment, its centre if it has none."""
    present: Tensor
    """[I] bool, the segment has pixels."""


def segments_of(
    maps: Maps, things: int, instances: int, upsample: int, score_threshold: float
) -> Grouping:
    """Centres, the pixels of each, their classes, and all of it as one map.

    Thing pixels have no segment where no centre is found, or where theirs makes a segment below
    `score_threshold`.

    Args:
        maps: of one frame; the label map is `upsample` times finer.
        things: number of thing classes, the first of the semantic logits.
        instances: maximum number of centres.
    """
    height, width = maps.heat.shape[-2:]
    centers, confidence = find_centers(maps.heat[0].float(), instances)
    semantic, offsets = (_enlarged(m[0].float(), upsample) for m in (maps.semantic, maps.offsets))
    places = cells(height * upsample, width * upsample, semantic, upsample)
    nearest = nearest_center(places + offsets.permute(1, 2, 0), centers, confidence)
    probabilities = semantic.softmax(0)
    votes = vote(probabilities, nearest, places, things, instances)
    scores = confidence.clamp(0, 1) * votes.probability
    present = (votes.areas > 0) & (confidence >= MIN_CONFIDENCE) & (scores >= score_threshold)
    shown = present.index_select(0, nearest.flatten()).view(nearest.shape)
    label = torch.where(shown, nearest + 1, 0)
    label = torch.where(votes.winner < things, label, votes.winner + (1 + instances - things))
    segments = Segments(
        segment_map=label,
        thing_classes=votes.classes,
        thing_scores=scores,
        stuff_scores=votes.stuff_scores,
        embeddings=fractions(centers, height, width),
    )
    middles = torch.where(present[:, None], votes.middles, centers)
    return Grouping(segments, middles, present)


def find_centers(heat: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[count,2] cells with the largest heat of those around them, and their heat [count].

    Where there are fewer maxima, the rest have heat 0.
    """
    around = max_pool2d(heat[None], PEAK_CELLS, 1, PEAK_CELLS // 2)[0]
    peaks = torch.where(heat >= around, heat, 0).clamp(min=0)
    confidence, at = peaks.flatten().topk(count)
    at = at.to(heat.dtype)
    row = ((at + 0.5) / heat.shape[1]).floor()
    return torch.stack((row, at - row * heat.shape[1]), 1), confidence


def nearest_center(points: Tensor, centers: Tensor, confidence: Tensor) -> Tensor:
    """[h,w] int64 the centre of those above `MIN_CONFIDENCE` that is nearest to each point.

    Args:
        points: [h,w,2] where the offset of each pixel points.
        centers: [I,2]; confidence: [I].
    """
    weak = _FAR * (confidence < MIN_CONFIDENCE).to(points.dtype)
    dy, dx = (points[..., axis, None] - centers[:, axis] for axis in (0, 1))
    return best_slot(-(dy * dy + dx * dx + weak))[1].to(torch.int64)


class Votes(NamedTuple):
    """What the pixels of each of I centres vote for, and those of each of S stuff classes."""

    winner: Tensor
    """[h,w] int64 the class of each pixel."""
    areas: Tensor
    """[I] thing pixels."""
    classes: Tensor
    """[I] int64 the thing class of most of them."""
    probability: Tensor
    """[I] mean probability of that class over them, 0 if there are none."""
    middles: Tensor
    """[I,2] mean place of them."""
    stuff_scores: Tensor
    """[S] mean probability of each stuff class over its pixels, 0 if it has none."""


def vote(
    probabilities: Tensor, nearest: Tensor, places: Tensor, things: int, instances: int
) -> Votes:
    """The majority vote over the thing pixels of each centre.

    Args:
        probabilities: [K,h,w], things first.
        nearest: [h,w] the centre of each pixel.
        places: [h,w,2] row and column of each pixel.
    """
    classes = probabilities.shape[0]
    winner = best_slot(probabilities.permute(1, 2, 0))[1].to(torch.int64)
    owner = torch.where(winner < things, nearest, winner + (instances - things))
    slots = torch.arange(instances + classes - things, device=owner.device)
    members = (owner.flatten() == slots[:, None]).to(probabilities.dtype)
    of_class = winner[..., None] == torch.arange(things, device=owner.device)
    sure = probabilities.amax(0)[..., None]
    likely = probabilities[:things].permute(1, 2, 0)
    columns = torch.cat((torch.ones_like(sure), sure, places, of_class.to(sure.dtype), likely), 2)
    sums = members @ columns.flatten(0, 1)  # one product for all sums over the pixels of a slot
    areas = sums[:, 0]
    means = sums / areas.clamp(min=1)[:, None]
    counts, likely = means[:instances, 4 : 4 + things], means[:instances, 4 + things :]
    voted = counts.argmax(1)
    return Votes(
        winner=winner,
        areas=areas[:instances],
        classes=voted,
        probability=likely.gather(1, voted[:, None])[:, 0],
        middles=means[:instances, 2:4],
        stuff_scores=means[instances:, 1],
    )


def fractions(places: Tensor, height: int, width: int) -> Tensor:
    """[I,2] x and y as fractions of width and height, of rows and columns [I,2] in cells."""
    return torch.stack(((places[:, 1] + 0.5) / width, (places[:, 0] + 0.5) / height), 1)


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    """[C,h,w] -> [C,h * factor,w * factor], bilinear."""
    if factor == 1:
        return maps
    size = [factor * cells for cells in maps.shape[1:]]
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False).squeeze(0)
