"""Which backend runs a model: `open_runtime(path)` takes the best that works here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from ..installation import shared_file
from .base import BackendError, ModelError, ProgressCallback, Runtime
from .hot_swap import HotSwapRuntime, close_safely

DEFAULT_MODEL = "street_lite0.onnx"

_log = logging.getLogger(__name__)
REASONS_LOG = f"{__name__}.reasons"
"""Logger of the backends that were not taken, and why; apart, so that a program can hide it."""
_log_reason = logging.getLogger(REASONS_LOG).info


@dataclass(frozen=True)
class Backend:
    """A module that runs models, imported when it is needed.

    It has a function `open_model(backend, path, threads, progress)`, which takes the backend's
    name, a model file, the CPU threads of one step and a callback for a long build, returns a
    `Runtime`, and raises BackendError where the backend cannot run.
    """

    module: str
    requires: str
    """How to install what the module imports."""
    on_gpu: bool = False
    """Its results are compared with the CPU's before it is used (`self_test.check_agreement`)."""
    builds: bool = False
    """A model has to be built first, which takes minutes, unless the module's function
    `engine_is_cached(path, backend)` returns True. It may raise BackendError too."""

    def load(self) -> Any:
        """The module; BackendError if it cannot be imported."""
        try:
            return import_module(self.module, __package__)
        except ImportError as error:
            raise BackendError(f"cannot be imported ({error}): {self.requires}") from None


BACKENDS: dict[str, Backend] = {
    "tensorrt": Backend(".tensorrt.runtime", "see docs/engine.md", on_gpu=True, builds=True),
    "tensorrt-rtx": Backend(".tensorrt.runtime", "see docs/engine.md", on_gpu=True, builds=True),
    "onnxruntime-cuda": Backend(".onnx_runtime", "pip install onnxruntime-gpu", on_gpu=True),
    "onnxruntime-cpu": Backend(".onnx_runtime", "pip install onnxruntime"),
    "openvino": Backend(".openvino_runtime", "pip install 'video_knet_ros[openvino]'"),
    "torch": Backend(".torch_runtime", "pip install 'video_knet_ros[export]'"),
}
"""Best first. Torch runs checkpoints, the others exported models."""
GPU_BACKENDS = tuple(name for name, backend in BACKENDS.items() if backend.on_gpu)


def open_runtime(
    path: str | Path,
    backend: str = "auto",
    threads: int = 2,
    background: bool = False,
    progress: ProgressCallback | None = None,
) -> Runtime:
    """Open a model with the named backend, or with the best that works here.

    Args:
        path: an exported model, or a checkpoint (.safetensors), which only "torch" can run.
        backend: "auto" or one of `BACKENDS`.
        threads: CPU threads of one step.
        background: with "auto", do not wait for an engine that must be built first: the best
            backend that is available serves until then; see `HotSwapRuntime`.
        progress: called with the progress of such a build, in the thread that builds.

    Raises:
        ModelError: the file is missing or not a model of this project.
        BackendError: the backend (with "auto": every backend) cannot run here, or it runs on a GPU
            and its results are not those of the CPU (`self_test.check_agreement`).
        ValueError: there is no backend of that name.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"expected backend 'auto' or one of {list(BACKENDS)}, got {backend!r}")
    chain = _FallbackChain(Path(path), threads)
    if backend != "auto":
        return chain.open([backend], progress)
    return chain.open(backends_for(path), progress, background)


def backends_for(path: str | Path) -> list[str]:
    """The backends that "auto" tries for a file, best first."""
    is_checkpoint = Path(path).suffix == ".safetensors"
    return [name for name in BACKENDS if (name == "torch") == is_checkpoint]


class _FallbackChain:
    """Tries one backend after the other to open a model, and keeps the reason of each failure."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._failures: list[str] = []

    def open(
        self, names: Sequence[str], progress: ProgressCallback | None, background: bool = False
    ) -> Runtime:
        """By the first of `names` that works, which may take minutes; BackendError if none does.

        With `background`: by the first that needs no build, if any works; those before it follow in
        a thread of their own.
        """
        slow = []
        for name in names:
            if background and self._needs_build(name):
                slow.append(name)
            elif runtime := self._open(name, progress):
                self._log_choice(name, slow)
                return self._hot_swap(runtime, slow, progress) if slow else runtime
        if slow:
            return self.open(slow, progress)
        raise BackendError(f"cannot run {self._path}: " + "; ".join(self._failures))

    def _hot_swap(
        self, present: Runtime, slow: Sequence[str], progress: ProgressCallback | None
    ) -> Runtime:
        better = _FallbackChain(self._path, self._threads)
        return HotSwapRuntime(present, partial(better.open, slow), progress)

    def _needs_build(self, name: str) -> bool:
        backend = BACKENDS[name]
        try:
            return backend.builds and not backend.load().engine_is_cached(self._path, name)
        except BackendError:
            return False  # opening it reports the reason, and soon

    def _open(self, name: str, progress: ProgressCallback | None) -> Runtime | None:
        backend = BACKENDS[name]
        named = progress and (lambda what, done: progress(f"{name}: {what}", done))
        try:
            runtime = backend.load().open_model(name, self._path, self._threads, named)
            if backend.on_gpu:
                self._test(runtime)
            return runtime
        except BackendError as error:
            self._failures.append(f"{name}: {error}")
            return None

    def _test(self, runtime: Runtime) -> None:
        """Close it, with a BackendError, unless it computes what the CPU does."""
        from .self_test import check_agreement

        try:
            check_agreement(runtime, self._path, self._threads)
        except BaseException:
            close_safely(runtime)
            raise

    def _log_choice(self, name: str, slow: Sequence[str]) -> None:
        pending = f", while {' or '.join(slow)} is prepared" if slow else ""
        _log.info("%s runs on %s%s", self._path, name, pending)
        for failure in self._failures:
            _log_reason("not %s", failure)


def default_model_path() -> Path:
    """The shipped model: beside the sources, else in the share folder of a ROS or Python prefix.

    Raises:
        ModelError: it is in none of them; the message lists the places.
    """
    try:
        return shared_file(f"models/{DEFAULT_MODEL}")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from None
