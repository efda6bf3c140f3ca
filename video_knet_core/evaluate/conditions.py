"""How a model is shown a clip: as it is or with spoilt frames, with or without its memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.spoiling import SpoiltFrames
from ..engine.base import Runtime
from ..types import Detections


@dataclass(frozen=True)
class Condition:
    """Clean or spoilt frames (`data/spoiling.py`), with or without the memory of the network."""

    spoilt: bool = False
    memory: bool = True
    """Without it, the network gets every frame as the first of a stream; the tracker goes on."""

    def images(self, clip: int) -> Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]:
        """What makes of an image [H, W, 3] and its frame number what is shown of clip `clip`."""
        return SpoiltFrames(clip) if self.spoilt else lambda image, t: image

    def runtime(self, runtime: Runtime) -> Runtime:
        """The same engine, or one without memory."""
        return runtime if self.memory else FirstFrames(runtime)


CLEAN = Condition()
CONDITIONS = tuple(
    Condition(spoilt, memory) for memory in (True, False) for spoilt in (False, True)
)
"""All four."""


class FirstFrames:
    """A `Runtime` that forgets: every frame is a first one."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.info = runtime.name, runtime.info
        self._runtime = runtime

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        return self._runtime.step(image, None)[0], None

    def close(self) -> None:
        self._runtime.close()
