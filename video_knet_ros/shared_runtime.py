"""One engine for several cameras: the model is loaded once, each camera has a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_knet_core.engine.runtime import Progress, Runtime
from video_knet_core.types import Segments


class SharedRuntimes:
    """Opens a runtime once for all who ask for the same one; the last to close it frees it.

    Not thread-safe: open and close in one thread, that of the engine.

    Args:
        open_runtime: makes a runtime; its arguments but `progress` tell runtimes apart.
    """

    def __init__(self, open_runtime: Callable[..., Runtime]) -> None:
        self._open_runtime = open_runtime
        self._shared: dict[tuple, _Shared] = {}

    def open(self, path: Path, progress: Progress | None = None, **options: Any) -> Runtime:
        """As `open_runtime`; what comes back is the caller's own handle."""
        key = (path, *sorted(options.items()))
        if key not in self._shared:
            listeners = _Listeners([progress])
            runtime = self._open_runtime(path, progress=listeners.tell, **options)
            self._shared[key] = _Shared(runtime, listeners, lambda: self._shared.pop(key))
        else:
            self._shared[key].listeners.all.append(progress)
        return _Handle(self._shared[key], progress)


@dataclass
class _Listeners:
    """Who hears of the build of a shared engine: one entry for each user."""

    all: list[Progress | None]

    def tell(self, what: str, share: float) -> None:
        """Pass progress on, in whatever thread it comes."""
        for progress in list(self.all):
            if progress is not None:
                progress(what, share)


@dataclass
class _Shared:
    """A runtime in use."""

    runtime: Runtime
    listeners: _Listeners
    forget: Callable[[], object]

    def release(self, progress: Progress | None) -> None:
        """One user less."""
        self.listeners.all.remove(progress)
        if not self.listeners.all:
            self.forget()
            self.runtime.close()


class _Handle:
    """A `Runtime` that belongs to others too."""

    def __init__(self, shared: _Shared, progress: Progress | None) -> None:
        self._shared, self._progress = shared, progress
        self.info = shared.runtime.info

    @property
    def name(self) -> str:
        """The backend that serves now."""
        return self._shared.runtime.name

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """See `Runtime.step`."""
        return self._shared.runtime.step(image, state)

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """See `Runtime.portable_state`."""
        return self._shared.runtime.portable_state(state)

    def close(self) -> None:
        """Give up this camera's share."""
        self._shared.release(self._progress)
