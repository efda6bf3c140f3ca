"""One engine for several cameras: the model is loaded once, each camera has a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_knet_core.engine.runtime import ModelInfo, Runtime
from video_knet_core.types import Segments


class SharedRuntimes:
    """Opens a runtime once for all who ask for the same one; the last to close it frees it.

    Not thread-safe: open and close in one thread, that of the engine.

    Args:
        open_runtime: makes a runtime; its arguments tell runtimes apart.
    """

    def __init__(self, open_runtime: Callable[..., Runtime]) -> None:
        self._open_runtime = open_runtime
        self._runtimes: dict[tuple, Runtime] = {}
        self._users: dict[tuple, int] = {}

    def open(self, path: Path, **options: Any) -> Runtime:
        """As `open_runtime`; what comes back is the caller's own handle."""
        key = (Path(path), *sorted(options.items()))
        if key not in self._runtimes:
            self._runtimes[key] = self._open_runtime(path, **options)
            self._users[key] = 0
        self._users[key] += 1
        return _Handle(self._runtimes[key], lambda: self._release(key))

    def _release(self, key: tuple) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._runtimes.pop(key).close()


class _Handle:
    """A `Runtime` that belongs to others too."""

    def __init__(self, runtime: Runtime, release: Callable[[], None]) -> None:
        self._runtime, self._release = runtime, release

    @property
    def name(self) -> str:
        """The backend that serves now."""
        return self._runtime.name

    @property
    def info(self) -> ModelInfo:
        """Of the model."""
        return self._runtime.info

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """See `Runtime.step`."""
        return self._runtime.step(image, state)

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """See `Runtime.portable_state`."""
        return self._runtime.portable_state(state)

    def close(self) -> None:
        """Give up this camera's share."""
        self._release()
