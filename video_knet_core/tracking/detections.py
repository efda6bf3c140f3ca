"""What a tracker is given: the thing segments of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..geometry import Regions


@dataclass(frozen=True)
class ThingDetections:
    """The thing segments of one frame, N of them."""

    class_ids: NDArray[np.int64]
    """[N]"""
    scores: NDArray[np.float32]
    """[N] class scores 0..1."""
    embeddings: NDArray[np.float32]
    """[N, E]"""
    regions: Regions
    """Geometry in image pixels."""
    image_size: tuple[int, int]
    """Height and width of the image."""
    boxes: NDArray[np.floating | np.integer] | None = None
    """[N, 4] x0, y0, x1, y1 (first and last pixel) that the quasi-dense tracker compares instead
    of those of the regions."""
    kernels: NDArray[np.float32] | None = None
    """[N, C] the network's own kernels, if the engine gives them."""
    pixels: Pixels | None = None
    """For trackers that look at pixels."""

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def corners(self) -> NDArray[np.floating | np.integer]:
        """[N, 4] x0, y0, x1, y1, the first and last pixel: `boxes`, or those of the regions."""
        if self.boxes is not None:
            return self.boxes
        upper_left, size = self.regions.boxes[:, :2], self.regions.boxes[:, 2:]
        return np.concatenate([upper_left, upper_left + size - 1], axis=1)

    def segments(self) -> list[Segment]:
        """The N detections one by one."""
        columns = (
            self.class_ids.tolist(),
            self.scores.tolist(),
            self.regions.areas.tolist(),
            map(tuple, self.regions.boxes.tolist()),
            map(tuple, self.regions.centroids.tolist()),
            self.regions.truncated.tolist(),
        )
        return [Segment(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pixels:
    """The image of a frame and which of its pixels belong to which of the N detections.

    It only refers to what the engine saw and gave: trackers that look at no pixels pay nothing.
    """

    image: NDArray[np.uint8]
    """[H, W, 3] RGB at the size of the engine's input."""
    slot_map: NDArray[np.uint8]
    """[h, w], all of the image but smaller; 0 = no segment, s + 1 = slot s."""
    slots: NDArray[np.int64]
    """[N] the slot of each detection."""
    slot_masks: NDArray[np.uint8] | None = None
    """[S, h, w] of 0 and 1, the masks of all slots where they may overlap."""

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """[N, h, w] the pixels of each detection."""
        if self.slot_masks is not None:
            return self.slot_masks[self.slots].view(np.bool_)
        return self.slot_map == (1 + self.slots).astype(self.slot_map.dtype)[:, None, None]


@dataclass(frozen=True)
class Segment:
    """One detection, as plain numbers."""

    class_id: int
    score: float
    area: int
    box: tuple[int, int, int, int]
    """x, y, width, height."""
    centroid: tuple[float, float]
    truncated: bool
