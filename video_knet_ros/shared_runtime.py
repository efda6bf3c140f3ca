"""One engine for several cameras: the model is loaded once, each camera has a state of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from video_knet_core.engine.base import ProgressCallback, Runtime
from video_knet_core.types import Detections

from .worker import InferenceThread


class SharedRuntimes:
    """Opens a runtime once for all who ask for the same one; the last to close it frees it.

    Each has an inference thread of its own, so that one that takes long to open, or hangs, keeps no
    other waiting. `open` is called in the thread that `thread` gives, and so is `close` of what it
    returns. A runtime that hangs is not shared with cameras that come later.

    Args:
        open_runtime: makes a runtime; its arguments but `progress` tell runtimes apart.
        first: the inference thread of the first runtime; default: a new one.
    """

    def __init__(
        self, open_runtime: Callable[..., Runtime], first: InferenceThread | None = None
    ) -> None:
        self._open_runtime = open_runtime
        self._first = first
        self._threads: WeakValueDictionary[tuple, InferenceThread] = WeakValueDictionary()
        self._shared: dict[tuple, _Shared] = {}

    def thread(self, **settings: Any) -> InferenceThread:
        """The inference thread of the engine with these settings. For one thread alone."""
        key = tuple(sorted(settings.items()))
        thread = self._threads.get(key)
        if thread is None or not thread.is_open:
            unused, self._first = self._first, None
            thread = unused if unused is not None and unused.is_open else InferenceThread()
            self._threads[key] = thread
        return thread

    def open(self, path: Path, progress: ProgressCallback | None = None, **options: Any) -> Runtime:
        """As `open_runtime`; what comes back is the caller's own handle."""
        key = (threading.current_thread(), path, *sorted(options.items()))
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

    all: list[ProgressCallback | None]

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

    def release(self, progress: ProgressCallback | None) -> None:
        """One user less."""
        self.listeners.all.remove(progress)
        if not self.listeners.all:
            self.forget()
            self.runtime.close()


class _Handle:
    """A `Runtime` that belongs to others too."""

    def __init__(self, shared: _Shared, progress: ProgressCallback | None) -> None:
        self._shared, self._progress = shared, progress
        self._closed = False
        self.info = shared.runtime.info

    @property
    def name(self) -> str:
        """The backend that serves now."""
        return self._shared.runtime.name

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        """See `Runtime.step`."""
        return self._shared.runtime.step(image, state)

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """See `Runtime.portable_state`."""
        return self._shared.runtime.portable_state(state)

    def close(self) -> None:
        """Give up this camera's share; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self._shared.release(self._progress)
