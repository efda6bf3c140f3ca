"""The jobs of one camera in the thread of its engine, which other cameras may use too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from video_knet_core.engine.base import ProgressCallback, Runtime
from video_knet_core.engine.executor import EngineExecutor
from video_knet_core.engine.selector import default_model_path
from video_knet_core.predictor import VideoPredictor
from video_knet_core.tracking import TrackerSettings

from . import process

Engine = TypeVar("Engine")
Result = TypeVar("Result")

ENGINE_OPTIONS = ("backend", "threads")
"""Parameters that go to `open_runtime` under their own names."""
CLOSE_WAIT_S = 3.0
"""How long the end of a node or a process waits for an engine."""

_log = logging.getLogger(__name__)


class EngineWorker(Generic[Engine]):
    """Runs the jobs of one camera, functions of its engine, in the thread of an executor.

    No method waits for the engine, which may hang; `end` does. If opening failed the only job is
    `close`.

    Args:
        open_engine: makes the engine, in that thread; `opened` holds it, or what was raised.
        close_engine: frees it, in that thread.
        executor: shared with others; None = one of its own. RuntimeError if it is closed.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        close_engine: Callable[[Engine], None],
        executor: EngineExecutor | None = None,
    ) -> None:
        self._executor = executor or EngineExecutor("inference")
        self._executor.acquire()
        self._close_engine = close_engine
        self._closed: Future[None] | None = None
        self.given_up = False
        self.opened: Future[Engine] = self._executor.submit(open_engine)

    @property
    def busy_s(self) -> float | None:
        """Seconds for which the thread has been at its present job; None between two jobs."""
        return self._executor.busy_s

    def offer(self, job: Callable[[Engine], None]) -> bool:
        """Run `job` unless a newer one is offered before it begins; True if it replaced one.

        It is dropped after `close`.
        """
        if self._closed is not None:
            return False
        return self._executor.offer(self, lambda: job(self.opened.result()))

    def withdraw(self) -> bool:
        """Drop the offered job that has not begun; True if there was one."""
        return self._executor.withdraw(self)

    def call(self, job: Callable[[Engine], Result]) -> Future[Result]:
        """Run `job` before the next offered one; see `EngineExecutor.submit`."""
        if self._closed is not None:
            raise RuntimeError("the engine is closed")
        return self._executor.submit(lambda: job(self.opened.result()))

    def close(self) -> Future[None]:
        """Close the engine in its thread after the jobs so far.

        Returns:
            Done when the engine is closed, with what closing raised; the same each time.
        """
        if self._closed is None:
            self.withdraw()
            self._closed = self._executor.submit(self._finish)
            self._executor.release()
        return self._closed

    def end(self, limit_s: float | None) -> str:
        """Close the engine and wait for that, unless it was given up.

        Args:
            limit_s: the longest wait, and for the job that runs from its begin; None = no wait.

        Returns:
            Why the engine is not closed, "" if it is or was not waited for.
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

    def _finish(self) -> None:
        if self.opened.exception() is None:
            self._close_engine(self.opened.result())


def _log_failure(closed: Future[None]) -> None:
    if error := closed.exception():
        _log.error("closing an engine failed: %s: %s", type(error).__name__, error)


def open_predictor(
    open_runtime: Callable[..., Runtime],
    settings: Mapping[str, Any],
    tracking: TrackerSettings,
    epoch: int,
    progress: ProgressCallback,
) -> VideoPredictor:
    """Open a model and track with it; an exception after the first closes it.

    Args:
        open_runtime: opens the engine.
        settings: the parameters `model` and `ENGINE_OPTIONS`.
        tracking: settings of the tracker.
        epoch: of the first frame.
        progress: called while a better engine is built.
    """
    model = settings["model"]
    path = Path(process.expand(model)) if model else default_model_path()
    options = {name: settings[name] for name in ENGINE_OPTIONS}
    runtime = open_runtime(path, **options, background=True, progress=progress)
    try:
        return VideoPredictor(runtime, tracking, epoch)
    except BaseException:
        try:
            runtime.close()
        except Exception:  # of any backend; the first error matters more
            _log.exception("closing %s failed", runtime.name)
        raise


def close_predictor(predictor: VideoPredictor) -> None:
    """Free its engine."""
    predictor.runtime.close()
