"""Which backend runs a model: `open_runtime(path)` takes the best that works here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..installation import shared_file
from .base import BackendError, ModelError, ProgressCallback, Runtime

DEFAULT_MODEL = "street_lite0.onnx"

_log = logging.getLogger(__name__)
REASONS_LOG = f"{__name__}.reasons"
"""Logger of the backends that were not taken, and why; apart, so that a program can hide it."""
_log_reason = logging.getLogger(REASONS_LOG).info


@dataclass(frozen=True)
class Backend:
    """How models are opened by one backend."""

    open: Callable[[Path, int, ProgressCallback | None], Runtime]
    """Takes a model file, the CPU threads of one step, and who hears of a long build. Raises
    BackendError where the backend cannot run."""
    is_quick: Callable[[Path], bool] = lambda path: True
    """False if `open` has to build an engine for this file first, which takes minutes. It may raise
    BackendError too."""


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
            backend that is at hand serves until then; see `HotSwapRuntime`.
        progress: hears of such a build, in the thread that does it.

    Raises:
        ModelError: the file is missing or not a model of this project.
        BackendError: the backend (with "auto": every backend) cannot run here, or it is one of
            `GPU_BACKENDS` and sees something else than the CPU does (`trial.check_agreement`).
        ValueError: there is no backend of that name.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {list(BACKENDS)}, found {backend!r}")
    ladder = _Ladder(Path(path), threads)
    if backend != "auto":
        return ladder.open_first([backend], progress)
    names = backends_for(path)
    if not background:
        return ladder.open_first(names, progress)
    return ladder.open_in_background(names, progress)


def backends_for(path: str | Path) -> list[str]:
    """The backends that "auto" tries for a file, best first."""
    is_checkpoint = Path(path).suffix == ".safetensors"
    return [name for name in BACKENDS if (name == "torch") == is_checkpoint]


class _Ladder:
    """Tries one backend after the other, and remembers why those that do not work do not."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._failures: list[str] = []

    def open_first(self, names: Sequence[str], progress: ProgressCallback | None) -> Runtime:
        """By the first of `names` that works, which may take minutes; BackendError if none does."""
        for name in names:
            if runtime := self._open(name, progress):
                self._tell(name)
                return runtime
        raise BackendError(f"cannot run {self._path}: " + "; ".join(self._failures))

    def open_in_background(
        self, names: Sequence[str], progress: ProgressCallback | None
    ) -> Runtime:
        """By the first that is quick; those before it follow in a thread of their own."""
        slow = []
        for name in names:
            if not self._is_quick(name):
                slow.append(name)
            elif runtime := self._open(name, progress):
                self._tell(name, slow)
                return self._swapping(runtime, slow, progress) if slow else runtime
        return self.open_first(slow, progress)

    def _swapping(
        self, present: Runtime, slow: Sequence[str], progress: ProgressCallback | None
    ) -> Runtime:
        from .hot_swap import HotSwapRuntime

        later = _Ladder(self._path, self._threads)
        try:
            return HotSwapRuntime(present, partial(later.open_first, slow), progress)
        except BaseException:  # no thread can be started
            present.close()
            raise

    def _is_quick(self, name: str) -> bool:
        try:
            return BACKENDS[name].is_quick(self._path)
        except BackendError:
            return True  # opening it tells the reason, and soon

    def _open(self, name: str, progress: ProgressCallback | None) -> Runtime | None:
        named = progress and (lambda what, share: progress(f"{name}: {what}", share))
        try:
            runtime = BACKENDS[name].open(self._path, self._threads, named)
            if name in GPU_BACKENDS:
                self._try(runtime)
            return runtime
        except BackendError as error:
            self._failures.append(f"{name}: {error}")
            return None

    def _try(self, runtime: Runtime) -> None:
        """Close it, with a BackendError, unless it computes what the CPU does."""
        from .self_test import check_agreement

        try:
            check_agreement(runtime, self._path, self._threads)
        except BaseException:
            try:
                runtime.close()
            except Exception as error:  # of a device that is lost: the trial has the reason
                _log.warning("closing %s failed: %s", runtime.name, error)
            raise

    def _tell(self, name: str, slow: Sequence[str] = ()) -> None:
        meanwhile = f", while {' or '.join(slow)} is prepared" if slow else ""
        _log.info("%s runs on %s%s", self._path, name, meanwhile)
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


def _open_tensorrt(
    path: Path, threads: int, progress: ProgressCallback | None, flavour: str
) -> Runtime:
    try:
        from .tensorrt.runtime import TensorRTRuntime
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error})") from None
    return TensorRTRuntime(path, flavour, progress)


def _has_engine(path: Path, flavour: str) -> bool:
    try:
        from .tensorrt.runtime import engine_is_cached
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error})") from None
    return engine_is_cached(path, flavour)


def _open_onnx(path: Path, threads: int, progress: ProgressCallback | None, cuda: bool) -> Runtime:
    try:
        from .onnx_runtime import OnnxRuntime
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error}): pip install onnxruntime") from None
    return OnnxRuntime(path, threads, cuda)


def _open_openvino(path: Path, threads: int, progress: ProgressCallback | None) -> Runtime:
    from .openvino_runtime import OpenVINORuntime

    return OpenVINORuntime(path, threads)


def _open_torch(path: Path, threads: int, progress: ProgressCallback | None) -> Runtime:
    try:
        from .torch_runtime import TorchRuntime
    except ImportError as error:
        raise BackendError(f"needs {error.name}: pip install 'video_knet_ros[export]'") from None
    return TorchRuntime.open(path, threads)


def _tensorrt(flavour: str) -> Backend:
    return Backend(partial(_open_tensorrt, flavour=flavour), partial(_has_engine, flavour=flavour))


BACKENDS: dict[str, Backend] = {
    "tensorrt": _tensorrt("tensorrt"),
    "tensorrt-rtx": _tensorrt("tensorrt-rtx"),
    "onnxruntime-cuda": Backend(partial(_open_onnx, cuda=True)),
    "onnxruntime-cpu": Backend(partial(_open_onnx, cuda=False)),
    "openvino": Backend(_open_openvino),
    "torch": Backend(_open_torch),
}
"""Best first. Torch runs checkpoints, the others exported models."""
GPU_BACKENDS = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
"""Those that run on a GPU."""
