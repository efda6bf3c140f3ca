"""Runs an exported model with TensorRT or TensorRT-RTX on an NVIDIA GPU.

One thread makes every call of CUDA and TensorRT, with the GPU's primary context current on it;
a step submits the frame and waits. So a camera may be stepped from any thread, and two steps never
run at once.
"""

from __future__ import annotations

import hashlib
import threading
import traceback
import weakref
from functools import partial
from pathlib import Path

from numpy.typing import NDArray

from ..base import BackendError, ProgressCallback, Size
from ..executor import EngineExecutor
from ..model_file import ExportedModelRuntime, ModelFile
from . import cuda
from .build import TensorRTLibrary
from .gpu_engine import GpuEngine
from .plan_cache import PlanCache, PlanError, PlanKey

_EXIT_WAIT_S = 5.0
"""How long the end of a program, the last reference to an engine, or an opening that failed waits
for the thread of the engine."""


class TensorRTRuntime(ExportedModelRuntime):
    """A `Runtime` of TensorRT.

    The plan comes from the user's cache, or is built first, which takes seconds to minutes.

    Args:
        path: the exported model.
        flavour: "tensorrt" or "tensorrt-rtx"; also the name of the backend.
        progress: called with the progress of a build, from another thread.
        size: one of the model's native sizes; None is the first.

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
        size: Size | None = None,
    ) -> None:
        opening = _Opening(path, flavour, progress, size)
        super().__init__(flavour, opening.model)
        executor = EngineExecutor(f"{flavour} {opening.model.name}")
        try:
            self._engine = executor.submit(opening.run).result()
        except BaseException:  # Ctrl-C too: the build stops at its next step
            opening.cancelled.set()
            executor.close(_EXIT_WAIT_S)
            raise
        self._executor = executor
        self._finalizer = weakref.finalize(self, _shut_down, executor, self._engine)

    def _infer(self, inputs: dict[str, NDArray]) -> dict[str, NDArray]:
        return self._executor.submit(partial(self._engine.step, inputs)).result()

    def close(self) -> None:
        """Free everything on the GPU; the runtime cannot be used after."""
        if self._finalizer.detach() is not None:
            try:
                self._executor.submit(self._engine.close).result()
            finally:
                self._executor.close()


def open_model(
    backend: str,
    path: Path,
    threads: int,
    progress: ProgressCallback | None,
    size: Size | None,
) -> TensorRTRuntime:
    """See `selector.Backend`."""
    return TensorRTRuntime(path, backend, progress, size)


def engine_is_cached(path: str | Path, flavour: str = "tensorrt", size: Size | None = None) -> bool:
    """Whether opening this model takes seconds, because its plan is in the cache, or a build.

    Args:
        size: one of the model's native sizes; None is the first.

    Raises:
        BackendError: TensorRT, the driver or the GPU is missing.
        ModelError: the file is missing, corrupt or foreign.
    """
    return PlanCache().contains(_Opening(path, flavour, size=size).key)


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


class _Opening:
    """The way from a model file to its engine on this machine; `run` in the executor's thread."""

    def __init__(
        self,
        path: str | Path,
        flavour: str,
        progress: ProgressCallback | None = None,
        size: Size | None = None,
    ) -> None:
        self._library = TensorRTLibrary(flavour)
        gpu = cuda.find_gpu()
        self._library.check_gpu(gpu)
        self.model = ModelFile.read(path, form="deploy", size=size)
        self._onnx = self.model.content or self.model.path.read_bytes()
        self.key = plan_key(self.model, self._onnx, self._library, gpu.name, (gpu.target,))
        self._progress = progress
        self.cancelled = threading.Event()

    def run(self) -> GpuEngine:
        """The GPU, the plan from the cache or built, and the engine on it."""
        device = cuda.open_device()
        open_plan = partial(GpuEngine, self._library, device, self.model, self.key)
        try:
            return PlanCache().get_or_build(self.key, self._build, open_plan, self._check)
        except BaseException as error:
            # their variables are objects of TensorRT, which have to go before the device
            traceback.clear_frames(error.__traceback__)
            device.close()
            if isinstance(error, PlanError):
                title = self._library.title
                raise BackendError(f"{title}: the plan just built {error}") from None
            raise

    def _build(self) -> bytes:
        targets = [target for target in self.key.targets if target in self._library.known_targets]
        return self._library.build_plan(self.model.name, self._onnx, targets, self._report)

    def _report(self, phase: str, fraction: float) -> None:
        """Pass progress on, unless the build was cancelled."""
        self._check()
        if self._progress is not None:
            self._progress(phase, fraction)

    def _check(self) -> None:
        if self.cancelled.is_set():
            raise BackendError("the build was cancelled")


def _shut_down(executor: EngineExecutor, engine: GpuEngine) -> None:
    """For a runtime that was not closed: called by the garbage collector or at the exit."""
    executor.submit(engine.close)
    executor.close(_EXIT_WAIT_S)
