"""Frames are served at once by an engine that is available, while another is opened: a better one,
or one of another native size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from ..types import Detections, check_image
from .base import ModelInfo, ProgressCallback, Runtime, Size, State
from .executor import EngineExecutor, run_in_thread

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


class NativeSizesRuntime:
    """A `Runtime` of a model with several native sizes: one engine for each that images come in.

    It is opened by the first image of its size. In the background, images are resized for the
    engine of the first size until then, and for good if it cannot be opened: the log has the
    reason, and `info` lacks the size. Otherwise that step opens it, and raises if that fails.
    Cameras keep their states, as kernels depend on no size.

    Args:
        first: the engine of the first size; it is closed by this object.
        sizes: all of them.
        open_size: opens an engine, and may take minutes. It should pass on `BuildCancelled` from
            the progress callback, which is how `close` ends a build.
        background: do not wait for an engine to open.
        progress: called with the progress of a build and the reason if it fails, from any thread.
    """

    def __init__(
        self,
        first: Runtime,
        sizes: tuple[Size, ...],
        open_size: Callable[[Size, ProgressCallback], Runtime],
        background: bool = False,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.info: ModelInfo = replace(first.info, sizes=sizes)
        self._sizes = sizes
        self._first = self._serving = first
        self._open_size = open_size
        self._background = background
        self._progress = progress
        self._others: dict[Size, Future[Runtime]] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def name(self) -> str:
        """The backend that served last."""
        return self._serving.name

    def step(self, image: NDArray[np.uint8], state: State | None) -> tuple[Detections, State]:
        """Segment one frame; see `Runtime.step`."""
        check_image(image, *self._sizes)
        engine = self._serving = self._engine_of((image.shape[0], image.shape[1]))
        height, width = engine.info.height, engine.info.width
        if image.shape[:2] != (height, width):
            image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
        return engine.step(image, state)

    def close(self) -> None:
        """Free the engines. One that is being opened is closed later, and is not waited for."""
        with self._lock:
            self._closed, others = True, list(self._others.values())
        for other in others:
            other.add_done_callback(_close_opened)
        self._first.close()

    def _engine_of(self, size: Size) -> Runtime:
        """The engine that serves images of a size now."""
        if size == self._sizes[0]:
            return self._first
        with self._lock:
            if self._closed:
                raise RuntimeError("the runtime is closed")
            if size not in self._others:
                job = partial(self._open, size)
                self._others[size] = run_in_thread(job, f"engine-{size[0]}x{size[1]}")
            opened = self._others[size]
        if self._background and (not opened.done() or opened.exception()):
            return self._first
        return opened.result()

    def _open(self, size: Size) -> Runtime:
        """Open an engine, in a thread of its own."""
        try:
            return self._open_size(size, self._report)
        except BaseException as error:  # whatever a vendor's library raises
            if self._background and not self._closed:
                self._give_up(size, error)
            raise

    def _give_up(self, size: Size, error: BaseException) -> None:
        """Report why images are resized for the first engine."""
        reason = f"no engine of {size[0]} x {size[1]}: {error or type(error).__name__}"
        _log.warning("%s", reason)
        with self._lock:
            left = tuple(other for other in self.info.sizes if other != size)
            self.info = replace(self.info, sizes=left)
        if self._progress:
            self._progress(reason, 1.0)

    def _report(self, phase: str, fraction: float) -> None:
        if self._closed:
            raise BuildCancelled
        if self._progress:
            self._progress(phase, fraction)


def _close_opened(engine: Future[Runtime]) -> None:
    if not engine.exception():
        close_safely(engine.result())


def close_safely(runtime: Runtime) -> None:
    """Close an engine that may be at fault, as when its device is lost; log what it raises."""
    try:
        runtime.close()
    except Exception as error:
        _log.warning("closing %s failed: %s", runtime.name, error)
