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
    `IGNORE` where less than a quarter of the cell is known."""
    valid: Tensor
    """[h,w] float in 0..1, the share of each cell that is labelled."""

    @property
    def stuff_present(self) -> Tensor:
        """[S] bool: the class has pixels in this frame."""
        return self.stuff_masks.flatten(1).amax(1) > 0

    def to(self, device: torch.device) -> FrameTargets:
        """The same on another device."""
        return FrameTargets(*(getattr(self, f).to(device) for f in self.__dataclass_fields__))


def frame_targets(
    semantic: NDArray[np.uint8], instance: NDArray[np.int32], classes: ClassTable, stride: int
) -> FrameTargets:
    """Targets of a frame [H,W]; thing pixels without instance and tiny instances are ignored."""
    size = (semantic.shape[1] // stride, semantic.shape[0] // stride)
    logit_of = {c: i for i, c in enumerate(classes.logit_class_ids)}

    def share(mask: NDArray) -> NDArray:
        return cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)

    valid = semantic != NO_CLASS
    masks, labels, ids = [], [], []
    for thing in classes.things:
        of_class = semantic == thing
        for track, pixels in zip(*np.unique(instance[of_class], return_counts=True), strict=True):
            mask = of_class & (instance == track)
            if track == 0 or pixels < MIN_INSTANCE_PIXELS:
                valid &= ~mask
                continue
            masks.append(share(mask))
            labels.append(logit_of[thing])
            ids.append(int(track))
    shares = np.stack([*masks, *(share(semantic == c) for c in classes.stuff)])
    return FrameTargets(
        masks=torch.from_numpy(shares[: len(masks)]),
        classes=torch.tensor(labels, dtype=torch.int64),
        ids=torch.tensor(ids, dtype=torch.int64),
        stuff_masks=torch.from_numpy(shares[len(masks) :]),
        owners=torch.from_numpy(np.where(shares.max(0) < 0.25, IGNORE, shares.argmax(0))),
        valid=torch.from_numpy(share(valid)),
    )
