"""Which backend runs a model: `open_runtime(path)` takes the best that works here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..installation import pip_install, shared_file
from .base import BackendError, ProgressCallback, Runtime, Size
from .hot_swap import HotSwapRuntime, NativeSizesRuntime, close_safely
from .model_file import ModelFile
from .model_index import find_model
from .self_test import MAX_DIFFERENCE, SAME_SEGMENTS, check_agreement, expected_classes

DEFAULT_MODEL = "street.onnx"

_log = logging.getLogger(__name__)
REASONS_LOG = f"{__name__}.reasons"
"""Logger of the backends that were not taken, and why; apart, so that a program can hide it."""
_log_reason = logging.getLogger(REASONS_LOG).info


@dataclass(frozen=True)
class Backend:
    """A module that runs models, imported when it is needed.

    It has a function `open_model(backend, path, threads, progress, size)`, which takes the
    backend's name, a model file, the CPU threads of one step, a callback for a long build and one
    of the model's native sizes (None is the first), returns a `Runtime`, and raises BackendError
    where the backend cannot run.
    """

    module: str
    requires: str
    """How to install what the module imports."""
    on_gpu: bool = False
    """Its results are always compared with the CPU's (`self_test.check_agreement`); those of the
    others only by "auto"."""
    bfloat16: bool = False
    """It computes in bfloat16: "auto" takes it only if it finds the same segments."""
    builds: bool = False
    """A model has to be built first, which takes minutes, unless the module's function
    `engine_is_cached(path, backend, size)` returns True. It may raise BackendError too."""

    def load(self) -> Any:
        """The module; BackendError if it cannot be imported."""
        try:
            return import_module(self.module, __package__)
        except ImportError as error:
            raise BackendError(f"cannot be imported ({error}): {self.requires}") from None


BACKENDS: dict[str, Backend] = {
    "tensorrt": Backend(".tensorrt.runtime", "see docs/how-to/engine.md", on_gpu=True, builds=True),
    "tensorrt-rtx": Backend(
        ".tensorrt.runtime", "see docs/how-to/engine.md", on_gpu=True, builds=True
    ),
    "onnxruntime-cuda": Backend(".onnx_runtime", pip_install("onnxruntime-gpu"), on_gpu=True),
    "onnxruntime-cpu": Backend(".onnx_runtime", pip_install("onnxruntime")),
    "openvino": Backend(".openvino_runtime", pip_install("'video_knet_ros[openvino]'")),
    "openvino-bf16": Backend(
        ".openvino_runtime", pip_install("'video_knet_ros[openvino]'"), bfloat16=True
    ),
    "torch": Backend(".torch_runtime", pip_install("'video_knet_ros[export]'")),
}
"""Of two that are equally fast "auto" takes the first. Torch runs checkpoints, the others exported
models."""
REFERENCE = "onnxruntime-cpu"
"""The results of the others are compared with its own."""
GPU_BACKENDS = tuple(name for name, backend in BACKENDS.items() if backend.on_gpu)


def open_runtime(
    path: str | Path,
    backend: str = "auto",
    threads: int = 2,
    background: bool = False,
    progress: ProgressCallback | None = None,
    size: Size | None = None,
) -> Runtime:
    """Open a model with the named backend, or with the fastest that works here.

    With "auto", those that work and pass the self-test are measured, once for each native size:
    see `speed`.

    Args:
        path: an exported model, or a checkpoint (.safetensors), which only "torch" can run; or
            the name of a model (`model_index.find_model`).
        backend: "auto" or one of `BACKENDS`.
        threads: CPU threads of one step.
        background: with "auto", do not wait for an engine that must be built first: the fastest
            backend that is available serves until then; see `HotSwapRuntime`. With any, do not
            wait for the engine of a further native size either; see `NativeSizesRuntime`.
        progress: called with the progress of such a build, in the thread that builds.
        size: run only that one of the model's native sizes (height, width).

    Raises:
        ModelError: the file is missing or not a model of this project.
        BackendError: the backend (with "auto": every backend) cannot run here, or it runs on a GPU
            and its results are not those of the CPU (`self_test.check_agreement`).
        ValueError: there is no backend of that name.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"expected backend 'auto' or one of {list(BACKENDS)}, got {backend!r}")
    path = find_model(path)
    names = backends_for(path) if backend == "auto" else [backend]

    def open_one(size: Size | None, progress: ProgressCallback | None) -> Runtime:
        selector = _BackendSelector(path, threads, progress, size)
        return selector.open_fastest(names, background) if names[1:] else selector.open_first(names)

    runtime = open_one(size, progress)
    if size is None and "torch" not in names:
        sizes = ModelFile.read(path).config.sizes
        if len(sizes) > 1:
            return NativeSizesRuntime(runtime, sizes, open_one, background, progress)
    return runtime


def backends_for(path: str | Path) -> list[str]:
    """The backends that "auto" tries for a file, in the order of `BACKENDS`."""
    is_checkpoint = Path(path).suffix == ".safetensors"
    return [name for name in BACKENDS if (name == "torch") == is_checkpoint]


class _BackendSelector:
    """Opens a model by one of several backends, and keeps the reason why each other failed."""

    def __init__(
        self, path: Path, threads: int, progress: ProgressCallback | None, size: Size | None
    ) -> None:
        self._path = path
        self._threads = threads
        self._progress = progress
        self._size = size
        self._failures: dict[str, str] = {}

    def open_first(self, names: Sequence[str]) -> Runtime:
        """By the first of `names` that works, which may take minutes; BackendError if none does."""
        for name in names:
            if runtime := self._open(name, compare=BACKENDS[name].on_gpu):
                self._log_choice(name)
                return runtime
        failures = "; ".join(f"{name}: {reason}" for name, reason in self._failures.items())
        raise BackendError(f"cannot run {self._path}: {failures}")

    def open_fastest(self, names: Sequence[str], background: bool) -> Runtime:
        """By the fastest of `names`; BackendError if none works.

        With `background`: by the fastest that needs no build, if any works; those that precede it
        in `names` and need one follow in a thread of their own, and are not measured.
        """
        # a file that is at fault ends it here
        ModelFile.read(self._path, form="deploy", size=self._size)
        slow = [name for name in names if background and self._needs_build(name)]
        taken = self._take_fastest([name for name in names if name not in slow])
        if taken is None:
            return self.open_first(slow)
        name, runtime, note = taken
        better = slow and [other for other in slow if names.index(other) < names.index(name)]
        self._log_choice(name, note, better)
        if not better:
            return runtime
        return HotSwapRuntime(runtime, partial(self._open_better, better), self._progress)

    def _open_better(self, names: Sequence[str], progress: ProgressCallback) -> Runtime:
        return _BackendSelector(self._path, self._threads, progress, self._size).open_first(names)

    def _take_fastest(self, names: Sequence[str]) -> tuple[str, Runtime, str] | None:
        """Name, engine and a note for the log; None if none of `names` works.

        A backend on a GPU that did not work when times were cached is tried again: its memory may
        have been full then.
        """
        from . import speed  # psutil takes long to import

        file = speed.MeasuredTimes(self._path, self._threads, names, self._size)
        engines: dict[str, Runtime] = {}
        try:
            if times := file.read():
                self._open_all([n for n in names if BACKENDS[n].on_gpu and n not in times], engines)
                name = speed.fastest(times, names)
                if not engines and (runtime := self._open(name)):
                    return name, runtime, f"cached choice: {speed.text(times)}"
            self._open_all([n for n in names if n not in (*engines, *self._failures)], engines)
            if not engines:
                return None
            times = speed.measure(engines) if len(engines) > 1 else {}
            times = file.write(times) if times else {}
            name = speed.fastest(times, [name for name in names if name in engines])
            return name, engines.pop(name), speed.text(times)
        finally:
            for runtime in engines.values():
                close_safely(runtime)

    def _open_all(self, names: Sequence[str], engines: dict[str, Runtime]) -> None:
        """Add those of `names` that work."""
        for name in names:
            if runtime := self._open(name):
                engines[name] = runtime

    def _needs_build(self, name: str) -> bool:
        backend = BACKENDS[name]
        try:
            cached = backend.builds and backend.load().engine_is_cached(
                self._path, name, self._size
            )
            return backend.builds and not cached
        except BackendError:
            return False  # opening it reports the reason, and soon

    def _open(self, name: str, compare: bool = True) -> Runtime | None:
        """The engine, if it works and, with `compare`, passes the self-test."""
        progress = self._progress
        named = progress and (lambda what, done: progress(f"{name}: {what}", done))
        try:
            module = BACKENDS[name].load()
            runtime = module.open_model(name, self._path, self._threads, named, self._size)
            if compare and name != REFERENCE:
                self._test(BACKENDS[name], runtime)
            return runtime
        except BackendError as error:
            self._failures[name] = str(error)
            return None

    def _test(self, backend: Backend, runtime: Runtime) -> None:
        """Close it, with a BackendError, unless it computes what the CPU does.

        Without ONNX Runtime, float32 on the CPU is not tested.
        """
        limit = SAME_SEGMENTS if backend.bfloat16 else MAX_DIFFERENCE
        try:
            try:
                expected = self._expected
            except BackendError:
                if backend.on_gpu or backend.bfloat16:
                    raise
            else:
                check_agreement(runtime, expected, limit)
        except BaseException:
            close_safely(runtime)
            raise

    @cached_property
    def _expected(self) -> NDArray[np.int64]:
        return expected_classes(self._path, self._threads, self._size)

    def _log_choice(self, name: str, note: str = "", slow: Sequence[str] = ()) -> None:
        note = note and f" ({note})"
        pending = f", while {' or '.join(slow)} is prepared" if slow else ""
        size = "" if self._size is None else " at {} x {}".format(*self._size)
        _log.info("%s runs%s on %s%s%s", self._path, size, name, note, pending)
        for failed, reason in self._failures.items():
            _log_reason("not %s: %s", failed, reason)


def default_model_path() -> Path:
    """The shipped model: of the package, else found by its name (`model_index.find_model`).

    Raises:
        ModelError: it is in none of them; the message lists the places.
    """
    try:
        return shared_file(f"models/{DEFAULT_MODEL}")
    except FileNotFoundError:
        return find_model(Path(DEFAULT_MODEL).stem)
