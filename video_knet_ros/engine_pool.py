"""One engine for several cameras: the model is loaded once, each camera has a state of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from video_knet_core.engine.base import ModelInfo, ProgressCallback, Runtime
from video_knet_core.engine.executor import EngineExecutor
from video_knet_core.types import Detections


class EnginePool:
    """Opens a runtime once for all users with the same settings; the last to close it frees it.

    Each has an executor of its own, so that one that takes long to open, or hangs, keeps no other
    waiting; it ends with its last user. `open` is called in the thread of the executor that
    `executor` returns, and so is `close` of its result. A runtime that hangs is not shared with
    cameras that come later.

    Args:
        open_runtime: makes a runtime; it is shared by calls whose arguments but `progress` are
            equal.
    """

    def __init__(self, open_runtime: Callable[..., Runtime]) -> None:
        self._open_runtime = open_runtime
        self._executors: WeakValueDictionary[tuple, EngineExecutor] = WeakValueDictionary()
        self._shared: dict[tuple, _SharedEngine] = {}

    def executor(self, **settings: Any) -> EngineExecutor:
        """The executor of the engine with these settings. To be called from one thread alone."""
        key = tuple(sorted(settings.items()))
        executor = self._executors.get(key)
        if executor is None or executor.hangs or not executor.is_open:
            executor = self._executors[key] = EngineExecutor("inference")
        return executor

    def open(self, path: Path, progress: ProgressCallback | None = None, **options: Any) -> Runtime:
        """As `open_runtime`; the result is the caller's own handle."""
        key = (threading.current_thread(), path, *sorted(options.items()))
        engine = self._shared.get(key)
        if engine is not None:
            return _Handle(engine, progress)
        engine = _SharedEngine(free=lambda: self._shared.pop(key))
        handle = _Handle(engine, progress)
        engine.runtime = self._open_runtime(path, progress=engine.report, **options)
        self._shared[key] = engine
        return handle

    def close(self, timeout_s: float) -> bool:
        """End the threads after the jobs so far; False if one takes longer than `timeout_s`."""
        return all([executor.close(timeout_s) for executor in list(self._executors.values())])


class _SharedEngine:
    """A runtime and its users."""

    runtime: Runtime

    def __init__(self, free: Callable[[], object]) -> None:
        self._free = free
        self.users: dict[_Handle, ProgressCallback | None] = {}

    def report(self, phase: str, fraction: float) -> None:
        """Pass the progress of a build on, in the thread that builds."""
        for progress in list(self.users.values()):
            if progress is not None:
                progress(phase, fraction)

    def release(self, user: _Handle) -> None:
        if user in self.users:
            del self.users[user]
            if not self.users:
                self._free()
                self.runtime.close()


class _Handle:
    """A `Runtime` that others use too."""

    def __init__(self, engine: _SharedEngine, progress: ProgressCallback | None) -> None:
        self._engine = engine
        engine.users[self] = progress

    @property
    def name(self) -> str:
        return self._engine.runtime.name

    @property
    def info(self) -> ModelInfo:
        return self._engine.runtime.info

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        return self._engine.runtime.step(image, state)

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        return self._engine.runtime.portable_state(state)

    def close(self) -> None:
        self._engine.release(self)
