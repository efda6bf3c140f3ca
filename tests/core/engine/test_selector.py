"""The fallback chain of backends: which is used, why others are not, and named ones."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import ModuleType

import pytest
from host_gpu import HostGpu

from video_knet_core.engine import selector, speed
from video_knet_core.engine.base import BackendError, ModelError
from video_knet_core.engine.hot_swap import HotSwapRuntime
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import (
    BACKENDS,
    REASONS_LOG,
    Backend,
    backends_for,
    default_model_path,
    open_runtime,
)
from video_knet_core.engine.tensorrt import cuda
from video_knet_core.engine.tensorrt.runtime import TensorRTRuntime


@pytest.fixture
def backends(monkeypatch):
    """Set the fallback chain, best first: name -> whether it works; `built` must be built first."""

    def set_backends(built=(), **works):
        def open_model(backend, path, threads, progress, size):
            if not works[backend]:
                raise BackendError("no driver")
            return OnnxRuntime(path, threads)

        fake = ModuleType("fake_backends")
        fake.open_model, fake.engine_is_cached = open_model, lambda path, backend, size: False
        monkeypatch.setitem(sys.modules, "fake_backends", fake)
        chain = {name: Backend("fake_backends", "", builds=name in built) for name in works}
        monkeypatch.setattr(selector, "BACKENDS", chain)

    return set_backends


RUNTIME_LOG = selector.__name__


def test_the_fallback_chain_from_best_to_last():
    assert list(BACKENDS) == [
        *("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"),
        *("onnxruntime-cpu", "openvino", "openvino-bf16", "torch"),
    ]


def test_torch_runs_checkpoints_and_the_others_exported_models():
    assert backends_for("model.safetensors") == ["torch"]
    assert "torch" not in backends_for("model.onnx")


def test_auto_logs_what_it_took_and_in_lines_of_another_logger_why_others_do_not_work(
    model, backends, caplog
):
    backends(fast=False, slow=True)
    with caplog.at_level(logging.INFO):
        open_runtime(model)
    (line,) = [r.getMessage() for r in caplog.records if r.name == RUNTIME_LOG]
    assert line == f"{model} runs on slow"
    (reason,) = [r.getMessage() for r in caplog.records if r.name == REASONS_LOG]
    assert reason == "not fast: no driver"


def test_auto_goes_down_the_fallback_chain(model, backends):
    backends(fast=False, slow=True)
    assert open_runtime(model).name == "onnxruntime-cpu"
    with pytest.raises(BackendError, match="fast: no driver"):
        open_runtime(model, backend="fast")


def test_all_reasons_are_reported_if_nothing_works(model, backends):
    backends(fast=False, slow=False)
    with pytest.raises(BackendError, match="fast: no driver; slow: no driver"):
        open_runtime(model)
    with pytest.raises(BackendError, match="fast: no driver; slow: no driver"):
        open_runtime(model, background=True)


def test_an_unknown_backend(model):
    with pytest.raises(ValueError, match="'onnxruntime-cpu'.*'tpu'"):
        open_runtime(model, backend="tpu")


def test_a_bad_model_is_not_tried_with_the_next_backend(tmp_path):
    with pytest.raises(ModelError, match="no model file"):
        open_runtime(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("backend", "module", "remedy"),
    [
        ("tensorrt", "tensorrt.runtime", "tensorrt"),
        ("tensorrt-rtx", "tensorrt.runtime", "tensorrt"),
        ("onnxruntime-cpu", "onnx_runtime", "pip install onnxruntime"),
        ("torch", "torch_runtime", "pip install"),
    ],
)
def test_a_backend_that_cannot_be_imported_is_named(model, monkeypatch, backend, module, remedy):
    monkeypatch.setitem(sys.modules, f"video_knet_core.engine.{module}", None)
    with pytest.raises(BackendError, match=f"{backend}: .*{remedy}"):
        open_runtime(model, backend=backend)


def test_without_onnxruntime_openvino_serves_and_without_both_the_reasons_are_named(model):
    code = (
        "import sys\nfor name in {missing!r}: sys.modules[name] = None\n"
        "from video_knet_core.engine.selector import open_runtime\n"
        f"print(open_runtime({str(model)!r}).name)"
    )

    def run(*missing):
        words = [sys.executable, "-c", code.format(missing=missing)]
        return subprocess.run(words, capture_output=True, text=True)

    assert run("onnxruntime").stdout == "openvino\n"
    assert "onnxruntime-cpu: cannot be imported" in run("onnxruntime", "openvino").stderr


# --- engines that have to be built


@pytest.fixture
def gpu_is_fastest(gpu, monkeypatch):
    """Although the host computes in its place."""
    monkeypatch.setattr(
        speed, "measure", lambda engines: {name: float(name != "tensorrt") for name in engines}
    )


def test_in_the_foreground_tensorrt_is_waited_for(model, gpu_is_fastest):
    reported = []
    runtime = open_runtime(model, progress=lambda *what: reported.append(what))
    assert isinstance(runtime, TensorRTRuntime) and runtime.name == "tensorrt"
    assert ("tensorrt: building", 0.5) in reported
    runtime.close()


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_each_flavour_can_be_named_and_is_waited_for(model, gpu, monkeypatch, flavour):
    HostGpu(monkeypatch, flavour)
    runtime = open_runtime(model, flavour, background=True)
    assert isinstance(runtime, TensorRTRuntime) and runtime.name == flavour
    runtime.close()


def test_a_cached_engine_is_opened_at_once_and_no_worse_one_is_built(model, gpu, gpu_is_fastest):
    open_runtime(model, "tensorrt").close()
    runtime = open_runtime(model, background=True)
    assert isinstance(runtime, TensorRTRuntime) and gpu.builds == 1
    runtime.close()


def test_an_engine_that_must_be_built_is_left_to_the_background(model, gpu, caplog):
    with caplog.at_level(logging.INFO):
        runtime = open_runtime(model, background=True)
    assert isinstance(runtime, HotSwapRuntime)
    assert runtime.name in ("openvino", "onnxruntime-cpu", "onnxruntime-cuda")
    assert "while tensorrt is prepared" in caplog.text
    runtime.close()
    runtime._executor.close()  # or it would open the engine of the next test


def test_a_backend_that_must_be_built_is_waited_for_if_nothing_else_works(model, backends):
    backends(built=["fast"], fast=True, slow=False)
    assert isinstance(open_runtime(model, background=True), OnnxRuntime)


def test_whether_an_engine_is_cached_may_be_unknowable(model, gpu, monkeypatch, caplog):
    def no_gpu():
        raise BackendError("no GPU here")

    monkeypatch.setattr(cuda, "find_gpu", no_gpu)
    with caplog.at_level(logging.INFO):
        runtime = open_runtime(model, background=True)
    assert not isinstance(runtime, HotSwapRuntime)
    assert "not tensorrt: no GPU here\n" in caplog.text


def test_the_shipped_model_is_found_in_a_ros_overlay(tmp_path, monkeypatch):
    overlay = tmp_path / "overlay/share/video_knet_ros/models"
    overlay.mkdir(parents=True)
    monkeypatch.setattr(selector, "DEFAULT_MODEL", "only_there.onnx")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'overlay'}")
    with pytest.raises(ModelError, match="only_there.*overlay"):
        default_model_path()
    (overlay / "only_there.onnx").touch()
    assert default_model_path() == overlay / "only_there.onnx"
