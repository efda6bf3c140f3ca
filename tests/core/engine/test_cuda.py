"""The calls of the CUDA driver: cuda-bindings as it is installed, on a driver of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from video_knet_core.engine.base import BackendError
from video_knet_core.engine.tensorrt import cuda

HERE = Path(__file__).parents[1]

PREPARE = """
import contextlib, ctypes, sys
import numpy as np
driver = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)  # found by its soname from now on
from video_knet_core.engine.tensorrt import cuda

def fail(name):
    ctypes.CDLL(None).setenv(b"HOST_CUDA_FAIL", name.encode(), 1)

def raised(job, *arguments):
    try:
        job(*arguments)
    except cuda.CudaError as error:
        return str(error)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The library, compiled."""
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    out = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *flags, "-o", out, HERE / "host_cuda.c", "-ldl"], check=True)
    return out


def run(driver, code):
    """Run code in a process of its own, where the driver does not reach other tests."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, "-c", PREPARE + code, str(driver)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


BYTES_GO_TO_THE_DEVICE_AND_BACK = """
gpu = cuda.find_gpu()
assert (gpu.name, gpu.capability, gpu.target) == ("Host GPU", (8, 9), "sm89"), gpu
assert driver.host_cuda_live() == 0
device = cuda.open_device()
assert device.library == "cuda-bindings" and device.can_capture
memory, pinned = device.allocate(1000), device.pinned(1000)
assert memory % 256 == 0 and device.stream != 0
sent = np.arange(1000).astype(np.uint8)
pinned[:] = sent
device.upload(memory, pinned)
pinned[:] = 0
device.download(pinned[300:500], memory + 300)
device.synchronize()
assert (pinned[300:500] == sent[300:500]).all()
assert not pinned[:300].any() and not pinned[500:].any()
"""

A_GRAPH_DOES_WHAT_WAS_CAPTURED = """
device = cuda.open_device()
memory, pinned = device.allocate(8), device.pinned(16)

def work():
    device.upload(memory, pinned[:8])
    device.download(pinned[8:], memory)

pinned[:] = 1
graph = device.capture(work)
for number in (2, 3):
    pinned[:8] = number
    assert (pinned[8:] == number - 1).all()  # nothing ran while it was captured
    device.launch(graph)
    device.synchronize()
    assert (pinned[8:] == number).all()
"""

A_CAPTURE_THAT_FAILS_ENDS = """
device = cuda.open_device()
live = driver.host_cuda_live()

def fails():
    raise ZeroDivisionError

try:
    device.capture(fails)
except ZeroDivisionError:
    pass
assert driver.host_cuda_live() == live
device.synchronize()  # fails while a stream captures
fail("cuGraphInstantiateWithFlags")
message = raised(device.capture, lambda: None)
assert message == "cuGraphInstantiate: CUDA_ERROR_OUT_OF_MEMORY", message
assert driver.host_cuda_live() == live
"""

CLOSE_FREES_ALL_THAT_IS_LEFT = """
device = cuda.open_device()
memory, pinned = device.allocate(8), device.pinned(8)
graph = device.capture(lambda: device.upload(memory, pinned))
assert driver.host_cuda_live() == 5  # with the context and the stream
device.destroy(graph)
assert driver.host_cuda_live() == 4
device.close()
device.close()
assert driver.host_cuda_live() == 0
"""


@pytest.mark.parametrize(
    "code",
    [
        BYTES_GO_TO_THE_DEVICE_AND_BACK,
        A_GRAPH_DOES_WHAT_WAS_CAPTURED,
        A_CAPTURE_THAT_FAILS_ENDS,
        CLOSE_FREES_ALL_THAT_IS_LEFT,
    ],
    ids=["copies", "graph", "capture fails", "close"],
)
def test_the_calls_of_the_driver(driver, code):
    run(driver, code)


@pytest.mark.parametrize(
    ("failing", "reported"),
    [
        ("cuInit", "cuInit"),
        ("cuDeviceGet", "cuDeviceGet"),
        ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRetain"),
        ("cuCtxPushCurrent_v2", "cuCtxPushCurrent"),
        ("cuStreamCreate", "cuStreamCreate"),
        ("cuMemAlloc_v2", "cuMemAlloc"),
        ("cuMemHostAlloc", "cuMemHostAlloc"),
    ],
)
def test_an_error_has_the_name_of_the_call_and_nothing_stays(driver, failing, reported):
    run(
        driver,
        f"""
def use():
    with contextlib.closing(cuda.open_device()) as device:
        device.pinned(8), device.allocate(8)

fail({failing!r})
message = raised(use)
assert message == "{reported}: CUDA_ERROR_OUT_OF_MEMORY", message
assert driver.host_cuda_live() == 0
""",
    )


def test_what_cannot_be_freed_does_not_keep_the_rest(driver):
    done = run(
        driver,
        """
device = cuda.open_device()
device.allocate(8), device.pinned(8)
fail("cuMemFreeHost")
device.close()
assert driver.host_cuda_live() == 1
""",
    )
    assert "GPU could not be freed: cuMemFreeHost: CUDA_ERROR_OUT_OF_MEMORY" in done.stderr


class FakePyCuda:
    """What of `pycuda.driver` is used, as its source declares it, on the host's memory."""

    class Error(Exception):
        pass

    class LogicError(Error):
        pass

    def __init__(self):
        self.contexts = 0
        self.freed = []
        self.memory = {}
        self.failing = False
        driver = self

        class Context:
            def push(self):
                driver.contexts += 1

            @staticmethod
            def pop():
                driver.contexts -= 1

        class Device:
            def __init__(self, ordinal):
                assert ordinal == 0

            def name(self):
                return "Fake GPU"

            def compute_capability(self):
                return (8, 7)

            def retain_primary_context(self):
                return Context()

        self.Device = Device

    def init(self):
        if self.failing:
            raise self.LogicError("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(self, size):
        driver = self

        class DeviceAllocation:
            def __int__(self):
                return 4096

            def free(self):
                driver.freed.append("device")

        self.memory[4096] = np.zeros(size, np.uint8)
        return DeviceAllocation()

    def pagelocked_empty(self, size, dtype):
        driver = self

        class PagelockedHostAllocation:
            memory = np.zeros(size, dtype)
            __array_interface__ = memory.__array_interface__

            def free(self):
                driver.freed.append("host")

        return np.asarray(PagelockedHostAllocation())  # whose base that is

    def Stream(self, flags):
        assert flags == 1
        driver = self

        class Stream:
            handle = 7

            def synchronize(self):
                pass

            def __del__(self):
                driver.freed.append("stream")

        return Stream()

    def memcpy_htod_async(self, dest, src, stream):
        assert stream.handle == 7
        self.memory[4096][dest - 4096 :][: len(src)] = src

    def memcpy_dtoh_async(self, dest, src, stream):
        dest[:] = self.memory[4096][src - 4096 :][: len(dest)]


@pytest.fixture
def pycuda(monkeypatch):
    package = types.ModuleType("pycuda")
    package.__spec__ = ModuleSpec("pycuda", None)
    package.driver = driver = FakePyCuda()
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def test_pycuda_comes_first_where_it_is_installed(pycuda):
    assert cuda.find_gpu() == cuda.Gpu("Fake GPU", (8, 7))
    device = cuda.open_device()
    assert device.library == "PyCUDA" and not device.can_capture and pycuda.contexts == 1
    memory, pinned = device.allocate(8), device.pinned(8)
    pinned[:] = np.arange(8)
    device.upload(memory, pinned)
    device.download(pinned[:4], memory + 4)
    device.synchronize()
    assert device.stream == 7 and pinned.tolist() == [4, 5, 6, 7, 4, 5, 6, 7]
    device.close()
    assert pycuda.freed == ["host", "device", "stream"] and pycuda.contexts == 0


def test_errors_of_pycuda_are_reported(pycuda):
    pycuda.failing = True
    with pytest.raises(BackendError, match="LogicError: cuInit failed: no CUDA-capable device"):
        cuda.open_device()


def test_no_driver():
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings")
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    for job in (cuda.find_gpu, cuda.open_device):
        with pytest.raises(BackendError, match="cuInit: "):
            job()


def test_no_library(monkeypatch):
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="needs PyCUDA or cuda-bindings"):
        cuda.find_gpu()
