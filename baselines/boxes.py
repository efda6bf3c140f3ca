"""Boxes of a detector: anchors, their coding, non-maximum suppression and RoIAlign.

Boxes are x1, y1, x2, y2 in pixels of the image, continuous: the upper left pixel covers 0..1. All
shapes are static and all operations are of the kinds that every engine has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import relu

Size = tuple[int, int]
"""Height and width."""
Weights = tuple[float, float, float, float]
"""What the codes of x, y, width and height are multiplied by."""
MAX_LOG_SCALE = math.log(1000 / 16)
"""Of decoded boxes, as in Detectron: no code can make a box infinite."""
NMS_ROUNDS = 16
"""See `nms`."""
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 2
"""Side in pixels of a box that is read from the level of stride 16 (Lin et al., "Feature Pyramid
Networks", 2017, equation 1)."""


def anchor_boxes(grid: Size, stride: int, side: float, ratios: Sequence[float]) -> Tensor:
    """[h*w*R,4] anchors of area `side`^2 at the centres of the cells of a grid.

    Ratios are height / width; those of a cell lie side by side.
    """
    height, width = grid
    y, x = ((torch.arange(n) + 0.5) * stride for n in (height, width))
    sides = torch.tensor([[side / r**0.5, side * r**0.5] for r in ratios])
    centers = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)
    half = sides / 2
    boxes = torch.cat((centers[:, :, None] - half, centers[:, :, None] + half), -1)
    return boxes.reshape(-1, 4)


def _centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    return (boxes[..., :2] + boxes[..., 2:]) / 2, size


def encode(boxes: Tensor, references: Tensor, weights: Weights = (1, 1, 1, 1)) -> Tensor:
    """[...,4] codes of boxes by their reference boxes [...,4] (Girshick, "Fast R-CNN", 2015).

    They are the distance of the centres in sizes of the reference, and the logarithm of the ratio
    of sizes.
    """
    (center, size), (start, scale) = map(_centers_and_sizes, (boxes, references))
    codes = torch.cat(((center - start) / scale, (size / scale).log()), -1)
    return codes * codes.new_tensor(weights)


def decode(codes: Tensor, references: Tensor, weights: Weights = (1, 1, 1, 1)) -> Tensor:
    """The inverse of `encode`."""
    codes = codes / codes.new_tensor(weights)
    start, scale = _centers_and_sizes(references)
    center = start + codes[..., :2] * scale
    half = codes[..., 2:].clamp(max=MAX_LOG_SCALE).exp() * scale / 2
    return torch.cat((center - half, center + half), -1)


def clip(boxes: Tensor, image: Size) -> Tensor:
    """Boxes [...,4] cut to the image."""
    height, width = image
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(relu(boxes), limits)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """[...,N,M] intersection over union of boxes [...,N,4] with boxes [...,M,4]."""
    upper = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    lower = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    sides = relu(lower - upper)
    shared = sides[..., 0] * sides[..., 1]
    areas = [(x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)]
    return shared / (areas[0][..., :, None] + areas[1][..., None, :] - shared).clamp(min=1e-6)


def suppress(redundant: Tensor, rounds: int = NMS_ROUNDS) -> Tensor:
    """[...,N] 0 or 1: what is left of N items in descending order of their scores.

    An item is kept if it is redundant to none of the kept ones before it. All items are kept at
    first; each round applies that rule to all at once. Item n is right after n rounds at the
    latest, and as soon as the chain "kept, so dropped, so kept, ..." that ends with it is not
    longer than the rounds. Chains of boxes are a few long; see the tests.

    Args:
        redundant: [...,N,N], [i,j] = item i is to be dropped if item j is kept.
    """
    before = redundant.to(torch.float32).tril(-1)
    keep = torch.ones_like(before[..., :1])
    for _ in range(rounds):
        keep = (before @ keep < 0.5).to(torch.float32)
    return keep.squeeze(-1)


def nms(boxes: Tensor, threshold: float, rounds: int = NMS_ROUNDS) -> Tensor:
    """[...,N] 0 or 1, greedy non-maximum suppression of boxes [...,N,4] of descending scores.

    A box is dropped if its intersection over union with a kept one is above the threshold.
    """
    return suppress(overlaps(boxes, boxes) > threshold, rounds)


def roi_align(
    pyramid: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    frames: Tensor,
    size: int,
    samples: int = 1,
) -> Tensor:
    """RoIAlign (He et al., "Mask R-CNN", 2017), each box from the level that suits its size.

    Args:
        pyramid: [F,C,h,w] a level for each of the `strides`.
        boxes: [R,4]; frames: [R] int64, whose they are.
        size: of the result; each of its cells is the mean of `samples`^2 bilinear samples.

    Returns:
        [R,C,size,size]
    """
    channels, number = pyramid[0].shape[1], size * samples
    table = torch.cat([x.flatten(2).transpose(1, 2) for x in pyramid], 1)  # [F,L,C]
    geometry, start = [], 0
    for level, stride in zip(pyramid, strides, strict=True):
        height, width = level.shape[-2:]
        geometry.append([start, height, width, stride])
        start += height * width
    levels = box_levels(boxes, len(strides))
    facts = torch.tensor(geometry, device=boxes.device).index_select(0, levels)
    first, (height, width, stride) = facts[:, :1], facts[:, 1:].T[..., None].to(boxes.dtype)
    steps = (torch.arange(number, device=boxes.device) + 0.5) / number
    x, y = (
        (boxes[:, i, None] + steps * (boxes[:, i + 2] - boxes[:, i])[:, None]) / stride - 0.5
        for i in (0, 1)
    )
    columns, column_weights = _neighbours(x, width)
    rows, row_weights = _neighbours(y, height)
    rows, columns = (at.flatten(1).to(torch.int64) for at in (rows, columns))
    starts = first + frames[:, None] * start + rows * facts[:, 2:3]
    cells = starts[:, :, None] + columns[:, None]
    values = table.flatten(0, 1).index_select(0, cells.flatten())
    values = values.view(len(boxes), 2 * number, 2 * number, channels)
    across = _pairs(column_weights, samples).to(values.dtype)
    along = _pairs(row_weights, samples).to(values.dtype)
    # weighted sums over the columns of a cell, then over its rows
    values = (values.unflatten(2, (size, -1)) * across[:, None, :, :, None]).sum(3)
    values = (values.unflatten(1, (size, -1)) * along[:, :, :, None, None]).sum(2)
    return values.permute(0, 3, 1, 2)


def box_levels(boxes: Tensor, levels: int) -> Tensor:
    """[R] int64 the level of a pyramid of strides 4, 8, ... for boxes [R,4]."""
    _, size = _centers_and_sizes(boxes)
    doubled = (size[:, 0] * size[:, 1]).sqrt() / CANONICAL_SIZE
    level = (CANONICAL_LEVEL + doubled.log2()).floor()
    return level.clamp(0, levels - 1).to(torch.int64)


def _neighbours(position: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """[R,n,2] the two cells that positions [R,n] lie between, of `size` [R,1], and their weights.

    Positions beyond the centres of the outer cells are moved there.
    """
    position = torch.minimum(relu(position), size - 1)
    low = torch.minimum(position.floor(), relu(size - 2))
    part = position - low
    high = torch.minimum(low + 1, size - 1)
    return torch.stack((low, high), -1), torch.stack((1 - part, part), -1)


def _pairs(weights: Tensor, samples: int) -> Tensor:
    """[R,size*samples,2] -> [R,size,samples*2], of a mean over the samples."""
    return weights.flatten(1).unflatten(1, (-1, 2 * samples)) / samples


def paste(masks: Tensor, boxes: Tensor, grid: Size, stride: float) -> Tensor:
    """Masks [P,m,m] of boxes [P,4] on a grid h, w of the image with cells of `stride`: [P,h,w].

    Bilinear, as two products with matrices of weights; beyond a box its border goes on.
    """
    size = masks.shape[-1]
    cells = torch.arange(size, device=masks.device)
    weights = []
    for i, number in ((1, grid[0]), (0, grid[1])):
        centers = (torch.arange(number, device=masks.device) + 0.5) * stride
        side = (boxes[:, i + 2] - boxes[:, i]).clamp(min=1e-3)[:, None]
        position = ((centers - boxes[:, i, None]) / side * size - 0.5).clamp(0, size - 1)
        weights.append(relu(1 - (position[..., None] - cells).abs()))  # [P,number,m]
    return weights[0] @ masks @ weights[1].transpose(1, 2)


def inside(boxes: Tensor, grid: Size, stride: float) -> Tensor:
    """[P,h,w] bool: the centre of a cell of the grid lies in the box [P,4]."""
    y, x = ((torch.arange(number, device=boxes.device) + 0.5) * stride for number in grid)
    rows = (y >= boxes[:, 1, None]) & (y <= boxes[:, 3, None])
    columns = (x >= boxes[:, 0, None]) & (x <= boxes[:, 2, None])
    return rows[:, :, None] & columns[:, None]


def mask_boxes(masks: Tensor, stride: int) -> Tensor:
    """[...,4] boxes of masks [...,h,w] of coverage 0..1, whose cells are `stride` pixels.

    Where the edge is in the outermost cells follows from how much of them is covered. Empty masks
    have a box of a pixel or so, somewhere.
    """
    edges = []
    for profile in (masks.amax(-2), masks.amax(-1)):  # by columns, by rows
        number = profile.shape[-1]
        cells = torch.arange(number, device=masks.device)
        covered = profile > 0
        first = torch.where(covered, cells, number - 1).amin(-1, keepdim=True)
        last = torch.where(covered, cells, 0).amax(-1, keepdim=True)
        start, end = (profile.gather(-1, at).clamp(min=0.625) for at in (first, last))
        edges.append((first + 1 - start, last + end))
    (left, right), (top, bottom) = edges
    return torch.cat((left, top, right, bottom), -1) * stride
