"""One face for every engine: `open_runtime(path)` gives a `Runtime` whose `step` runs one frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
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

    def check_image(self, image: NDArray[np.uint8]) -> None:
        """ValueError unless `image` is uint8 [height, width, 3]."""
        wanted = (self.height, self.width, 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise ValueError(f"image must be uint8 {wanted}, found {image.dtype} {image.shape}")

    def check_kernels(self, *results: NDArray[np.floating]) -> None:
        """FloatingPointError if the model returned NaN or infinite values."""
        if not all(np.isfinite(result).all() for result in results):
            raise FloatingPointError(f"{self.name} returned kernels that are not finite")


class Runtime(Protocol):
    """An engine with a model in it. State goes in and comes out: one engine serves many cameras."""

    name: str
    """The backend, as a user would name it, for example "onnxruntime-cpu"."""
    info: ModelInfo

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """Segment one frame.

        Args:
            image: uint8 [height, width, 3], RGB, exactly `info.height` x `info.width`.
            state: what the last step of this camera returned; None on its first frame.

        Returns:
            The segments and the new state, which belongs to the caller and is opaque to it.

        Raises:
            ValueError: the image has another shape or dtype.
            FloatingPointError: the model returned NaN or infinite values; the old state is intact.
        """
        ...

    def close(self) -> None:
        """Free the engine; it cannot be used after."""
        ...


def open_runtime(path: str | Path, backend: str = "auto", threads: int = 2) -> Runtime:
    """Open a model with the named backend, or with the best that works here.

    Args:
        path: an exported model, or a checkpoint (.safetensors), which only "torch" can run.
        backend: "auto" or one of `BACKENDS`.
        threads: CPU threads of one step.

    Raises:
        ModelError: the file is missing or not a model of this project.
        BackendError: the backend (with "auto": every backend) cannot run here.
        ValueError: there is no backend of that name.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {list(BACKENDS)}, found {backend!r}")
    failures = []
    is_checkpoint = Path(path).suffix == ".safetensors"
    automatic = [name for name in BACKENDS if (name == "torch") == is_checkpoint]
    for name in automatic if backend == "auto" else [backend]:
        try:
            runtime = BACKENDS[name](Path(path), threads)
        except BackendError as error:
            failures.append(f"{name}: {error}")
            continue
        _log.info("%s runs on %s%s", path, name, "".join(f"; not {f}" for f in failures))
        return runtime
    raise BackendError(f"nothing can run {path}: " + "; ".join(failures))


def default_model_path() -> Path:
    """The shipped model: beside the sources, else in the share folder of a ROS or Python prefix.

    Raises:
        ModelError: it is in none of them; the message lists the places.
    """
    try:
        return shared_file(f"models/{DEFAULT_MODEL}")
    except FileNotFoundError as error:
        raise ModelError(str(error)) from None


def _open_onnx(path: Path, threads: int, cuda: bool) -> Runtime:
    try:
        from .onnx_runtime import OnnxRuntime
    except ImportError as error:
        raise BackendError(f"cannot be imported ({error}): pip install onnxruntime") from None
    return OnnxRuntime(path, threads, cuda)


def _open_torch(path: Path, threads: int) -> Runtime:
    try:
        from .torch_runtime import TorchRuntime
    except ImportError as error:
        raise BackendError(f"needs {error.name}: pip install 'video_knet_ros[export]'") from None
    return TorchRuntime.open(path, threads)


BACKENDS: dict[str, Callable[[Path, int], Runtime]] = {
    "onnxruntime-cuda": partial(_open_onnx, cuda=True),
    "onnxruntime-cpu": partial(_open_onnx, cuda=False),
    "torch": _open_torch,
}
"""Best first; an opener raises BackendError where its backend cannot run. Torch runs checkpoints,
the others exported models."""
