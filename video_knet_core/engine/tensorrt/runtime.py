"""Runs an exported model with TensorRT or TensorRT-RTX on an NVIDIA GPU.

One thread makes every call of CUDA and TensorRT, with the GPU's primary context current on it;
`step` submits the frame and waits. So a camera may be stepped from any thread, a finalizer can
post what is to be freed, and two steps never run at once.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...types import Detections, check_image
from ..base import BackendError, ProgressCallback
from ..executor import EngineExecutor
from ..model_file import ModelFile
from . import cuda
from .build import TensorRTLibrary, build_plan, load_library
from .gpu_engine import GpuEngine, TensorRTState, load_plan
from .plan_cache import PlanCache, PlanError, PlanKey

EXIT_WAIT_S = 5.0
"""How long the end of a program, the last reference to an engine, or an opening that failed waits
for the thread of the engine."""

_log = logging.getLogger(__name__)


class TensorRTRuntime:
    """A `Runtime` of TensorRT. The state of a camera is a `TensorRTState`.

    The plan comes from the user's cache, or is built first, which takes seconds to minutes.

    Args:
        path: the exported model.
        flavour: "tensorrt" or "tensorrt-rtx"; also the name of the backend.
        progress: called with the progress of a build, from another thread.
        workspace_mib: maximum scratch memory of a layer in MiB; default: TensorRT's own.

    Raises:
        BackendError: TensorRT, the driver or the GPU is missing (raised before any long work), or
            the GPU lacks memory.
        ModelError: the file is missing, corrupt or foreign, or TensorRT cannot read it.
    """

    def __init__(
        self,
        path: str | Path,
        flavour: str = "tensorrt",
        progress: ProgressCallback | None = None,
        workspace_mib: int | None = None,
    ) -> None:
        library = load_library(flavour)
        gpu = cuda.find_gpu()
        model, onnx, key = _identify(path, library, gpu)
        self.name = flavour
        self.info = model.info
        cancelled = threading.Event()
        build = partial(
            build_plan,
            library,
            model.name,
            onnx,
            [target for target in key.targets if target in library.known_targets],
            partial(_report, cancelled, progress),
            workspace_mib,
        )
        executor = EngineExecutor(f"{flavour} {model.name}")
        try:
            self._engine = executor.submit(
                lambda: _open(library, model, key, build, cancelled, executor.post)
            ).result()
        except BaseException:  # Ctrl-C too: the build stops at its next step
            cancelled.set()
            executor.close(EXIT_WAIT_S)
            raise
        self._executor = executor
        self._finalizer = weakref.finalize(self, _shut_down, executor, self._engine)

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, TensorRTState]:
        """Segment one frame; see `Runtime.step`.

        `state` may also be the kernels of another backend, float32 [N, C]: they begin a new stream
        with memory of its own on the GPU, so that only the first step after a change gets them.

        Raises:
            CudaError: a call of the driver failed.
            RuntimeError: the runtime is closed.
        """
        check_image(image, (self.info.height, self.info.width))
        if state is not None and not isinstance(state, TensorRTState):
            self._engine.check_portable(state)
        job = partial(self._engine.step, image, state)
        results, after = self._executor.submit(job).result()
        return Detections.from_outputs(results, self.info.name), after

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """The kernels of a state, float32 [N, C], for another backend."""
        return np.array(state.kernels if isinstance(state, TensorRTState) else state, np.float32)

    def close(self) -> None:
        """Free everything on the GPU; the runtime and its states cannot be used after."""
        if self._finalizer.detach() is not None:
            try:
                self._executor.submit(self._engine.close).result()
            finally:
                self._executor.close()


def open_model(
    backend: str, path: Path, threads: int, progress: ProgressCallback | None
) -> TensorRTRuntime:
    """See `selector.Backend`."""
    return TensorRTRuntime(path, backend, progress)


def engine_is_cached(path: str | Path, flavour: str = "tensorrt") -> bool:
    """Whether opening this model takes seconds, because its plan is in the cache, or a build.

    Raises:
        BackendError: TensorRT, the driver or the GPU is missing.
        ModelError: the file is missing, corrupt or foreign.
    """
    library = load_library(flavour)
    return PlanCache().contains(_identify(path, library, cuda.find_gpu())[2])


def _identify(
    path: str | Path, library: TensorRTLibrary, gpu: cuda.Gpu
) -> tuple[ModelFile, bytes, PlanKey]:
    """The model, its bytes, and the key of its plan on this GPU."""
    library.check_gpu(gpu)
    model = ModelFile.read(path, form="deploy")
    onnx = model.path.read_bytes()
    return model, onnx, plan_key(model, onnx, library, gpu.name, (gpu.target,))


def plan_key(
    model: ModelFile, onnx: bytes, library: TensorRTLibrary, gpu: str, targets: tuple[str, ...]
) -> PlanKey:
    """What a plan of this model depends on.

    A plan of TensorRT is tuned on one kind of GPU. One of TensorRT-RTX runs on every GPU of its
    targets, so that it does not matter where it was built.
    """
    return PlanKey(
        model=model.name,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        flavour=library.flavour,
        version=library.version,
        gpu="" if library.flavour == "tensorrt-rtx" else gpu,
        targets=tuple(sorted(targets)),
        precision=model.precision,
        shape=(model.info.height, model.info.width, 3),
    )


def _report(
    cancelled: threading.Event, progress: ProgressCallback | None, phase: str, fraction: float
) -> None:
    """Pass progress on, unless the build was cancelled."""
    if cancelled.is_set():
        raise BackendError("the build was cancelled")
    if progress is not None:
        progress(phase, fraction)


def _shut_down(executor: EngineExecutor, engine: GpuEngine) -> None:
    """For a runtime that was not closed: called by the garbage collector or at the exit."""
    executor.post(engine.close)
    executor.close(EXIT_WAIT_S)


def _open(
    library: TensorRTLibrary,
    model: ModelFile,
    key: PlanKey,
    build: Callable[[], bytes],
    cancelled: threading.Event,
    post: Callable[[Callable[[], None]], None],
) -> GpuEngine:
    """In the executor's thread: the GPU, the plan from the cache or built, and the engine on it."""
    device = cuda.open_device()
    load = partial(load_plan, library, model)
    waiting = partial(_report, cancelled, None, "waiting", 0.0)
    try:
        return GpuEngine(
            library, device, model, key, *PlanCache().get_or_build(key, build, load, waiting), post
        )
    except BaseException as error:
        # their variables are objects of TensorRT, which have to go before the device
        traceback.clear_frames(error.__traceback__)
        device.close()
        if isinstance(error, PlanError):
            raise BackendError(f"{library.title}: the plan just built {error}") from None
        raise
