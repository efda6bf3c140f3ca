"""The engines of exported models, under one interface."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
from host_gpu import HostGpu

from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.openvino_runtime import OpenVINORuntime
from video_knet_core.engine.tensorrt.runtime import TensorRTRuntime


@pytest.fixture
def gpu(monkeypatch, tmp_path) -> HostGpu:
    """A GPU and a TensorRT that compute on the host; without TensorRT-RTX."""
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("VIDEO_KNET_CACHE", str(tmp_path / "cache"))
    return HostGpu(monkeypatch)


@pytest.fixture(params=["onnxruntime-cpu", "openvino", "tensorrt"])
def open_engine(request) -> Callable:
    """Opens a model file by each engine, at a `size` if given."""
    if request.param == "openvino" and not find_spec("openvino"):
        pytest.skip("needs the extra `openvino`")
    if request.param == "tensorrt":
        request.getfixturevalue("gpu")
        return TensorRTRuntime
    engine = OpenVINORuntime if request.param == "openvino" else OnnxRuntime
    return lambda path, **size: engine(path, threads=1, **size)
