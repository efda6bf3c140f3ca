"""Frames are served at once by an engine that is available, while a better one is built."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..types import Detections
from .base import ProgressCallback, Runtime, State
from .executor import EngineExecutor

_log = logging.getLogger(__name__)


class BuildCancelled(Exception):
    """Raised by the progress callback when the engine is not needed any more."""


class HotSwapRuntime:
    """A `Runtime` that serves by one runtime until a better one is built, then by that one.

    The better one takes over between two steps, and cameras keep their states. If the build or its
    first step fails, the log has the reason, the frame is served all the same, and the present
    runtime stays for good. The replaced one is closed.

    Cameras may call from threads of their own; their steps run one after the other.

    Args:
        present: serves from the start; it is closed by this object.
        open_better: opens the better one, in a thread of its own, and may take minutes. It should
            pass on `BuildCancelled` from the progress callback, which is how `close` ends a build.
        progress: called with the progress and the result of the build, from any thread.
    """

    def __init__(
        self,
        present: Runtime,
        open_better: Callable[[ProgressCallback], Runtime],
        progress: ProgressCallback | None = None,
    ) -> None:
        self.info = present.info
        self._present = present
        self._better: Runtime | None = None
        self._step_lock = threading.Lock()
        self._cancelled = False
        self._progress = progress
        self._executor = EngineExecutor("engine-build")
        self._built = self._executor.submit(lambda: self._build(open_better))

    @property
    def name(self) -> str:
        """The backend that serves now."""
        return self._present.name

    def step(self, image: NDArray[np.uint8], state: State | None) -> tuple[Detections, State]:
        """Segment one frame; see `Runtime.step`."""
        with self._step_lock:
            if (better := self._better) is None:
                return self._present.step(image, state)
            try:
                result = better.step(image, state)
            except Exception as error:
                result = self._present.step(image, state)  # raises if the frame is at fault
                self._give_up(f"the first step of {better.name} failed", error)
                replaced = better
            else:
                _log.info("%s takes over from %s", better.name, self._present.name)
                replaced, self._present = self._present, better
                self._announce(f"{better.name} serves")
            self._better = None
            self._executor.submit(lambda: close_safely(replaced))  # not here: it may hang
            self._executor.close(timeout_s=0)
            return result

    def close(self) -> None:
        """Free the engines. A build in progress is cancelled, and is not waited for."""
        self._cancelled = True
        if self._executor.is_open:
            self._executor.submit(self._close_better)
        self._executor.close(timeout_s=None if self._built.done() else 0)
        self._present.close()

    def _build(self, open_better: Callable[[ProgressCallback], Runtime]) -> None:
        try:
            self._better = open_better(self._report)  # after a `close` the next job closes it
        except BaseException as error:  # whatever a vendor's library raises, frames are served
            self._executor.close()
            if not self._cancelled:
                self._give_up("no better engine", error)

    def _close_better(self) -> None:
        if self._better is not None:
            close_safely(self._better)

    def _report(self, phase: str, fraction: float) -> None:
        if self._cancelled:
            raise BuildCancelled
        if self._progress:
            self._progress(phase, fraction)

    def _give_up(self, what: str, error: BaseException) -> None:
        """Report why the present runtime stays."""
        reason = f"{what}: {error or type(error).__name__}"
        _log.warning("%s stays: %s", self.name, reason)
        self._announce(reason)

    def _announce(self, what: str) -> None:
        """Report the result of the build; a callback that fails must not cost a frame."""
        try:
            if self._progress:
                self._progress(what, 1.0)
        except Exception:  # of the caller's own code
            _log.exception("a progress callback failed")


def close_safely(runtime: Runtime) -> None:
    """Close an engine that may be at fault, as when its device is lost; log what it raises."""
    try:
        runtime.close()
    except Exception as error:
        _log.warning("closing %s failed: %s", runtime.name, error)
