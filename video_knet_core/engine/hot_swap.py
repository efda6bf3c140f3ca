"""Frames are served at once by an engine that is at hand, while a better one is built."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ..types import Detections
from .base import ProgressCallback, Runtime

BUILD_THREAD = "engine-build"
"""Name of the threads that build engines."""
LOG_PERIOD_S = 10.0
"""A build that goes on says so in the log this often."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class BuildCancelled(Exception):
    """Raised by the progress callback once nobody wants the engine any more."""


class HotSwapRuntime:
    """A `Runtime` that serves by one runtime until a better one is built, then by that one.

    The better one takes over between two steps, and cameras keep their kernels: each state is
    carried over in its portable form. Its first step is a trial. If the build or the trial fails,
    the log says why, the frame is served all the same, and the present runtime stays for good. The
    replaced one is closed as soon as no step needs it.

    The better runtime is built, used and closed in one thread, because the context of a GPU belongs
    to the thread that made it. The present one runs in the threads that call. Any number of cameras
    may call from threads of their own.

    Args:
        present: serves from the start; it is closed by this object.
        open_better: opens the better one, and may take minutes. It should pass on what the progress
            callback raises, `BuildCancelled`, which is how `close` ends a build early.
        progress: hears of the build and of what came of it, in whatever thread that happens.
    """

    def __init__(
        self,
        present: Runtime,
        open_better: Callable[[ProgressCallback], Runtime],
        progress: ProgressCallback | None = None,
    ) -> None:
        self.info = present.info
        self._progress = progress
        self._logged = time.monotonic()
        self._lock = threading.Lock()
        self._serving = _Engine(present)
        self._better: _Engine | None = None
        self._open = {self._serving}
        self._on_trial = False
        self._closed = False
        self._owner = _Owner(BUILD_THREAD)
        self._owner.submit(lambda: self._build(open_better))

    @property
    def name(self) -> str:
        """The backend that serves now."""
        return self._serving.runtime.name

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        """Segment one frame; see `Runtime.step`."""
        self.info.check_image(image)
        better = self._begin_trial()
        if better is None:
            return self._serve(image, state)
        try:
            return self._try(better, image, state)
        finally:
            self._on_trial = False

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """Kernels of a state; see `Runtime.portable_state`."""
        with self._lock:
            return _portable(state)

    def close(self) -> None:
        """Free the engines. A build that goes on is told to stop, and is not waited for."""
        with self._lock:
            self._closed = True
            engines, self._open = self._open, set()
        for engine in engines:
            engine.close()

    def _build(self, open_better: Callable[[ProgressCallback], Runtime]) -> None:
        """Open the better runtime, in the thread that will own it."""
        try:
            runtime = open_better(self._report)
        except BaseException as error:  # whatever a vendor's library raises, frames go on
            self._owner.end()
            if not self._closed:
                self._give_up("no better engine", error)
            return
        better = _Engine(_OwnedRuntime(runtime, self._owner))
        with self._lock:
            if not self._closed:
                self._better = better
                self._open.add(better)
                return
        _Engine(runtime).close()
        self._owner.end()

    def _report(self, what: str, share: float) -> None:
        if self._closed:
            raise BuildCancelled
        now = time.monotonic()
        if now - self._logged >= LOG_PERIOD_S:
            self._logged = now
            _log.info("%s %.0f %%", what, 100 * share)
        if self._progress:
            self._progress(what, share)

    def _announce(self, what: str) -> None:
        """Report what came of the build; a callback that fails must not take a frame with it."""
        try:
            if self._progress:
                self._progress(what, 1.0)
        except Exception:  # of the caller's own code
            _log.exception("a progress callback failed")

    def _give_up(self, what: str, error: BaseException) -> None:
        """Say why the present runtime stays."""
        reason = f"{what}: {error or type(error).__name__}"
        _log.warning("%s stays: %s", self.name, reason)
        self._announce(reason)

    # --- the swap

    def _begin_trial(self) -> _Engine | None:
        """The better engine, if it waits for its first step and no other thread is at it."""
        if self._better is None:
            return None
        with self._lock:
            if self._on_trial or self._better is None:
                return None
            self._on_trial = True
            return self._better

    def _try(
        self, better: _Engine, image: NDArray[np.uint8], state: Any | None
    ) -> tuple[Detections, Any]:
        """First step of the better engine; if that fails, the present one has to do it."""
        try:
            result = self._step(better, image, state)
        except Exception as error:
            result = self._serve(image, state)  # if this fails too, the frame is at fault
            self._reject(better, error)
        else:
            self._accept(better)
        return result

    def _accept(self, better: _Engine) -> None:
        with self._lock:
            old, self._serving, self._better = self._serving, better, None
            retired = self._retire(old)
        if retired:
            old.close()
        _log.info("%s takes over from %s", better.runtime.name, old.runtime.name)
        self._announce(f"{better.runtime.name} serves")

    def _reject(self, better: _Engine, error: Exception) -> None:
        with self._lock:
            self._better = None
            retired = self._retire(better)
        if retired:
            better.close()
        self._give_up(f"the first step of {better.runtime.name} failed", error)

    # --- steps

    def _serve(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        with self._borrow() as engine:
            return self._step(engine, image, state)

    @contextmanager
    def _borrow(self) -> Iterator[_Engine]:
        """The serving engine; it is not closed meanwhile."""
        with self._lock:
            engine = self._serving
            engine.steps += 1
        try:
            yield engine
        finally:
            with self._lock:
                engine.steps -= 1
                retired = engine is not self._serving and self._retire(engine)
            if retired:
                engine.close()

    def _step(
        self, engine: _Engine, image: NDArray[np.uint8], state: Any | None
    ) -> tuple[Detections, Any]:
        with self._lock:
            value = engine.value_of(state)
        segments, value = engine.runtime.step(image, value)
        new = _State(engine, value)
        with self._lock:
            engine.states.add(new)
        return segments, new

    def _retire(self, engine: _Engine) -> bool:
        """Whether an engine that shall not serve is to be closed: no step runs on it.

        Its states become portable. The lock is held, and is not while it closes: that may hang.
        """
        if engine.steps or engine not in self._open:
            return False
        for state in engine.states:
            state.value, state.engine = _portable(state), None
        self._open.remove(engine)
        return True


@dataclass(eq=False)
class _Engine:
    """A runtime and who needs it."""

    runtime: Runtime
    steps: int = 0
    """Steps that run on it now."""
    states: WeakSet[_State] = field(default_factory=WeakSet)
    """Those of its states that somebody still has."""

    def value_of(self, state: Any | None) -> Any | None:
        """A camera's state, in the form that the runtime takes."""
        if isinstance(state, _State) and state.engine is self:
            return state.value
        return None if state is None else _portable(state)

    def close(self) -> None:
        """Free the runtime; a broken one must not take a frame with it."""
        try:
            self.runtime.close()
        except Exception as error:  # of any backend
            _log.error("closing %s failed: %s: %s", self.runtime.name, type(error).__name__, error)


@dataclass(eq=False)
class _State:
    """State of a camera: its value is the engine's own, or portable if `engine` is None."""

    engine: _Engine | None
    value: Any


def _portable(state: Any) -> NDArray[np.float32]:
    """Kernels [N, C] of a `_State`, or of an array, which holds them already."""
    if not isinstance(state, _State):
        return state
    return state.value if state.engine is None else state.engine.runtime.portable_state(state.value)


class _Owner:
    """A thread that runs jobs in turn. The program may end while it is at one."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def submit(self, job: Callable[[], Result]) -> Future[Result]:
        """Run `job` after those before it."""
        future: Future[Result] = Future()
        self._jobs.put(lambda: _resolve(future, job))
        return future

    def end(self) -> None:
        """End the thread after the jobs so far."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # with it the image and the state of its frame


def _resolve(future: Future[Result], job: Callable[[], Result]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # whoever waits for it has to hear of it
        future.set_exception(error)


class _OwnedRuntime:
    """A `Runtime` all of whose calls happen in the thread that opened it."""

    def __init__(self, runtime: Runtime, owner: _Owner) -> None:
        self.name, self.info = runtime.name, runtime.info
        self._runtime, self._owner = runtime, owner

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        return self._owner.submit(lambda: self._runtime.step(image, state)).result()

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        return self._owner.submit(lambda: self._runtime.portable_state(state)).result()

    def close(self) -> None:
        closed = self._owner.submit(self._runtime.close)
        self._owner.end()
        self._owner.thread.join()
        closed.result()
