"""The interface of what frames come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Frame = tuple[NDArray[np.uint8], int]
"""RGB [H, W, 3] and a stamp in nanoseconds."""
DEFAULT_FPS = 10.0
"""Of sources that have no rate of their own: image folders and the synthetic street."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera without distortion, in pixels of its images."""

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class View:
    """A frame with what is known of its place in space."""

    image: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    stamp: int
    """Nanoseconds."""
    depth: NDArray[np.float32] | None = None
    """[H, W] metres along the optical axis, of the same pixels as the image; 0 = unknown."""
    pose: NDArray[np.float64] | None = None
    """[4, 4] from the camera's optical frame (x right, y down, z ahead) to a fixed one (x forward,
    y left, z up)."""


class FrameSource(ABC):
    """Frames in order, with stamps."""

    fps: float
    """Nominal or mean rate [Hz]; the stamps need not follow it."""
    count: int | None = None
    """Number of frames as the source declares it, which may be wrong; None = unknown."""
    endless = False
    """Whether it has no end of its own."""
    path: Path | None = None
    """The file or folder that is read; None = there is none."""
    intrinsics: Intrinsics | None = None
    """Of the camera; None = unknown."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Play from the start; FrameError when a frame cannot be read."""

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        """Play from the start, with depth and pose where the source has them.

        `with_depth` is called before each frame; its depth is left out if the result is false.
        """
        return (View(image, stamp) for image, stamp in self)
