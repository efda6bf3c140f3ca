"""Ground truth of one frame in the form the losses need: one soft mask per segment."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..types import NO_CLASS, ClassTable

IGNORE = -100
"""Owner of a cell that nobody is known to own; what torch's cross-entropy skips."""

MIN_INSTANCE_PIXELS = 24
"""Smaller instances (at crop resolution) are ignored: nothing of them is left at stride 4."""

MIN_SHARE = 0.25
"""Least share of a cell that makes a segment its owner."""


@dataclass(frozen=True)
class FrameTargets:
    """Labels of one frame at the resolution of the mask losses, h x w.

    T thing and S stuff classes; class columns are in logit order (things first).
    """

    masks: Tensor
    """[G,h,w] float in 0..1, the share of each cell that instance g covers."""
    classes: Tensor
    """[G] int64, 0..T-1."""
    ids: Tensor
    """[G] int64 instance ids, the same object has the same id in the paired frame."""
    stuff_masks: Tensor
    """[S,h,w] float in 0..1."""
    owners: Tensor
    """[h,w] int64, the segment with the largest share of each cell: 0..G-1 instances, G.. stuff;
    `IGNORE` where no known segment covers a quarter of the cell."""
    semantic: Tensor
    """[h,w] int64, the class (logit order) with the largest share of each cell, or `IGNORE`. Things
    without identity count here, and nowhere else."""
    valid: Tensor
    """[h,w] float in 0..1, the share of each cell that is labelled."""

    @property
    def stuff_present(self) -> Tensor:
        """[S] bool: the class has pixels in this frame."""
        return self.stuff_masks.flatten(1).amax(1) > 0

    @property
    def centers(self) -> tuple[Tensor, Tensor]:
        """y [G] and x [G] of the middle of each instance's visible part, as fractions 0..1."""
        height, width = self.masks.shape[1:]
        total = self.masks.sum((1, 2)).clamp(min=1e-6)
        rows = torch.arange(height, device=self.masks.device) + 0.5
        columns = torch.arange(width, device=self.masks.device) + 0.5
        y = (self.masks.sum(2) @ rows) / total / height
        x = (self.masks.sum(1) @ columns) / total / width
        return y, x

    def to(self, device: torch.device) -> FrameTargets:
        """The same on another device."""
        return FrameTargets(*(getattr(self, f).to(device) for f in self.__dataclass_fields__))


def frame_targets(
    semantic: NDArray[np.uint8], instance: NDArray[np.int32], classes: ClassTable, stride: int
) -> FrameTargets:
    """Targets of a frame [H,W]; thing pixels without instance and tiny instances give no masks."""
    size = (semantic.shape[1] // stride, semantic.shape[0] // stride)

    def share(mask: NDArray) -> NDArray:
        return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)

    of_class = {c: semantic == c for c in classes.logit_class_ids}
    class_shares = np.stack([share(mask) for mask in of_class.values()])
    stuff_shares = class_shares[len(classes.things) :]
    known = semantic != NO_CLASS
    masks, labels, ids = [], [], []
    for label, thing in enumerate(classes.things):
        mask = of_class[thing]
        for track, pixels in zip(*np.unique(instance[mask], return_counts=True), strict=True):
            own = mask & (instance == track)
            if track == 0 or pixels < MIN_INSTANCE_PIXELS:
                known &= ~own
                continue
            masks.append(share(own))
            labels.append(label)
            ids.append(int(track))
    shares = np.concatenate([np.reshape(masks, (-1, *stuff_shares.shape[1:])), stuff_shares])
    valid = share(known)
    # a cell half road, half void is road as far as anybody knows
    goals = np.clip(shares / np.maximum(valid, 1e-6), 0, 1).astype(np.float32)
    return FrameTargets(
        masks=torch.from_numpy(goals[: len(masks)]),
        classes=torch.tensor(labels, dtype=torch.int64),
        ids=torch.tensor(ids, dtype=torch.int64),
        stuff_masks=torch.from_numpy(goals[len(masks) :]),
        owners=torch.from_numpy(_largest(shares)),
        semantic=torch.from_numpy(_largest(class_shares)),
        valid=torch.from_numpy(valid),
    )


def _largest(shares: NDArray) -> NDArray[np.int64]:
    return np.where(shares.max(0) < MIN_SHARE, IGNORE, shares.argmax(0))
