"""Ground truth of one frame in the form the losses need: one soft mask per segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..data.video import InstanceMasks
from ..types import NO_CLASS, SOME_STUFF, ClassTable

IGNORE = -100
"""Owner of a cell without a known owner; what torch's cross-entropy skips."""

ANY_STUFF = IGNORE - 1
"""Owner of a cell of stuff whose class is not known."""

_MIN_INSTANCE_PIXELS = 24
"""Smaller instances (at crop resolution) are ignored: nothing of them is left at stride 4."""

_MIN_COVERAGE = 0.25
"""Minimum coverage of a cell that makes a segment its owner."""

_SEED_SIGMA, _SEED_SPREAD = 0.5, 0.1
"""Width in cells of the heat around a seed: so much, and this fraction of the instance's size."""


class FrameTargets(NamedTuple):
    """Labels of one frame: masks on the grid of the mask losses, h x w, and who owns each cell on
    that of the rank and semantic losses, i x j. `stack_targets` puts a batch dimension [F] first.

    T thing and S stuff classes; class columns are in logit order (things first).
    """

    segments: Tensor
    """[S+G,h,w] float in 0..1, the coverage of each cell by a segment: first every stuff
    class, then the instances."""
    classes: Tensor
    """[G] int64, 0..T-1."""
    ids: Tensor
    """[G] int64 instance ids, the same object has the same id in the paired frame; 0 = padding."""
    owners: Tensor
    """[i,j] int64, the row of `segments` with the largest coverage of each cell; `IGNORE` where no
    known segment covers a quarter of the cell, `ANY_STUFF` where `some_stuff` covers most of it."""
    semantic: Tensor
    """[i,j] int64, the class (logit order) with the largest coverage of each cell, `IGNORE` or
    `ANY_STUFF`. Things without identity count here, and nowhere else."""
    valid: Tensor
    """[h,w] float in 0..1, the labelled part of each cell."""
    some_stuff: Tensor
    """[h,w] float in 0..1, as much of it is stuff of an unknown class."""
    depth: Tensor
    """[h,w] metres at the middle of each cell, 0 = unknown, or infinitely far."""

    @property
    def stuff(self) -> int:
        """S"""
        return self.segments.shape[-3] - self.ids.shape[-1]

    @property
    def masks(self) -> Tensor:
        """[G,h,w] of the instances."""
        return self.segments[..., self.stuff :, :, :]

    @property
    def present(self) -> Tensor:
        """[G] bool, the instance is no padding."""
        return self.ids != 0

    @property
    def stuff_present(self) -> Tensor:
        """[S] bool: the class has pixels in this frame."""
        return (self.segments[..., : self.stuff, :, :] > 0).flatten(-2).any(-1)

    @property
    def centers(self) -> tuple[Tensor, Tensor]:
        """y [G] and x [G] of the middle of each instance's visible part, as fractions 0..1."""
        rows, columns = self._cell_centers()
        total = self.masks.sum((-2, -1)).clamp(min=1e-6)
        return self.masks.sum(-1) @ rows / total, self.masks.sum(-2) @ columns / total

    def heat(self, height: int, width: int) -> Tensor:
        """[height,width] 1 at the seed of each instance, falling off around it with its size.

        The seed is the cell of the instance that is nearest to its centre: of a car behind a post,
        never the post.
        """
        rows, columns = self._cell_centers()
        y, x = (c[..., None, None] for c in self.centers)
        cost = torch.hypot(rows[:, None] - y, columns - x) + (1 - self.masks)
        at = cost.flatten(-2).argmin(-1)
        row = (rows[at // len(columns)] * height).long()[..., None, None]
        column = (columns[at % len(columns)] * width).long()[..., None, None]
        size = (self.masks.mean((-2, -1)) * height * width).sqrt()[..., None, None]
        sigma = _SEED_SIGMA + _SEED_SPREAD * size
        dy = torch.arange(height, device=at.device)[:, None] - row
        dx = torch.arange(width, device=at.device) - column
        around = (-(dy.square() + dx.square()) / (2 * sigma.square())).exp()
        around = around * self.present[..., None, None]
        nothing = around.new_zeros(*around.shape[:-3], 1, height, width)
        return torch.cat((around, nothing), -3).amax(-3)

    def _cell_centers(self) -> tuple[Tensor, Tensor]:
        """y [h] and x [w], fractions 0..1."""
        height, width = self.segments.shape[-2:]
        rows = torch.arange(height, device=self.segments.device)
        columns = torch.arange(width, device=self.segments.device)
        return (rows + 0.5) / height, (columns + 0.5) / width


class ClassTargets(NamedTuple):
    """Labels of one frame, or of a batch of frames, in task semantic."""

    semantic: Tensor
    """[i,j] int64, the class with the largest coverage of each cell, or `IGNORE`."""


Targets = TypeVar("Targets", FrameTargets, ClassTargets)


def stack_targets(frames: Sequence[Targets]) -> Targets:
    """A batch of F frames; those with fewer instances than another are padded with empty ones."""
    parts = (pad_sequence(list(part), batch_first=True) for part in zip(*frames, strict=True))
    return type(frames[0])(*parts)


def class_targets(
    semantic: NDArray[np.uint8], classes: ClassTable, stride: int, rule: str = "coverage"
) -> ClassTargets:
    """Targets of a frame [H,W] in task semantic, on the grid of `stride`; `rule` is
    `TrainConfig.targets`."""
    column = np.full(NO_CLASS + 1, IGNORE)
    column[list(classes.logit_class_ids)] = np.arange(len(classes))
    found = [c for c in np.unique(semantic).tolist() if c != NO_CLASS]
    nothing = np.zeros(semantic.shape, bool)
    cells = _coverage([*(semantic == c for c in found), nothing], stride)
    owners = (_largest if rule == "coverage" else _last_touch)(cells, 0)
    goals = column[[*found, NO_CLASS]][owners.clip(min=-1)]  # IGNORE reads the last entry
    return ClassTargets(torch.from_numpy(goals))


def frame_targets(
    semantic: NDArray[np.uint8],
    instance: NDArray[np.int32],
    classes: ClassTable,
    stride: int,
    rule: str = "coverage",
    rank_stride: int | None = None,
    whole: InstanceMasks | None = None,
    background: bool = False,
    depth: NDArray[np.float32] | None = None,
) -> FrameTargets:
    """Targets of a frame [H,W], masks at `stride`, owners at `rank_stride` (as `stride` if None);
    `rule` is `TrainConfig.targets`.

    By the rule "coverage", thing pixels without instance and tiny instances give no masks.

    Args:
        whole: the masks of instances that overlap; `instance` then decides who owns a cell only.
        background: pixels without a class are none of the instances (task instance). Otherwise
            they are ignored.
        depth: [H,W] metres, 0 = unknown, as all of it is if None.
    """
    everywhere = background or rule != "coverage"
    known = np.ones(semantic.shape, bool) if everywhere else semantic != NO_CLASS
    regions, fronts, labels, ids = [], [], [], []
    for label, track, pixels, front in _instances(semantic, instance, classes, whole):
        if rule == "coverage" and (track == 0 or pixels.sum() < _MIN_INSTANCE_PIXELS):
            known &= ~pixels
            continue
        regions.append(pixels)
        fronts.append(front)
        labels.append(label)
        ids.append(track if track else -1 - label)
    by_class = [semantic == c for c in classes.logit_class_ids]
    # a table that has a class of this number has no labels of some stuff
    by_class.append((semantic == SOME_STUFF) & (len(classes) <= SOME_STUFF))
    rest = by_class[len(classes.things) :]
    owner_stride = rank_stride or stride
    valid = _coverage([known], stride)[0]
    # a cell half road, half void is road, as far as it is labelled
    goals = np.clip(_coverage([*regions, *rest], stride) / np.maximum(valid, 1e-6), 0, 1).astype(
        np.float32
    )
    things, stuff = len(regions), len(rest) - 1
    owner_of = _largest if rule == "coverage" else _last_touch
    owners = owner_of(_coverage([*fronts, *rest], owner_stride), things)
    row_of = np.array([*range(stuff, stuff + things), *range(stuff), ANY_STUFF, IGNORE])
    class_of = np.array([*range(len(classes)), ANY_STUFF, IGNORE])
    semantic_goal = owner_of(_coverage(by_class, owner_stride), len(classes.things))
    return FrameTargets(
        segments=torch.from_numpy(np.concatenate((goals[things:-1], goals[:things]))),
        classes=torch.tensor(labels, dtype=torch.int64),
        ids=torch.tensor(ids, dtype=torch.int64),
        owners=torch.from_numpy(row_of[owners.clip(min=-1)]),  # IGNORE reads the last entry
        semantic=torch.from_numpy(class_of[semantic_goal.clip(min=-1)]),
        valid=torch.from_numpy(valid),
        some_stuff=torch.from_numpy(goals[-1]),
        depth=_depth_cells(depth, stride, valid.shape),
    )


def _depth_cells(depth: NDArray[np.float32] | None, stride: int, shape: tuple[int, ...]) -> Tensor:
    """[h,w] of one pixel each: the mean over an edge is the depth of nothing."""
    if depth is None:
        return torch.zeros(shape)
    cells = depth[stride // 2 :: stride, stride // 2 :: stride]
    return torch.from_numpy(cells[: shape[0], : shape[1]].copy())


def _coverage(masks: Sequence[NDArray[np.bool_]], stride: int) -> NDArray[np.float32]:
    """[M,H/stride,W/stride] the coverage of each cell by each mask [H,W]."""
    height, width = masks[0].shape
    size = (width // stride, height // stride)
    cells = [cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) for m in masks]
    return np.stack(cells)


def _instances(
    semantic: NDArray[np.uint8],
    instance: NDArray[np.int32],
    classes: ClassTable,
    whole: InstanceMasks | None,
) -> Iterator[tuple[int, int, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Class column, id, all pixels [H,W] and those in front of each instance, by class and id.

    The id 0 is of things without one. All pixels are in front if there are no `whole` masks.
    """
    for label, thing in enumerate(classes.things):
        mask = semantic == thing
        masks: dict[int, NDArray[np.bool_]] = {}
        if whole is not None:
            own = whole.class_ids == thing
            masks = dict(zip(whole.ids[own].tolist(), whole.masks[own], strict=True))
        for track in sorted({*np.unique(instance[mask]).tolist(), *masks}):
            front = mask & (instance == track)
            yield label, track, masks.get(track, front), front


def _largest(coverage: NDArray, things: int) -> NDArray[np.int64]:
    """[h,w] the row with the largest coverage, or `IGNORE`; things have no precedence."""
    return np.where(coverage.max(0) < _MIN_COVERAGE, IGNORE, coverage.argmax(0))


def _last_touch(coverage: NDArray, things: int) -> NDArray[np.int64]:
    """[h,w] the last row that touches a cell, things over stuff, or `IGNORE`."""
    order = [*range(things, len(coverage)), *range(things)]
    touched = coverage[order] > 0
    last = len(order) - 1 - touched[::-1].argmax(0)
    return np.where(touched.any(0), np.array(order)[last], IGNORE)
