"""The only file that touches device memory: PyCUDA where it is installed, else cuda-bindings."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import logging
from collections.abc import Callable
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


class Device:
    """The first GPU that CUDA shows (CUDA_VISIBLE_DEVICES chooses), with a stream: a queue of work.

    Its primary context is current on the thread that opened it, to which all methods belong. This
    class works through cuda-bindings.

    Raises:
        BackendError: no library for CUDA, no driver or no GPU; the message names it.
    """

    library = "cuda-bindings"
    can_capture = True
    """Whether `capture` works."""

    def __init__(self) -> None:
        self._owned = contextlib.ExitStack()
        self.gpu = self.find_gpu()
        try:
            self._stream = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        """Make the primary context current, and a stream that waits for no other one."""
        device = self._call("cuDeviceGet", 0)
        context = self._call("cuDevicePrimaryCtxRetain", device)
        self._own(self._call, "cuDevicePrimaryCtxRelease", device)
        self._call("cuCtxPushCurrent", context)
        self._own(self._call, "cuCtxPopCurrent")
        stream = self._call("cuStreamCreate", _STREAM_NON_BLOCKING)
        self._own(self._call, "cuStreamDestroy", stream)
        return stream

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

    def _own(self, release: Callable[..., object], *arguments: Any) -> None:
        """Call `release` when the device is closed."""
        self._owned.callback(_release, release, *arguments)

    @property
    def stream(self) -> int:
        """Handle of the stream, as other libraries take it."""
        return int(self._stream)

    def allocate(self, size: int) -> int:
        """Address, a multiple of 256, of `size` bytes on the device, not initialised."""
        memory = self._call("cuMemAlloc", size)
        self._own(self._call, "cuMemFree", memory)
        return int(memory)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Host memory that the GPU copies from and to by itself; not to be read after `close`."""
        pointer = int(self._call("cuMemHostAlloc", size, 0))
        self._own(self._call, "cuMemFreeHost", pointer)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def upload(self, address: int, source: NDArray[np.uint8]) -> None:
        """Queue a copy of pinned bytes to the device."""
        self._call("cuMemcpyHtoDAsync", address, source.ctypes.data, source.nbytes, self._stream)

    def download(self, target: NDArray[np.uint8], address: int) -> None:
        """Queue a copy from the device into pinned bytes."""
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, address, target.nbytes, self._stream)

    def synchronize(self) -> None:
        """Wait until all that was queued is done; raises what went wrong in it."""
        self._call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> Any:
        """Record what `work` queues, without running it: a graph, for `launch` and `destroy`."""
        # thread-local: calls of other threads, as of torch, do not invalidate the capture
        mode = self._driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            with contextlib.suppress(CudaError):  # a capture that failed has no graph
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", self._stream))
            raise
        recorded = self._call("cuStreamEndCapture", self._stream)
        try:
            return self._call("cuGraphInstantiate", recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)

    def launch(self, graph: Any) -> None:
        """Queue the recorded work."""
        self._call("cuGraphLaunch", graph, self._stream)

    def destroy(self, graph: Any) -> None:
        """Free a graph, before what it uses."""
        _release(self._call, "cuGraphExecDestroy", graph)

    def close(self) -> None:
        """Free all that was given out, the newest first, and the context; then do nothing more."""
        self._owned.close()


class _PyCudaDevice(Device):
    """Through PyCUDA, whose calls raise, and which has no calls for CUDA graphs."""

    library = "PyCUDA"
    can_capture = False

    def _open(self) -> Any:
        driver = self._driver()
        context = self._try(self._try(driver.Device, 0).retain_primary_context)
        self._try(context.push)
        self._own(self._try, context.pop)  # PyCUDA releases it with its last reference
        stream = self._try(driver.Stream, _STREAM_NON_BLOCKING)
        self._own(self._drop_stream)
        return stream

    def _drop_stream(self) -> None:
        self._stream = None  # PyCUDA destroys it with its last reference

    @classmethod
    def find_gpu(cls) -> Gpu:
        driver = cls._driver()
        cls._try(driver.init)
        device = cls._try(driver.Device, 0)
        return Gpu(cls._try(device.name), cls._try(device.compute_capability))

    @staticmethod
    def _driver() -> Any:
        try:
            import pycuda.driver as driver
        except (ImportError, OSError) as error:
            raise BackendError(f"PyCUDA cannot be imported: {error}") from None
        return driver

    @classmethod
    def _try(cls, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call PyCUDA, whose errors are texts like "cuMemAlloc failed: out of memory"."""
        try:
            return function(*arguments)
        except cls._driver().Error as error:
            raise CudaError(f"{type(error).__name__}: {error}") from None

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate(self, size: int) -> int:
        memory = self._try(self._driver().mem_alloc, size)
        self._own(self._try, memory.free)
        return int(memory)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        array = self._try(self._driver().pagelocked_empty, size, np.uint8)
        self._own(self._try, array.base.free)
        return array

    def upload(self, address: int, source: NDArray[np.uint8]) -> None:
        self._try(self._driver().memcpy_htod_async, address, source, self._stream)

    def download(self, target: NDArray[np.uint8], address: int) -> None:
        self._try(self._driver().memcpy_dtoh_async, target, address, self._stream)

    def synchronize(self) -> None:
        self._try(self._stream.synchronize)


def _release(call: Callable[..., object], *arguments: Any) -> None:
    """Free something. After a fault on the device nothing can be freed any more."""
    try:
        call(*arguments)
    except CudaError as error:
        _log.warning("a resource of the GPU could not be freed: %s", str(error))


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
        "needs PyCUDA or cuda-bindings: pip install cuda-bindings (docs/how-to/engine.md)"
    )
