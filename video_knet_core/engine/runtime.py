"""One face for every engine: `open_runtime(path)` gives a `Runtime` whose `step` runs one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable, Segments


@dataclass(frozen=True)
class ModelInfo:
    """What a user of an engine must know of its model."""

    name: str
    classes: ClassTable
    height: int
    """Input size in pixels; the caller resizes."""
    width: int


class Runtime(Protocol):
    """An engine with a model in it. State goes in and comes out: one engine serves many cameras."""

    name: str
    """The backend, as a user would name it, for example "onnxruntime-cpu"."""
    info: ModelInfo

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """Segment one frame.

        Args:
            image: uint8 [height, width, 3], RGB, exactly `info.height` x `info.width`.
            state: what the last step of this camera returned; None on its first frame.

        Returns:
            The segments and the new state, which belongs to the caller and is opaque to it.

        Raises:
            ValueError: the image has another shape or dtype.
        """
        ...

    def close(self) -> None:
        """Free the engine; it cannot be used after."""
        ...
