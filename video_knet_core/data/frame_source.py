"""The interface of what frames come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Frame = tuple[NDArray[np.uint8], int]
"""RGB [H, W, 3] and a stamp in nanoseconds."""
DEFAULT_FPS = 10.0
"""Of sources that have no rate of their own: image folders and the synthetic street."""


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

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Play from the start; FrameError when a frame cannot be read."""
