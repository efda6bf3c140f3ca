"""One face for every engine: `open_runtime(path)` gives a `Runtime` whose `step` runs one frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..installation import shared_file
from ..types import ClassTable, Segments

DEFAULT_MODEL = "street_lite0.onnx"

_log = logging.getLogger(__name__)


Progress = Callable[[str, float], None]
"""Hears of long work: what is being done, and the share of it that is finished, 0..1."""


class ModelError(ValueError):
    """A missing, corrupt or foreign model file; the message names the file and what is wrong."""


class BackendError(RuntimeError):
    """No backend here can run the model; the message says why, for each that was tried."""


@dataclass(frozen=True)
class ModelInfo:
    """What a user of an engine must know of its model."""

    name: str
    classes: ClassTable
    height: int
    """Input size in pixels; the caller resizes."""
    width: int
    task: str = "panoptic"
    """One of `config.TASKS`."""
    checkpoint_sha256: str = ""
    """Hex digest of the checkpoint, which names of models do not tell apart; empty if unknown."""

    def check_image(self, image: NDArray[np.uint8]) -> None:
        """ValueError unless `image` is uint8 [height, width, 3]."""
        wanted = (self.height, self.width, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 {wanted}, found {image.dtype} {image.shape}")

    def segments(self, results: Mapping[str, NDArray]) -> Segments:
        """Segments of the outputs of the deploy form, by name.

        Raises:
            FloatingPointError: the model returned NaN or infinite kernels or embeddings.
        """
        kernels = results["kernels"]
        embeddings = results.get("embeddings", np.zeros((len(kernels), 0), np.float32))
        if not (np.isfinite(embeddings).all() and np.isfinite(kernels).all()):
            raise FloatingPointError(f"{self.name} returned kernels that are not finite")
        return Segments(
            map=results["segment_map"],
            class_ids=results["class_ids"],
            scores=results["scores"],
            areas=results["areas"],
            embeddings=embeddings,
            kernels=kernels,
            masks=results.get("masks"),
        )


class Runtime(Protocol):
    """An engine with a model in it. State goes in and comes out: one engine serves many cameras."""

    info: ModelInfo

    @property
    def name(self) -> str:
        """The backend, as a user would name it, for example "onnxruntime-cpu"."""
        ...

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """Segment one frame.

        Args:
            image: uint8 [height, width, 3], RGB, exactly `info.height` x `info.width`.
            state: what the last step of this camera returned, or the same in the portable form (see
                `portable_state`) from any backend; None on its first frame.

        Returns:
            The segments and the new state, which belongs to the caller and is opaque to it.

        Raises:
            ValueError: the image has another shape or dtype.
            FloatingPointError: the model returned NaN or infinite values; the old state is intact.
        """
        ...

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """A state that `step` returned, as kernels [N, C] that every backend takes."""
        ...

    def close(self) -> None:
        """Free the engine; it cannot be used after. A second time does nothing."""
        ...


@dataclass(frozen=True)
class Backend:
    """How models are opened by one backend."""

    open: Callable[[Path, int, Progress | None], Runtime]
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
    progress: Progress | None = None,
) -> Runtime:
    """Open a model with the named backend, or with the best that works here.

    Args:
        path: an exported model, or a checkpoint (.safetensors), which only "torch" can run.
        backend: "auto" or one of `BACKENDS`.
        threads: CPU threads of one step.
        background: with "auto", do not wait for an engine that must be built first: the best
            backend that is at hand serves until then; see `SwappingRuntime`.
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

    def open_first(self, names: Sequence[str], progress: Progress | None) -> Runtime:
        """By the first of `names` that works, which may take minutes; BackendError if none does."""
        for name in names:
            if runtime := self._open(name, progress):
                self._tell(name)
                return runtime
        raise BackendError(f"cannot run {self._path}: " + "; ".join(self._failures))

    def open_in_background(self, names: Sequence[str], progress: Progress | None) -> Runtime:
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
        self, present: Runtime, slow: Sequence[str], progress: Progress | None
    ) -> Runtime:
        from .background import SwappingRuntime

        later = _Ladder(self._path, self._threads)
        try:
            return SwappingRuntime(present, partial(later.open_first, slow), progress)
        except BaseException:  # no thread can be started
            present.close()
            raise

    def _is_quick(self, name: str) -> bool:
        try:
            return BACKENDS[name].is_quick(self._path)
        except BackendError:
            return True  # opening it tells the reason, and soon

    def _open(self, name: str, progress: Progress | None) -> Runtime | None:
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
        from .trial import check_agreement

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
        failures = "".join(f"; not {failure}" for failure in self._failures)
        _log.info("%s runs on %s%s%s", self._path, name, meanwhile, failures)


def default_model_path() -> Path:
    """The shipped model: beside the sources, else in the share folder of a ROS or Python prefix.

    Raises:
        ModelError: it is in none of them; the message lists the places.
    """
    try:
        return shared_file(f"models/{DEFAULT_MODEL}")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from None


def _open_tensorrt(path: Path, threads: int, progress: Progress | None, flavour: str) -> Runtime:
    try:
        from .tensorrt import TensorRTRuntime
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error})") from None
    return TensorRTRuntime(path, flavour, progress)


def _has_engine(path: Path, flavour: str) -> bool:
    try:
        from .tensorrt import engine_is_cached
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error})") from None
    return engine_is_cached(path, flavour)


def _open_onnx(path: Path, threads: int, progress: Progress | None, cuda: bool) -> Runtime:
    try:
        from .onnx_runtime import OnnxRuntime
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error}): pip install onnxruntime") from None
    return OnnxRuntime(path, threads, cuda)


def _open_openvino(path: Path, threads: int, progress: Progress | None) -> Runtime:
    from .openvino_runtime import OpenVINORuntime

    return OpenVINORuntime(path, threads)


def _open_torch(path: Path, threads: int, progress: Progress | None) -> Runtime:
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
