"""A plan on a GPU, and what each camera has there. All in the thread of the executor.

Each camera (each stream of states) has its memory, a stream, and two execution contexts with a CUDA
graph each. The kernels stay on the device in two banks: a step reads one and writes the other, and
there is a context for each bank that can be written. So the addresses of a context never change
after it is made, which is what NVIDIA requires: a captured graph holds the addresses, and changing
the context it was captured from is undefined. The scratch memory, by far the largest part of a
context, is shared by all of them: only one step runs at a time and it is waited for.

The first step through a context runs directly, which also flushes what TensorRT defers; its graph
is captured after it, and later steps launch the graph: image in, network, results out.

A state also holds a copy of its kernels on the host, which every step brings back anyway. So a
state stays valid when its bank has been overwritten, and it can go to another backend.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import BackendError
from ..model_file import INPUTS, ModelFile
from .buffers import TENSORRT_TYPES, Array, BufferPlan
from .build import TensorRTLibrary
from .cuda import CudaGraph, CudaStream, Device, DeviceMemory, PinnedMemory
from .plan_cache import KernelCache, PlanError, PlanKey

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedPlan:
    """A deserialized plan; the runtime must outlive the engine."""

    runtime: Any
    engine: Any
    buffers: BufferPlan


def load_plan(library: TensorRTLibrary, model: ModelFile, plan: bytes) -> LoadedPlan:
    """PlanError unless TensorRT takes the plan and it has the tensors of the model."""
    library.last_errors()
    runtime = library.trt.Runtime(library.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError(f"is not accepted: {library.last_errors()}")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    got = {name: engine.get_tensor_dtype(name).name for name in names}
    tensors = {**INPUTS, **model.outputs}
    expected = {name: TENSORRT_TYPES[dtype] for name, (dtype, _) in tensors.items()}
    if got != expected:
        raise PlanError(f"has other tensors: expected {expected}, got {got}")
    shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
    image, kernels = (model.info.height, model.info.width, 3), tuple(model.state_shape)
    fixed = {"image": image, "previous_kernels": kernels, "kernels": kernels}
    for name, shape in shapes.items():
        if shape != fixed.get(name, shape) or min(shape, default=0) < 0:
            raise PlanError(
                f"has another {name}: expected {fixed.get(name, 'a static shape')}, got {shape}"
            )
    return LoadedPlan(runtime, engine, BufferPlan(shapes, model.outputs))


@dataclass(frozen=True, eq=False)
class TensorRTState:
    """The kernels of a camera's last frame, on the device and on the host."""

    kernels: NDArray[np.float32]
    """[N, C]"""
    camera: _Camera
    version: int
    """Names these kernels among all of their camera."""


class _Camera:
    """Stands for the memory of a camera in its states; when the last of them goes, it is freed."""

    def __init__(self, buffers: _CameraBuffers) -> None:
        self.buffers = buffers
        self.versions: list[int | None] = [None, None]
        """Which kernels are in each bank."""


class _CameraBuffers:
    """Memory, stream, contexts and graphs of a camera. In the executor's thread only."""

    def __init__(self, engine: GpuEngine) -> None:
        self._engine = engine
        self._device = device = engine.device
        plan = engine.buffers
        self._resources: list[DeviceMemory | PinnedMemory | CudaStream] = []
        try:
            self._resources.append(memory := device.allocate(plan.size))
            self._resources.append(pinned := device.pinned(plan.size))
            self._resources.append(stream := device.stream())
            self._base, self.stream = memory.address, stream
            self._host = pinned.array
            contexts = [engine.new_context(plan.addresses(self._base, bank)) for bank in (0, 1)]
        except BaseException:
            device.free(*reversed(self._resources))
            raise
        self._contexts: list[Any] = contexts
        self.warm = [False, False]
        """Whether the context that writes a bank has run."""
        self._graphs: list[CudaGraph | None] = [None, None]

    def view(self, name: str) -> Array:
        """A tensor in pinned memory."""
        return self._engine.buffers.view(self._host, name)

    def upload_bank(self, bank: int, kernels: Array) -> None:
        """Queue a copy of kernels from the host to a bank."""
        np.copyto(self.view(f"bank {bank}"), kernels)
        part = self._engine.buffers.bank(bank)
        self._device.upload(self._base + part.start, self._host[part], self.stream)

    def run(self, bank: int) -> None:
        """Image and flag in, network, results out, kernels into `bank`; wait for it."""
        graph = self._graphs[bank]
        try:
            if graph is None:
                self._enqueue(bank)
            else:
                self._device.launch(graph, self.stream)
        finally:  # after a failure too: nothing may still be writing when this returns
            self._device.synchronize(self.stream)

    def _enqueue(self, bank: int) -> None:
        plan, device = self._engine.buffers, self._device
        into, out = plan.inputs, plan.results(bank)
        device.upload(self._base + into.start, self._host[into], self.stream)
        self._engine.library.last_errors()
        if not self._contexts[bank].execute_async_v3(self.stream.handle):
            raise BackendError(f"the step failed: {self._engine.library.last_errors()}")
        device.download(self._host[out], self._base + out.start, self.stream)

    def capture(self, bank: int) -> None:
        """Record what `run` does, which launches it from then on; BackendError if it cannot be."""
        capturable = getattr(self._contexts[bank], "is_stream_capturable", None)
        if capturable is not None and not capturable(self.stream.handle):
            raise BackendError(f"{self._engine.library.title} cannot capture this model")
        enqueue = partial(self._enqueue, bank)
        self._graphs[bank] = self._device.capture(self.stream, enqueue)

    def free(self) -> None:
        """Free all; a second time does nothing."""
        graphs = [graph for graph in self._graphs if graph is not None]
        self._graphs = [None, None]
        self._device.free(*graphs)
        self._contexts = []
        self._device.free(*reversed(self._resources))
        self._resources = []
        self._engine.cameras.discard(self)


class GpuEngine:
    """A plan on a GPU, with the cameras that it serves. In the executor's thread only."""

    def __init__(
        self,
        library: TensorRTLibrary,
        device: Device,
        model: ModelFile,
        key: PlanKey,
        loaded: LoadedPlan,
        plan_path: Path | None,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self.library = library
        self.device = device
        self.buffers = loaded.buffers
        self.cameras: set[_CameraBuffers] = set()
        self._state_shape = tuple(model.state_shape)
        self._loaded: LoadedPlan | None = loaded
        self._kernels = KernelCache.of(loaded.engine, key, plan_path)
        self._scratch = self._allocate_scratch()
        self._captures = device.can_capture
        self._versions = itertools.count()
        self._post = post
        gpu = device.gpu
        _log.info(
            "%s on %s with %s (%s), %s through %s, scratch memory %.1f MiB",
            *(model.name, model.precision, library.title, plan_path or "plan not cached"),
            *(f"{gpu.name} ({gpu.target})", device.library),
            (self._scratch.size if self._scratch else 0) / 2**20,
        )
        if not device.can_capture:
            _log.info("%s has no CUDA graphs: kernels are launched one by one", device.library)

    def _allocate_scratch(self) -> DeviceMemory | None:
        """Memory for what lies between layers, for all contexts; None if each has its own."""
        engine = self._engine
        if not hasattr(engine, "device_memory_size_v2"):  # before TensorRT 10.1
            return None
        return self.device.allocate(max(int(engine.device_memory_size_v2), 1))

    @property
    def _engine(self) -> Any:
        if self._loaded is None:
            raise RuntimeError("the engine is closed")
        return self._loaded.engine

    def new_context(self, addresses: Mapping[str, int]) -> Any:
        """An execution context that reads and writes there for all its life."""
        strategies = self.library.trt.ExecutionContextAllocationStrategy
        strategy = strategies.STATIC if self._scratch is None else strategies.USER_MANAGED
        self.library.last_errors()
        context = self._engine.create_execution_context(
            strategy if self._kernels is None else self._kernels.context_config(strategy)
        )
        if context is None:
            raise BackendError(f"no execution context: {self.library.last_errors()}")
        if self._scratch is not None:
            context.set_device_memory(self._scratch.address, self._scratch.size)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(f"tensor {name}: {self.library.last_errors()}")
        return context

    def check_portable(self, kernels: Any) -> None:
        """ValueError unless `kernels` are the state of another backend. For any thread."""
        got = (getattr(kernels, "dtype", type(kernels).__name__), np.shape(kernels))
        if got != (np.float32, self._state_shape):
            raise ValueError(
                f"state: expected one of this backend or float32 {self._state_shape}, "
                f"got {got[0]} {got[1]}"
            )

    def step(
        self, image: NDArray[np.uint8], state: TensorRTState | Array | None
    ) -> tuple[dict[str, Array], TensorRTState]:
        """Run one frame; its results, copied, and the new state."""
        camera = self._camera_of(state)
        buffers = camera.buffers
        source = self._bank_of(camera, state)
        target = 1 - source
        camera.versions[target] = None  # about to be overwritten; the old state's bank is not
        np.copyto(buffers.view("image"), image)
        buffers.view("has_previous")[:] = state is not None
        buffers.run(target)
        results = {
            name: buffers.view(f"bank {target}" if name == "kernels" else name).copy()
            for name in self.buffers.outputs
        }
        version = camera.versions[target] = next(self._versions)
        if not buffers.warm[target]:
            self._after_first_run(buffers, target)
        return results, TensorRTState(results["kernels"], camera, version)

    def _camera_of(self, state: TensorRTState | Array | None) -> _Camera:
        """That of the state, if it is one of this engine; else a new one."""
        if isinstance(state, TensorRTState) and state.camera.buffers in self.cameras:
            return state.camera
        buffers = _CameraBuffers(self)
        self.cameras.add(buffers)
        camera = _Camera(buffers)
        # the last state may go in any thread, and in the middle of anything
        weakref.finalize(camera, self._post, buffers.free).atexit = False
        return camera

    def _bank_of(self, camera: _Camera, state: TensorRTState | Array | None) -> int:
        """The bank with the kernels of the state, brought there if they are not on the device."""
        if isinstance(state, TensorRTState) and state.version in camera.versions:
            return camera.versions.index(state.version)
        if state is None:  # zeros: what was in the memory might be NaN, and NaN times 0 is NaN
            kernels: Array = np.zeros(self._state_shape, np.float32)
        else:
            kernels = state.kernels if isinstance(state, TensorRTState) else state
        camera.versions[0] = None
        camera.buffers.upload_bank(0, kernels)
        return 0

    def _after_first_run(self, buffers: _CameraBuffers, bank: int) -> None:
        """Capture the graph of a bank, and keep what was compiled for it."""
        buffers.warm[bank] = True
        if self._captures:
            try:
                buffers.capture(bank)
            except BackendError as error:  # its text alone: a log that keeps it would keep us
                self._captures = False
                _log.warning("no CUDA graphs, kernels are launched one by one: %s", str(error))
        if self._kernels is not None:
            self._kernels.save()

    def close(self) -> None:
        """Free all, in the order that TensorRT requires; a second time does nothing."""
        if self._loaded is None:
            return
        for buffers in list(self.cameras):
            buffers.free()
        self._kernels = None
        self._loaded = None
        self._scratch = None
        self.device.close()
