"""A plan on a GPU: its memory, its execution context and its CUDA graph.

All tensors lie in one piece of memory, inputs first, on the host as on the device. So a step is one
copy in, the network, one copy out. The kernels of the previous frame go in with the image, of whose
size they are a few percent: nothing of a camera stays on the GPU.

The first step runs directly, which also flushes what TensorRT defers. Then a graph of it is
captured, which later steps launch. A graph holds the addresses of the tensors, and changing the
context it was captured from is undefined, so both stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import BackendError
from ..model_file import INPUTS, ModelFile
from .build import TensorRTLibrary
from .cuda import Device
from .plan_cache import KERNELS_SUFFIX, PlanError, PlanKey, read_plan, write_plan

_TENSORRT_TYPES = {"uint8": "UINT8", "float32": "FLOAT", "bool": "BOOL", "int64": "INT64"}
"""NumPy's names of the types of tensors -> TensorRT's."""
_ALIGNMENT = 256
"""Of a tensor's address in bytes, as TensorRT requires."""

_log = logging.getLogger(__name__)


class GpuEngine:
    """A plan that is ready to run. It belongs to the thread of its device.

    Args:
        plan: what `TensorRTLibrary.build_plan` returned for the model.
        path: its file; None if it is not cached.

    Raises:
        PlanError: TensorRT does not accept the plan, or it has other tensors than the model.
        BackendError: the GPU lacks memory.
    """

    def __init__(
        self,
        library: TensorRTLibrary,
        device: Device,
        model: ModelFile,
        key: PlanKey,
        plan: bytes,
        path: Path | None,
    ) -> None:
        self._library = library
        self._device = device
        self._outputs = tuple(model.outputs)
        # the runtime must outlive the engine
        self._runtime, self._engine = _deserialize(library, plan)
        offsets, size = {}, 0
        tensors = _tensors(self._engine, model)
        for name, dtype in tensors.items():
            offsets[name] = size
            size += -(-dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        self._results_start = offsets[self._outputs[0]]
        self._address = device.allocate(size)
        self._host = device.pinned(size)
        self._views: dict[str, NDArray] = {
            name: np.ndarray(dtype.shape, dtype.base, self._host, offsets[name])
            for name, dtype in tensors.items()
        }
        self._kernels = _KernelCache(self._engine, key, path)
        self._context = self._new_context(offsets)
        self._graph: Any = None
        self._has_run = False
        gpu = device.gpu
        _log.info(
            "%s (%s) on %s with %s, %s through %s, scratch memory %.1f MiB",
            *(model.name, model.precision, library.title, path or "plan not cached"),
            *(f"{gpu.name} ({gpu.target})", device.library),
            getattr(self._engine, "device_memory_size_v2", 0) / 2**20,  # since TensorRT 10.1
        )
        if not device.can_capture:
            _log.info("%s has no CUDA graphs: kernels are launched one by one", device.library)

    def _new_context(self, offsets: Mapping[str, int]) -> Any:
        self._library.last_errors()
        context = self._kernels.create_context()
        if context is None:
            raise BackendError(f"no execution context: {self._library.last_errors()}")
        for name, offset in offsets.items():
            if not context.set_tensor_address(name, self._address + offset):
                raise BackendError(f"tensor {name}: {self._library.last_errors()}")
        return context

    def step(self, inputs: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Run one frame: the inputs of the model -> its outputs, copied."""
        for name, value in inputs.items():
            np.copyto(self._views[name], value)
        try:
            if self._graph is None:
                self._enqueue()
            else:
                self._device.launch(self._graph)
        finally:  # after a failure too: nothing may still be writing when this returns
            self._device.synchronize()
        results = {name: self._views[name].copy() for name in self._outputs}
        if not self._has_run:
            self._has_run = True
            self._capture()
            self._kernels.save()
        return results

    def _enqueue(self) -> None:
        """Queue the copy in, the network, and the copy out."""
        start = self._results_start
        self._device.upload(self._address, self._host[:start])
        self._library.last_errors()
        if not self._context.execute_async_v3(self._device.stream):
            raise BackendError(f"the step failed: {self._library.last_errors()}")
        self._device.download(self._host[start:], self._address + start)

    def _capture(self) -> None:
        """Record the step as a graph, if that can be done."""
        if not self._device.can_capture:
            return
        capturable = getattr(self._context, "is_stream_capturable", None)
        try:
            if capturable is not None and not capturable(self._device.stream):
                raise BackendError(f"{self._library.title} cannot capture this model")
            self._graph = self._device.capture(self._enqueue)
        except BackendError as error:  # its text alone: a log that keeps it would keep this engine
            _log.warning("no CUDA graphs, kernels are launched one by one: %s", str(error))

    def close(self) -> None:
        """Free all, in the order that TensorRT requires; a second time does nothing."""
        if not hasattr(self, "_engine"):
            return
        if self._graph is not None:
            self._device.destroy(self._graph)
        del self._context, self._kernels, self._engine, self._runtime
        self._device.close()


def _deserialize(library: TensorRTLibrary, plan: bytes) -> tuple[Any, Any]:
    """Runtime and engine of a plan; PlanError unless TensorRT accepts it."""
    library.last_errors()
    runtime = library.trt.Runtime(library.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError(f"is not accepted: {library.last_errors()}")
    return runtime, engine


def _tensors(engine: Any, model: ModelFile) -> dict[str, np.dtype]:
    """Type and shape of each tensor, inputs first; PlanError unless they are those of the model."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    got = {name: engine.get_tensor_dtype(name).name for name in names}
    types = {name: dtype for name, (dtype, _) in {**INPUTS, **model.outputs}.items()}
    expected = {name: _TENSORRT_TYPES[dtype] for name, dtype in types.items()}
    if got != expected:
        raise PlanError(f"has other tensors: expected {expected}, got {got}")
    shapes = {name: tuple(engine.get_tensor_shape(name)) for name in types}
    image, kernels = (model.info.height, model.info.width, 3), tuple(model.state_shape)
    fixed = {"image": image, "previous_kernels": kernels, "kernels": kernels}
    for name, shape in shapes.items():
        if shape != fixed.get(name, shape) or min(shape, default=0) < 0:
            raise PlanError(
                f"has another {name}: expected {fixed.get(name, 'a static shape')}, got {shape}"
            )
    return {name: np.dtype((dtype, shapes[name])) for name, dtype in types.items()}


class _KernelCache:
    """The kernels that TensorRT-RTX compiles for the GPU as it loads a plan, beside the plan.

    TensorRT has none of these, and then this does nothing but create the context.
    """

    def __init__(self, engine: Any, key: PlanKey, plan_path: Path | None) -> None:
        self._engine = engine
        self._key = key
        self._path = None if plan_path is None else plan_path.with_suffix(KERNELS_SUFFIX)
        self._config: Any = None
        self._cache: Any = None
        if hasattr(engine, "create_runtime_config"):
            self._config = engine.create_runtime_config()
        if hasattr(self._config, "create_runtime_cache"):
            self._cache = self._config.create_runtime_cache()
            self._saved = self._restore()
            self._config.set_runtime_cache(self._cache)

    def create_context(self) -> Any:
        """A new execution context of the engine, which takes its kernels from here."""
        options = [] if self._cache is None else [self._config]
        return self._engine.create_execution_context(*options)

    def _restore(self) -> bytes:
        """Load what was cached; what does not fit is compiled again."""
        if self._path is None or not self._path.is_file():
            return b""
        try:
            cached = read_plan(self._path)[1]
        except PlanError as error:
            _log.info("compiling kernels again: %s %s", self._path, str(error))
            return b""
        if self._cache.deserialize(cached):
            return cached
        _log.info("compiling kernels again: %s is of another GPU, driver or version", self._path)
        return b""

    def save(self) -> None:
        """Write what is new."""
        if self._cache is None or self._path is None:
            return
        kernels = bytes(self._cache.serialize())
        if kernels == self._saved:
            return
        try:
            write_plan(self._path, self._key, kernels)
        except OSError as error:
            _log.warning("compiled kernels cannot be cached in %s: %s", self._path, str(error))
