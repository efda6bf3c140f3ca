"""Runs an exported model with TensorRT or TensorRT-RTX on an NVIDIA GPU.

One thread makes every call of CUDA and TensorRT, with the GPU's primary context current on it;
`step` hands it the frame and waits. So a camera may be stepped from any thread, a finalizer can
hand it what is to be freed, and two steps never run at once.

Each camera (each stream of states) has its memory, a stream, and two execution contexts with a CUDA
graph each. The kernels stay on the device in two banks: a step reads one and writes the other, and
there is a context for each bank that can be written. So the addresses of a context never change
after it is made, which is what NVIDIA asks for: a captured graph holds the addresses, and changing
the context it was captured from is undefined. The scratch memory, by far the largest part of a
context, is shared by all of them: only one step runs at a time and it is waited for.

The first step through a context runs directly, which also flushes what TensorRT defers; its graph
is captured after it, and later steps launch the graph: image in, network, results out.

A state also holds a copy of its kernels on the host, which every step brings back anyway. So a
state stays good when its bank has been overwritten, and it can go to another backend.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import traceback
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...types import Detections
from ..base import BackendError, ProgressCallback
from ..executor import EngineExecutor
from ..model_file import INPUTS, ModelFile
from . import cuda
from .buffers import TENSORRT_TYPES, Array, BufferPlan
from .build import TensorRTLibrary, build_from_bytes, load_library
from .build import build_plan as build_plan
from .cuda import CudaGraph, CudaStream, Device, DeviceMemory, PinnedMemory
from .kernel_cache import KernelCache
from .plan_cache import EngineCache, PlanError, PlanKey

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
        progress: told of a build, see `ProgressCallback`; called from another thread.
        workspace_mib: most scratch memory of a layer in MiB; default: TensorRT's own.

    Raises:
        BackendError: TensorRT, the driver or the GPU is missing (told before any long work), or
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
            build_from_bytes,
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
        self.info.check_image(image)
        if state is not None and not isinstance(state, TensorRTState):
            self._engine.check_portable(state)
        job = partial(self._engine.step, image, state)
        results, after = self._executor.submit(job).result()
        return self.info.detections(results), after

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """The kernels of a state, float32 [N, C], to go on with in another backend."""
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
    return EngineCache().holds(_identify(path, library, cuda.find_gpu())[2])


@dataclass(frozen=True, eq=False)
class TensorRTState:
    """What a camera has seen: the kernels of its last frame, on the device and here."""

    kernels: NDArray[np.float32]
    """[N, C]"""
    camera: _Camera
    version: int
    """Names these kernels among all of their camera."""


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
    """Pass progress on, unless nobody waits for the build any more."""
    if cancelled.is_set():
        raise BackendError("the build was cancelled")
    if progress is not None:
        progress(phase, fraction)


def _shut_down(executor: EngineExecutor, engine: _Engine) -> None:
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
) -> _Engine:
    """In the executor's thread: the GPU, the plan from the cache or built, and the engine on it."""
    device = cuda.open_device()
    load = partial(_load_plan, library, model)
    waiting = partial(_report, cancelled, None, "waiting", 0.0)
    try:
        return _Engine(
            library, device, model, key, *EngineCache().obtain(key, build, load, waiting), post
        )
    except BaseException as error:
        # their variables are objects of TensorRT, which have to go before the device
        traceback.clear_frames(error.__traceback__)
        device.close()
        if isinstance(error, PlanError):
            raise BackendError(f"{library.title}: the plan just built {error}") from None
        raise


@dataclass(frozen=True)
class _Loaded:
    """A plan in TensorRT's hands; the runtime must outlive the engine."""

    runtime: Any
    engine: Any
    buffers: BufferPlan


def _load_plan(library: TensorRTLibrary, model: ModelFile, plan: bytes) -> _Loaded:
    """PlanError unless TensorRT takes the plan and it has the tensors of the model."""
    library.last_errors()
    runtime = library.trt.Runtime(library.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError(f"is not accepted: {library.last_errors()}")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {name: engine.get_tensor_dtype(name).name for name in names}
    tensors = {**INPUTS, **model.outputs}
    wanted = {name: TENSORRT_TYPES[dtype] for name, (dtype, _) in tensors.items()}
    if found != wanted:
        raise PlanError(f"must have the tensors {wanted}, found {found}")
    shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
    image, kernels = (model.info.height, model.info.width, 3), tuple(model.state_shape)
    fixed = {"image": image, "previous_kernels": kernels, "kernels": kernels}
    for name, shape in shapes.items():
        if shape != fixed.get(name, shape) or min(shape, default=0) < 0:
            raise PlanError(
                f"must have {name} of {fixed.get(name, 'a static shape')}, found {shape}"
            )
    return _Loaded(runtime, engine, BufferPlan.of(shapes, model.outputs))


class _Camera:
    """Stands for the memory of a camera in its states; when the last of them goes, it is freed."""

    def __init__(self, buffers: _CameraBuffers) -> None:
        self.buffers = buffers
        self.versions: list[int | None] = [None, None]
        """Which kernels are in each bank."""


class _CameraBuffers:
    """Memory, stream, contexts and graphs of a camera. In the executor's thread only."""

    def __init__(self, engine: _Engine) -> None:
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
        return self._engine.buffers.places[name].of(self._host)

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
            raise BackendError(f"{self._engine.library.title} says that it cannot")
        enqueue = partial(self._enqueue, bank)
        self._graphs[bank] = self._device.capture(self.stream, enqueue)

    def free(self) -> None:
        """Give all back; a second time does nothing."""
        graphs = [graph for graph in self._graphs if graph is not None]
        self._graphs = [None, None]
        self._device.free(*graphs)
        self._contexts = []
        self._device.free(*reversed(self._resources))
        self._resources = []
        self._engine.cameras.discard(self)


class _Engine:
    """A plan on a GPU, with the cameras that it serves. In the executor's thread only."""

    def __init__(
        self,
        library: TensorRTLibrary,
        device: Device,
        model: ModelFile,
        key: PlanKey,
        loaded: _Loaded,
        plan_path: Path | None,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self.library = library
        self.device = device
        self.buffers = loaded.buffers
        self.cameras: set[_CameraBuffers] = set()
        self._state_shape = tuple(model.state_shape)
        self._loaded: _Loaded | None = loaded
        self._kernels = KernelCache.of(loaded.engine, key, plan_path)
        self._scratch = self._allocate_scratch()
        self._captures = device.can_capture
        self._versions = itertools.count()
        self._post = post
        gpu = device.gpu
        _log.info(
            "%s on %s with %s (%s), %s through %s, scratch memory %.1f MiB",
            *(model.name, model.precision, library.title, plan_path or "plan not kept"),
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
        found = (getattr(kernels, "dtype", type(kernels).__name__), np.shape(kernels))
        if found != (np.float32, self._state_shape):
            raise ValueError(
                f"state must be a state of this backend or float32 {self._state_shape}, "
                f"found {found[0]} {found[1]}"
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
        """Free all, in the order that TensorRT asks for; a second time does nothing."""
        if self._loaded is None:
            return
        for buffers in list(self.cameras):
            buffers.free()
        self._kernels = None
        self._loaded = None
        self._scratch = None
        self.device.close()
