"""The engines of a process: each has a thread of its own and serves one or several cameras."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from video_knet_core.engine.base import ProgressCallback, Runtime
from video_knet_core.engine.executor import EngineExecutor
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import TrackerSettings

Result = TypeVar("Result")

CLOSE_WAIT_S = 3.0
"""How long the end of a node or a process waits for an engine."""

_log = logging.getLogger(__name__)


class SharedEngine:
    """A runtime and its thread; the first camera to need it opens it, the last one frees it.

    `open` and `close` are called in the thread of `executor`, which ends with the last camera.

    Args:
        open_runtime: makes the runtime.
        settings: the parameters `model`, `backend` and `threads`.
    """

    def __init__(self, open_runtime: Callable[..., Runtime], settings: Mapping[str, Any]) -> None:
        self.executor = EngineExecutor("inference")
        self._open_runtime = open_runtime
        self._settings = settings
        self._runtime: Runtime | None = None
        self._cameras: dict[object, ProgressCallback] = {}

    def open(self, camera: object, progress: ProgressCallback) -> Runtime:
        """The runtime for one more camera; `progress` is called while a better one is built."""
        self._cameras[camera] = progress
        if self._runtime is None:
            options = dict(self._settings)
            model = options.pop("model")
            path = model or default_model_path()
            self._runtime = self._open_runtime(
                path, background=True, progress=self._report, **options
            )
        return self._runtime

    def close(self, camera: object) -> None:
        """One camera less."""
        self._cameras.pop(camera, None)
        if self._runtime is not None and not self._cameras:
            runtime, self._runtime = self._runtime, None
            runtime.close()

    def _report(self, phase: str, fraction: float) -> None:
        """Pass the progress of a build on, in the thread that builds."""
        for progress in list(self._cameras.values()):
            progress(phase, fraction)


class EnginePool:
    """One engine for all cameras with the same settings.

    One that hangs, or takes long to open, delays only its own cameras, and is not given to cameras
    that come later. To be used from one thread alone.
    """

    def __init__(self, open_runtime: Callable[..., Runtime] = open_runtime) -> None:
        self._open_runtime = open_runtime
        self._engines: WeakValueDictionary[tuple, SharedEngine] = WeakValueDictionary()

    def engine(self, settings: Mapping[str, Any]) -> SharedEngine:
        """The engine of these settings; see `SharedEngine`."""
        key = tuple(sorted(settings.items()))
        engine = self._engines.get(key)
        if engine is None or engine.executor.hangs or not engine.executor.is_open:
            engine = self._engines[key] = SharedEngine(self._open_runtime, settings)
        return engine


class EngineWorker:
    """Runs the jobs of one camera, functions of its predictor, in the thread of its engine.

    No method waits for the engine, which may hang; `end` does. If opening failed the only job is
    `close`. `epoch` is that of the first frame; `progress` see `SharedEngine.open`.
    """

    def __init__(
        self,
        engine: SharedEngine,
        tracking: TrackerSettings,
        epoch: int,
        progress: ProgressCallback,
    ) -> None:
        self._engine, self._executor = engine, engine.executor
        self._closed: Future[None] | None = None
        self.given_up = False
        self._executor.acquire()
        self.opened: Future[VideoPredictor] = self._executor.submit(
            lambda: VideoPredictor(engine.open(self, progress), tracking, epoch)
        )

    @property
    def busy_s(self) -> float | None:
        """Seconds for which the thread has been at its present job; None between two jobs."""
        return self._executor.busy_s

    def offer(self, job: Callable[[VideoPredictor], None]) -> bool:
        """Run `job` unless a newer one is offered before it begins; True if it replaced one.

        It is dropped after `close`.
        """
        if self._closed is not None:
            return False
        return self._executor.offer(self, lambda: job(self.opened.result()))

    def withdraw(self) -> bool:
        """Drop the offered job that has not begun; True if there was one."""
        return self._executor.withdraw(self)

    def call(self, job: Callable[[VideoPredictor], Result]) -> Future[Result]:
        """Run `job` before the next offered one; see `EngineExecutor.submit`."""
        if self._closed is not None:
            raise RuntimeError("the engine is closed")
        return self._executor.submit(lambda: job(self.opened.result()))

    def close(self) -> Future[None]:
        """Close the engine in its thread after the jobs so far, if no other camera uses it.

        The future has what closing raised; it is the same each time.
        """
        if self._closed is None:
            self.withdraw()
            self._closed = self._executor.submit(lambda: self._engine.close(self))
            self._executor.release()
        return self._closed

    def end(self, limit_s: float | None) -> str:
        """Close the engine and wait for that, unless it was given up.

        The wait is `limit_s` at most, from the begin of the job that runs; None = no wait. Returns
        why the engine is not closed, "" if it is or was not waited for.
        """
        closed = self.close()
        if limit_s is None:
            closed.add_done_callback(_log_failure)
            return ""
        if not self.given_up:
            wait([closed], max(limit_s - (self.busy_s or 0.0), 0.0))
        if not closed.done():
            self.give_up()
            return f"busy for {self.busy_s or 0.0:.1f} s; it is closed when it returns"
        return "" if (error := closed.exception()) is None else f"{type(error).__name__}: {error}"

    def give_up(self) -> None:
        """Wait for the engine no longer: it is closed when the job that hangs returns, if ever."""
        if not self.given_up:
            self.given_up = True
            self._executor.hangs = True
            self.close().add_done_callback(_log_failure)


def _log_failure(closed: Future[None]) -> None:
    if error := closed.exception():
        _log.error("closing an engine failed: %s: %s", type(error).__name__, error)
