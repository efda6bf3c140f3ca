"""The interface of every engine: `Runtime`, whose `step` runs one frame of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..types import ClassTable, Detections

ProgressCallback = Callable[[str, float], None]
"""Called with the progress of long work: its phase, and the fraction of it that is done, 0..1."""
Size = tuple[int, int]
"""Height and width in pixels."""
State = NDArray[np.float32]
"""The temporal context of a camera: the kernels of its last frame and what else a slot remembers,
[N, S]; see `ModelConfig.state_shape`."""


class ModelError(ValueError):
    """A missing, corrupt or foreign model file; the message names the file and what is wrong."""


class BackendError(RuntimeError):
    """No backend here can run the model; the message has the reason of each that was tried."""


@dataclass(frozen=True)
class ModelInfo:
    """The facts of a model that a user of an engine needs."""

    name: str
    classes: ClassTable
    height: int
    """First native size, in pixels; the caller resizes."""
    width: int
    task: str = "panoptic"
    """One of `tasks.TASKS`."""
    checkpoint_sha256: str = ""
    """Hex digest of the checkpoint; empty if unknown."""
    sizes: tuple[Size, ...] = ()
    """All native sizes; by default the first alone."""

    def __post_init__(self) -> None:
        if not self.sizes:
            object.__setattr__(self, "sizes", ((self.height, self.width),))


class Runtime(Protocol):
    """An engine with a model in it. State goes in and comes out: one engine serves many cameras.

    All methods may be called from any thread.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def name(self) -> str:
        """The backend, as a user would name it, for example "onnxruntime-cpu"."""
        ...

    def step(self, image: NDArray[np.uint8], state: State | None) -> tuple[Detections, State]:
        """Segment one frame.

        Args:
            image: uint8 [height, width, 3], RGB, exactly of one of `info.sizes`.
            state: what the last step of this camera returned, on this engine or any other of the
                same model, at any size; None on its first frame.

        Returns:
            The segments and the new state.

        Raises:
            ValueError: the image or state has another shape or dtype.
            FloatingPointError: the model returned NaN or infinite values; the old state is intact.
            RuntimeError: the engine is closed.
        """
        ...

    def close(self) -> None:
        """Free the engine; it cannot be used after. A second time does nothing."""
        ...
