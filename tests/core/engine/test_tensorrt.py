"""The run path of TensorRT, on a GPU and a TensorRT that compute on the host (`host_gpu`)."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from host_gpu import PLAN, BuilderFlag, HostEngine, HostGpu, MemoryPoolType
from recurrent_onnx import write_recurrent_model
from tiny_onnx import HEIGHT, WIDE, WIDTH, write_model

from video_knet_core.cli import main
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.tensorrt import cuda
from video_knet_core.engine.tensorrt.gpu_engine import GpuEngine
from video_knet_core.engine.tensorrt.runtime import TensorRTRuntime, engine_is_cached


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_recurrent_model(tmp_path_factory.mktemp("model") / "recurrent.onnx")


@pytest.fixture
def runtime(gpu, model):
    runtime = TensorRTRuntime(model)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def reference(model):
    return OnnxRuntime(model, threads=1)


def frames(count, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def assert_same(got, expected):
    for name in ("segment_map", "class_ids", "scores", "areas", "embeddings", "kernels"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def assert_same_stream(runtime, reference, images, state=None, reference_state=None):
    """Step both, each with its own states."""
    for image in images:
        got, state = runtime.step(image, state)
        expected, reference_state = reference.step(image, reference_state)
        assert_same(got, expected)


# --- what a step gives ----------------------------------------------------------------------------


def test_ten_recurrent_steps_are_those_of_onnx_runtime(runtime, reference):
    assert_same_stream(runtime, reference, frames(10))


def test_cameras_share_an_engine_and_their_states_can_be_used_in_any_order(runtime, reference):
    states = [(None, None)]
    for choice, image in zip(np.random.default_rng(1).random(60), frames(60), strict=True):
        state, reference_state = states[int(choice * len(states))]
        segments, after = runtime.step(image, state)
        expected, reference_after = reference.step(image, reference_state)
        assert_same(segments, expected)
        states.append((after, reference_after))


def test_many_threads_may_step(runtime, reference):
    images = frames(8)
    with ThreadPoolExecutor(len(images)) as threads:
        found = list(threads.map(lambda image: runtime.step(image, None)[0], images))
    for segments, image in zip(found, images, strict=True):
        assert_same(segments, reference.step(image, None)[0])


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "failing"), [(0, "upload"), (0, "enqueue"), (3, "launch"), (2, "synchronize")]
)
def test_a_step_that_fails_leaves_the_state(gpu, runtime, reference, before, failing):
    images = frames(before + 3)
    state = reference_state = None
    for image in images[:before]:
        _, state = runtime.step(image, state)
        _, reference_state = reference.step(image, reference_state)
    gpu.failing.add(failing)
    with pytest.raises(BackendError, match=rf"{failing}: CUDA_ERROR|the step failed"):
        runtime.step(images[before], state)
    gpu.failing.clear()
    assert_same_stream(runtime, reference, images[before + 1 :], state, reference_state)


@pytest.mark.parametrize("failing", ["allocate", "pinned", "context"])
def test_an_opening_that_fails_gives_all_back(gpu, model, failing):
    before = set(threading.enumerate())
    gpu.failing.add(failing)
    with pytest.raises(BackendError, match=r"CUDA_ERROR_OUT_OF_MEMORY|no execution context"):
        TensorRTRuntime(model)
    assert gpu.device.left and gpu.device.live == 0
    assert set(threading.enumerate()) <= before


# --- graphs and memory --------------------------------------------------------------------------


def test_a_graph_is_captured_after_the_first_step(gpu, runtime):
    state = None
    for image in frames(4):
        _, state = runtime.step(image, state)
    assert gpu.log == ["enqueue", "capture", "enqueue"] + ["launch"] * 3


def test_a_device_without_graphs_runs_directly(gpu, model, reference, monkeypatch, caplog):
    monkeypatch.setattr("host_gpu.HostDevice.can_capture", False)
    with caplog.at_level(logging.INFO):
        runtime = TensorRTRuntime(model)
        assert_same_stream(runtime, reference, frames(4))
    assert set(gpu.log) == {"enqueue"}
    assert caplog.text.count("has no CUDA graphs") == 1
    runtime.close()


def test_a_capture_that_fails_costs_only_the_graph(gpu, runtime, reference, caplog):
    gpu.failing.add("capture")
    assert_same_stream(runtime, reference, frames(4))
    assert set(gpu.log) == {"enqueue"}
    assert caplog.text.count("no CUDA graphs") == 1


def test_steps_hold_no_more_and_more(gpu, runtime):
    states = [runtime.step(image, None)[1] for image in frames(3)]
    live = gpu.device.live
    states += [runtime.step(image, states[0])[1] for image in frames(20)]
    assert gpu.device.live == live


def test_close_frees_all_and_may_be_repeated(gpu, model):
    before = set(threading.enumerate())
    runtime = TensorRTRuntime(model)
    _, state = runtime.step(frames(1)[0], None)
    runtime.close()
    runtime.close()
    assert gpu.device.left and gpu.device.live == 0
    assert set(threading.enumerate()) <= before


def test_a_close_that_raises_ends_the_thread(gpu, model, monkeypatch):
    before = threading.active_count()
    runtime = TensorRTRuntime(model)
    close = GpuEngine.close

    def fail(engine):
        close(engine)
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(GpuEngine, "close", fail)
    with pytest.raises(RuntimeError, match="the GPU is gone"):
        runtime.close()
    assert gpu.device.left and gpu.device.live == 0
    assert threading.active_count() == before
    runtime.close()


def test_a_runtime_that_is_dropped_frees_all(gpu, model):
    runtime = TensorRTRuntime(model)
    runtime.step(frames(1)[0], None)
    del runtime
    gc.collect()
    assert gpu.device.left and gpu.device.live == 0


# --- opening ------------------------------------------------------------------------------------


def test_the_second_opening_takes_the_plan_from_the_cache(gpu, model):
    assert not engine_is_cached(model)
    TensorRTRuntime(model).close()
    assert engine_is_cached(model)
    TensorRTRuntime(model).close()
    assert gpu.builds == 1


def test_each_native_size_has_a_plan_of_its_own(gpu, two_sizes):
    TensorRTRuntime(two_sizes).close()
    assert engine_is_cached(two_sizes) and not engine_is_cached(two_sizes, size=WIDE)
    TensorRTRuntime(two_sizes, size=WIDE).close()
    assert engine_is_cached(two_sizes) and engine_is_cached(two_sizes, size=WIDE)
    assert gpu.builds == 2


def test_another_version_builds_again(gpu, model, caplog):
    TensorRTRuntime(model).close()
    gpu.trt.__version__ = "10.7.0"
    assert not engine_is_cached(model)
    with caplog.at_level(logging.INFO):
        TensorRTRuntime(model).close()
    assert gpu.builds == 2
    assert "expected version 10.7.0, got 10.3.0" in caplog.text


def test_a_plan_that_tensorrt_rejects_is_built_again(gpu, model, caplog, monkeypatch):
    build = gpu.trt.Builder.build_serialized_network
    monkeypatch.setattr(
        gpu.trt.Builder, "build_serialized_network", lambda *_: b"of another driver"
    )
    with pytest.raises(BackendError, match="the plan just built is not accepted: magic tag"):
        TensorRTRuntime(model)
    assert gpu.device.left
    monkeypatch.setattr(gpu.trt.Builder, "build_serialized_network", build)
    with caplog.at_level(logging.INFO):
        TensorRTRuntime(model).close()
    reasons = [r.message for r in caplog.records if r.message.startswith("building an engine")]
    assert len(reasons) == 1 and reasons[0].endswith("is not accepted: magic tag")


def test_a_plan_of_another_model_is_not_run(gpu, model, tmp_path, monkeypatch):
    wrong = write_model(tmp_path / "wrong.onnx", rename=("kernels", "queries"))
    monkeypatch.setattr(
        gpu.trt.Builder, "build_serialized_network", lambda *_: PLAN + wrong.read_bytes()
    )
    with pytest.raises(BackendError, match="tensors: .*'kernels'.* got .*'queries'"):
        TensorRTRuntime(model)


def test_the_build_keeps_the_precision_of_the_model(gpu, model):
    assert main(["build-engine", str(model), "--workspace", "512"]) == 0
    strongly_typed = 1 << int(gpu.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert gpu.network_flags == strongly_typed
    assert BuilderFlag.FP16 not in gpu.config.flags and BuilderFlag.TF32 not in gpu.config.flags
    assert gpu.config.limits == {MemoryPoolType.WORKSPACE: 512 << 20}


def test_an_engine_is_written_where_files_have_no_permissions(gpu, model, tmp_path, monkeypatch):
    """As on a memory stick: the cache would not trust it there, but the user chose the place."""
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (replace(a, b), os.chmod(b, 0o777)))
    assert main(["build-engine", str(model), "--out", str(tmp_path / "stick.plan")]) == 0


def test_a_version_without_the_flag_for_strong_typing(gpu, model):
    gpu.trt.__version__ = "12.0.0"
    gpu.trt.NetworkDefinitionCreationFlag = SimpleNamespace()
    TensorRTRuntime(model).close()
    assert gpu.network_flags == 0


def test_the_progress_of_a_build_is_reported(gpu, model):
    reported = []
    TensorRTRuntime(model, progress=lambda phase, part: reported.append((phase, part))).close()
    assert reported == [("building", part) for part in (0.0, 0.5, 1.0, 1.0)]


def test_a_progress_callback_can_stop_the_build(gpu, model):
    def stop(phase, part):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        TensorRTRuntime(model, progress=stop)
    assert gpu.device.left and not engine_is_cached(model)


def test_a_build_that_fails_has_a_reason(gpu, model):
    gpu.failing.add("build")
    with pytest.raises(BackendError, match=r"TensorRT 10\.3\.0 cannot build recurrent: the "):
        TensorRTRuntime(model)


def test_an_old_tensorrt_is_rejected(monkeypatch, model):
    gpu = HostGpu(monkeypatch, version="8.6.2")
    with pytest.raises(BackendError, match=r"10 or newer, got 8\.6\.2"):
        TensorRTRuntime(model)
    assert not gpu.devices


def test_no_tensorrt(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="tensorrt cannot be imported"):
        TensorRTRuntime(model)


def test_no_gpu_is_reported_before_the_model_is_read(gpu, model, monkeypatch):
    def none():
        raise cuda.CudaError("cuInit: CUDA_ERROR_NO_DEVICE")

    monkeypatch.setattr(cuda, "find_gpu", none)
    for use in (TensorRTRuntime, engine_is_cached):
        with pytest.raises(BackendError, match="CUDA_ERROR_NO_DEVICE"):
            use(model)
    assert gpu.builds == 0


def test_an_unknown_flavour(model):
    with pytest.raises(ValueError, match="'tensorrt-rtx'.*got 'openvino'"):
        TensorRTRuntime(model, "openvino")


# --- the kernels that TensorRT-RTX compiles -----------------------------------------------------


class HostKernelCache:
    """Stands for IRuntimeCache: compiles "k" at the first use."""

    def __init__(self, log):
        self.log, self.content = log, b""

    def deserialize(self, blob):
        self.log.append(f"restored {blob.decode()}")
        self.content = blob if blob == b"k" else b""
        return blob == b"k"

    def serialize(self):
        return b"k"


@pytest.fixture
def rtx(monkeypatch, tmp_path, gpu):
    """TensorRT-RTX on the host, which has a cache of kernels."""
    rtx = HostGpu(monkeypatch, "tensorrt-rtx", "1.7.1")
    create = HostEngine.create_execution_context

    class RuntimeConfig:
        def __init__(self):
            self.cache = None

        def create_runtime_cache(self):
            return HostKernelCache(rtx.log)

        def set_runtime_cache(self, cache):
            self.cache = cache

    def create_with(engine, config):
        assert config.cache is not None
        return create(engine)

    monkeypatch.setattr(HostEngine, "create_execution_context", create_with)
    monkeypatch.setattr(
        HostEngine, "create_runtime_config", lambda _: RuntimeConfig(), raising=False
    )
    return rtx


def test_compiled_kernels_are_kept_beside_the_plan(rtx, model, reference, tmp_path):
    image = frames(1)[0]
    for _ in range(2):
        runtime = TensorRTRuntime(model, "tensorrt-rtx")
        assert_same(runtime.step(image, None)[0], reference.step(image, None)[0])
        runtime.close()
    assert [line for line in rtx.log if line.startswith("restored")] == ["restored k"]
    (kernels,) = (tmp_path / "cache").glob("*.kernels")
    assert kernels.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"not ours"])
def test_damaged_kernels_are_compiled_again(rtx, model, tmp_path, caplog, content):
    for _ in range(2):
        runtime = TensorRTRuntime(model, "tensorrt-rtx")
        runtime.step(frames(1)[0], None)
        runtime.close()
        (kernels,) = (tmp_path / "cache").glob("*.kernels")
        kernels.write_bytes(content)
        caplog.clear()
        caplog.set_level(logging.INFO)
    runtime = TensorRTRuntime(model, "tensorrt-rtx")
    assert "compiling kernels again" in caplog.text and "restored" not in "".join(rtx.log)
    runtime.close()
