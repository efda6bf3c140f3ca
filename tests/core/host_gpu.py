"""A GPU and a TensorRT that compute on the host, and that complain of what a real one would.

The device's memory is the host's, so that addresses are real and results can be compared bit for
bit. Memory starts as 0xff (NaN). Work on a stream runs when the stream is waited for, and is only
recorded while it captures. A plan holds the ONNX file, and its engine runs that with ONNX Runtime.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import threading
import weakref
from types import ModuleType

import numpy as np
import onnxruntime

from video_knet_core.engine.tensorrt import cuda
from video_knet_core.engine.tensorrt.cuda import CudaError, Device, Gpu

PLAN = b"HOSTPLAN"
TYPES = {
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(bool)": ("BOOL", np.bool_),
    "tensor(int64)": ("INT64", np.int64),
}


class HostDevice(Device):
    """Belongs to the thread that made it; `failing` names methods that raise."""

    library = "host"
    can_capture = True

    @classmethod
    def find_gpu(cls) -> Gpu:
        return Gpu("Host GPU", (8, 9))

    def __init__(self, log: list[str], failing: set[str]) -> None:
        self.log = log
        self.failing = failing
        self.left = False
        self.live = 0
        """How many resources are given out."""
        self.engines: weakref.WeakSet = weakref.WeakSet()
        self._thread = threading.current_thread()
        self._memory: dict[int, np.ndarray] = {}
        self._queue: list = []
        self._recording: list | None = None
        super().__init__()

    def _open(self) -> int:
        self._owned.callback(self._leave)
        return 1

    def _leave(self) -> None:
        self._enter("leave")
        assert not self.engines, "an engine outlives its device"
        self.left = True

    def _enter(self, name: str) -> None:
        assert threading.current_thread() is self._thread, f"{name} from another thread"
        assert not self.left, f"{name} after the context was given back"
        if name in self.failing:
            raise CudaError(f"{name}: CUDA_ERROR_OUT_OF_MEMORY")

    def _give(self) -> None:
        self.live += 1
        self._owned.callback(self._take)

    def _take(self) -> None:
        self._enter("free")
        self.live -= 1

    def view(self, address: int, size: int) -> np.ndarray:
        """Bytes on the device; they must lie in one allocation."""
        for start, array in self._memory.items():
            if start <= address and address + size <= start + len(array):
                return array[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not on the device")

    def submit(self, work) -> None:
        """Queue work, or record it if the stream captures."""
        (self._queue if self._recording is None else self._recording).append(work)

    def allocate(self, size: int) -> int:
        self._enter("allocate")
        backing = np.full(size + 256, 0xFF, np.uint8)
        skip = -backing.ctypes.data % 256
        array = backing[skip : skip + size]
        self._memory[array.ctypes.data] = array
        self._give()
        return array.ctypes.data

    def pinned(self, size: int) -> np.ndarray:
        self._enter("pinned")
        self._give()
        return np.full(size, 0xFF, np.uint8)

    def upload(self, address: int, source: np.ndarray) -> None:
        self._enter("upload")
        assert source.base is not None, "not pinned"
        target = self.view(address, source.nbytes)
        self.submit(lambda: np.copyto(target, source))

    def download(self, target: np.ndarray, address: int) -> None:
        self._enter("download")
        source = self.view(address, target.nbytes)
        self.submit(lambda: np.copyto(target, source))

    def synchronize(self) -> None:
        assert self._recording is None, "waits for a stream that captures"
        while self._queue:
            self._queue.pop(0)()
        self._enter("synchronize")  # a fault in the work is raised when it is waited for

    def capture(self, work) -> list:
        self._enter("capture")
        self.log.append("capture")
        self._recording = recorded = []
        try:
            work()
        finally:
            self._recording = None
        self.live += 1
        return recorded

    def launch(self, graph: list) -> None:
        self._enter("launch")
        assert graph, "a graph that was freed"
        self.log.append("launch")
        self._queue += graph

    def destroy(self, graph: list) -> None:
        self._enter("destroy")
        self.live -= 1
        graph.clear()


class HostGpu:
    """Puts the host's device and TensorRT in the place of real ones, and logs their calls."""

    def __init__(self, monkeypatch, flavour: str = "tensorrt", version: str = "10.3.0") -> None:
        self.log: list[str] = []
        self.failing: set[str] = set()
        self.devices: list[HostDevice] = []
        self.builds = 0
        self.trt = host_tensorrt(self, version)
        names = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
        monkeypatch.setitem(sys.modules, names[flavour], self.trt)
        monkeypatch.setattr(cuda, "find_gpu", HostDevice.find_gpu)
        monkeypatch.setattr(cuda, "open_device", self._open_device)

    def _open_device(self) -> HostDevice:
        self.devices.append(HostDevice(self.log, self.failing))
        return self.devices[-1]

    @property
    def device(self) -> HostDevice:
        return self.devices[-1]


class Flag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    FP16 = 0
    TF32 = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = Severity


class IProgressMonitor:
    pass


def host_tensorrt(gpu: HostGpu, version: str) -> ModuleType:
    """The module that stands for TensorRT of that version."""
    trt = ModuleType("host_tensorrt")
    trt.__version__ = version
    trt.NetworkDefinitionCreationFlag = Flag
    trt.BuilderFlag = BuilderFlag
    trt.MemoryPoolType = MemoryPoolType
    trt.ILogger = ILogger
    trt.IProgressMonitor = IProgressMonitor

    class Config:
        def __init__(self):
            self.flags = {BuilderFlag.TF32}
            self.limits = {}

        def clear_flag(self, flag):
            self.flags.discard(flag)

        def set_memory_pool_limit(self, pool, size):
            self.limits[pool] = size

    class Builder:
        def __init__(self, logger):
            self._logger = logger

        def create_network(self, flags):
            gpu.network_flags = flags
            return {}

        def create_builder_config(self):
            return Config()

        def build_serialized_network(self, network, config):
            gpu.builds += 1
            gpu.config = config
            monitor = config.progress_monitor
            monitor.phase_start("building", None, 2)
            goes_on = all(monitor.step_complete("building", step) for step in range(2))
            monitor.phase_finish("building")
            if not goes_on or "build" in gpu.failing:
                self._logger.log(Severity.ERROR, "the build ended")
                return None
            return PLAN + network["onnx"]

    class Parser:
        num_errors = 0

        def __init__(self, network, logger):
            self._network = network

        def parse(self, data):
            self._network["onnx"] = data
            return True

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, plan):
            assert gpu.device._thread is threading.current_thread()
            if not plan.startswith(PLAN):
                self._logger.log(Severity.ERROR, "magic tag")
                return None
            return HostEngine(gpu, plan[len(PLAN) :])

    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, Parser, Runtime
    return trt


class HostEngine:
    device_memory_size_v2 = 1 << 20

    def __init__(self, gpu: HostGpu, data: bytes) -> None:
        self.gpu = gpu
        self.device = gpu.device
        self.device.engines.add(self)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data, options)
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.nodes = self.inputs | {node.name: node for node in self.session.get_outputs()}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index):
        return list(self.nodes)[index]

    def get_tensor_dtype(self, name):
        class DataType(enum.Enum):
            UINT8, FLOAT, BOOL, INT64 = range(4)

        return DataType[TYPES[self.nodes[name].type][0]]

    def get_tensor_shape(self, name):
        return self.nodes[name].shape

    def create_execution_context(self):
        if "context" in self.gpu.failing:
            return None
        return HostContext(self)


class HostContext:
    """Must not be changed after it has run, as a graph may have been captured from it."""

    def __init__(self, engine: HostEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.has_run = False

    def set_tensor_address(self, name, address):
        assert threading.current_thread() is self.engine.device._thread
        assert not self.has_run, "a context was changed that a graph may come from"
        assert address % 256 == 0
        self.addresses[name] = address
        return True

    def _tensor(self, name):
        node = self.engine.nodes[name]
        dtype = TYPES[node.type][1]
        size = int(np.prod(node.shape)) * np.dtype(dtype).itemsize
        memory = self.engine.device.view(self.addresses[name], size)
        assert memory.ctypes.data == self.addresses[name]
        pointer = ctypes.cast(self.addresses[name], ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(pointer, (size,)).view(dtype).reshape(node.shape)

    def execute_async_v3(self, handle):
        engine = self.engine
        engine.device._enter("execute")
        assert set(self.addresses) == set(engine.nodes), "a tensor has no address"
        if "enqueue" in engine.gpu.failing:
            return False
        self.has_run = True
        engine.gpu.log.append("enqueue")
        assert handle == engine.device.stream
        engine.device.submit(self._compute)
        return True

    def _compute(self):
        engine = self.engine
        inputs = {name: self._tensor(name).copy() for name in engine.inputs}
        names = [name for name in engine.nodes if name not in inputs]
        for name, value in zip(names, engine.session.run(names, inputs), strict=True):
            self._tensor(name)[...] = value
