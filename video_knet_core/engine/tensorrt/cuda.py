"""The only file that touches device memory: PyCUDA where it is installed, else cuda-bindings.

A `Device` is the first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), with its primary context
current on the thread that opened it. All its methods belong to that thread. It remembers what it
gave out, so that `close` frees whatever is left, also when an opening fails half way.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base import BackendError

_STREAM_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING of cuda.h; PyCUDA has no name for it."""

_log = logging.getLogger(__name__)


class CudaError(BackendError):
    """A call of the CUDA driver failed; the message names the call and CUDA's error."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as it names itself."""

    name: str
    capability: tuple[int, int]

    @property
    def target(self) -> str:
        """Its compute capability as compilers name it, for example "sm86"."""
        return "sm{}{}".format(*self.capability)


@dataclass(frozen=True, eq=False)
class DeviceMemory:
    """Bytes on the device; `address` is a multiple of 256."""

    address: int
    size: int


@dataclass(frozen=True, eq=False)
class PinnedMemory:
    """Host memory that the GPU copies from and to by itself; not to be read after it is freed."""

    array: NDArray[np.uint8]


@dataclass(eq=False)
class CudaStream:
    """A queue of work on the device; `handle` is what other libraries take."""

    handle: int
    raw: Any


@dataclass(frozen=True, eq=False)
class CudaGraph:
    """Captured work that one call launches."""

    raw: Any


Resource = DeviceMemory | PinnedMemory | CudaStream | CudaGraph


class Device:
    """A GPU, through cuda-bindings, with its primary context current on the thread that opened it.

    Raises:
        BackendError: no library for CUDA, no driver or no GPU; the message names it.
    """

    library = "cuda-bindings"
    can_capture = True
    """Whether `capture` works."""

    def __init__(self) -> None:
        self._releases: dict[Resource, Callable[[], object]] = {}
        self._closed = False
        self.gpu = self.find_gpu()
        self._push_context()

    def _push_context(self) -> None:
        self._raw_device = self._call("cuDeviceGet", 0)
        context = self._call("cuDevicePrimaryCtxRetain", self._raw_device)
        try:
            self._call("cuCtxPushCurrent", context)
        except CudaError:
            self._call("cuDevicePrimaryCtxRelease", self._raw_device)
            raise

    def _pop_context(self) -> None:
        self._call("cuCtxPopCurrent")
        self._call("cuDevicePrimaryCtxRelease", self._raw_device)

    @classmethod
    def find_gpu(cls) -> Gpu:
        """The GPU, without opening it."""
        cls._call("cuInit", 0)
        device = cls._call("cuDeviceGet", 0)
        name = cls._call("cuDeviceGetName", 256, device)
        attribute = cls._driver().CUdevice_attribute
        major, minor = (
            cls._call("cuDeviceGetAttribute", number, device)
            for number in (
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        return Gpu(name.split(b"\0")[0].decode(errors="replace"), (major, minor))

    @staticmethod
    def _driver() -> Any:
        try:
            from cuda.bindings import driver
        except (ImportError, OSError, RuntimeError) as error:
            raise BackendError(f"cuda-bindings cannot be imported: {error}") from None
        return driver

    @classmethod
    def _call(cls, name: str, *arguments: Any) -> Any:
        """Call the driver; its result, or CudaError."""
        driver = cls._driver()
        try:
            code, *results = getattr(driver, name)(*arguments)
        except (AttributeError, RuntimeError, ValueError) as error:
            # no libcuda, one that lacks the function, or an error code newer than the bindings
            raise CudaError(f"{name}: {error}") from None
        if code != driver.CUresult.CUDA_SUCCESS:
            raise CudaError(f"{name}: {code.name}")
        return results[0] if results else None

    def allocate(self, size: int) -> DeviceMemory:
        """Memory of `size` bytes, not initialised."""
        raw = self._call("cuMemAlloc", size)
        memory = DeviceMemory(int(raw), size)
        self._releases[memory] = lambda: self._call("cuMemFree", raw)
        return memory

    def pinned(self, size: int) -> PinnedMemory:
        """Pinned host memory of `size` bytes, not initialised."""
        pointer = int(self._call("cuMemHostAlloc", size, 0))
        memory = PinnedMemory(np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer)))
        self._releases[memory] = lambda: self._call("cuMemFreeHost", pointer)
        return memory

    def stream(self) -> CudaStream:
        """A stream that does not wait for the default stream."""
        raw = self._call("cuStreamCreate", _STREAM_NON_BLOCKING)
        stream = CudaStream(int(raw), raw)
        self._releases[stream] = lambda: self._call("cuStreamDestroy", raw)
        return stream

    def upload(self, address: int, source: NDArray[np.uint8], stream: CudaStream) -> None:
        """Queue a copy of pinned bytes to the device."""
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, stream.raw)

    def download(self, target: NDArray[np.uint8], address: int, stream: CudaStream) -> None:
        """Queue a copy from the device into pinned bytes."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, stream.raw)

    def synchronize(self, stream: CudaStream) -> None:
        """Wait until all that was queued is done; raises what went wrong in it."""
        self._call("cuStreamSynchronize", stream.raw)

    def capture(self, stream: CudaStream, work: Callable[[], None]) -> CudaGraph:
        """Record what `work` queues on the stream, without running it."""
        # thread-local: calls of other threads, as of torch, do not invalidate the capture
        mode = self._driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream.raw, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(CudaError):  # a capture that failed has no graph
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream.raw))
            raise
        recorded = self._call("cuStreamEndCapture", stream.raw)
        try:
            raw = self._call("cuGraphInstantiate", recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)
        graph = CudaGraph(raw)
        self._releases[graph] = lambda: self._call("cuGraphExecDestroy", raw)
        return graph

    def launch(self, graph: CudaGraph, stream: CudaStream) -> None:
        """Queue the recorded work."""
        self._call("cuGraphLaunch", graph.raw, stream.raw)

    def free(self, *resources: Resource) -> None:
        """Free what this device gave out; what is free already stays so."""
        for resource in resources:
            release = self._releases.pop(resource, None)
            if release is None:
                continue
            try:
                release()
            except CudaError as error:  # after a fault on the device nothing can be freed any more
                _log.warning("a %s could not be freed: %s", type(resource).__name__, str(error))

    def close(self) -> None:
        """Free all that is left, the newest first, and give the context back, once."""
        if self._closed:
            return
        self._closed = True
        self.free(*reversed(list(self._releases)))
        try:
            self._pop_context()
        except CudaError as error:
            _log.warning("the CUDA context could not be given back: %s", str(error))


class _PyCudaDevice(Device):
    """Through PyCUDA, whose calls raise, and which has no calls for CUDA graphs."""

    library = "PyCUDA"
    can_capture = False

    def _push_context(self) -> None:
        with self._errors() as driver:
            self._context = driver.Device(0).retain_primary_context()
            self._context.push()

    @classmethod
    def find_gpu(cls) -> Gpu:
        with cls._errors() as driver:
            driver.init()
            device = driver.Device(0)
            return Gpu(device.name(), device.compute_capability())

    @staticmethod
    @contextlib.contextmanager
    def _errors() -> Iterator[Any]:
        """PyCUDA's driver module, whose errors become CudaError.

        Its texts are a call and CUDA's message, as "cuMemAlloc failed: out of memory".
        """
        try:
            import pycuda.driver as driver
        except (ImportError, OSError) as error:
            raise BackendError(f"PyCUDA cannot be imported: {error}") from None
        try:
            yield driver
        except driver.Error as error:
            raise CudaError(f"{type(error).__name__}: {error}") from None

    def allocate(self, size: int) -> DeviceMemory:
        with self._errors() as driver:
            raw = driver.mem_alloc(size)
        memory = DeviceMemory(int(raw), size)
        self._releases[memory] = lambda: self._free(raw)
        return memory

    def pinned(self, size: int) -> PinnedMemory:
        with self._errors() as driver:
            array = driver.pagelocked_empty(size, np.uint8)
        memory = PinnedMemory(array)
        self._releases[memory] = lambda: self._free(array.base)
        return memory

    def _free(self, allocation: Any) -> None:
        with self._errors():
            allocation.free()

    def stream(self) -> CudaStream:
        with self._errors() as driver:
            raw = driver.Stream(_STREAM_NON_BLOCKING)
        stream = CudaStream(raw.handle, raw)
        self._releases[stream] = lambda: self._drop(stream)
        return stream

    @staticmethod
    def _drop(stream: CudaStream) -> None:
        stream.raw = None  # PyCUDA destroys it with its last reference

    def upload(self, address: int, source: NDArray[np.uint8], stream: CudaStream) -> None:
        with self._errors() as driver:
            driver.memcpy_htod_async(address, source, stream.raw)

    def download(self, target: NDArray[np.uint8], address: int, stream: CudaStream) -> None:
        with self._errors() as driver:
            driver.memcpy_dtoh_async(target, address, stream.raw)

    def synchronize(self, stream: CudaStream) -> None:
        with self._errors():
            stream.raw.synchronize()

    def _pop_context(self) -> None:
        with self._errors():
            self._context.pop()
        del self._context  # PyCUDA releases the primary context with its last reference


def open_device() -> Device:
    """Make the GPU ready on this thread; see `Device`."""
    return _device_class()()


def find_gpu() -> Gpu:
    """The GPU that `open_device` opens, without opening it; BackendError as there."""
    return _device_class().find_gpu()


def _device_class() -> type[Device]:
    if importlib.util.find_spec("pycuda"):
        return _PyCudaDevice
    if importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.bindings"):
        return Device
    raise BackendError(
        "needs PyCUDA or cuda-bindings: pip install cuda-bindings (docs/engine.md has the details)"
    )
