"""The OpenVINO backend computes what ONNX Runtime does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny_onnx import HEIGHT, WIDTH, metadata, write_model

from synthetic_street import SyntheticStreet
from video_knet_core.engine.base import BackendError, ModelError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.openvino_runtime import OpenVINORuntime

REPO = Path(__file__).parents[3]
SHIPPED = REPO / "models" / "street_lite0.onnx"
FLIPS = 1e-3
"""Fraction of pixels that may differ: the hard mask threshold flips single ones."""


pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="needs the extra `openvino`")


def image(red=0):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = red
    return picture


@pytest.mark.slow
def test_the_shipped_model_agrees_with_onnx_runtime_frame_after_frame(model):
    """20 recurrent steps, each backend with the state that it made itself."""
    ours, reference = OpenVINORuntime(SHIPPED), OnnxRuntime(SHIPPED)
    street = SyntheticStreet(1001, ours.info.height, ours.info.width)
    state = expected_state = None
    for t in range(20):
        picture = street.frame(t).image
        segments, state = ours.step(picture, state)
        expected, expected_state = reference.step(picture, expected_state)
        assert (segments.segment_map != expected.segment_map).mean() <= FLIPS
        seen = expected.areas > 0
        assert (segments.class_ids[seen] == expected.class_ids[seen]).all()
        # a slot without a segment may start at another of two seeds that are equally warm
        np.testing.assert_allclose(segments.scores[seen], expected.scores[seen], atol=1e-3)
        np.testing.assert_allclose(state[seen], expected_state[seen], atol=1e-2)


def test_a_step_has_the_types_of_the_contract(model):
    segments, _ = OpenVINORuntime(model).step(image(red=255), None)
    expected, _ = OnnxRuntime(model).step(image(red=255), None)
    for name in ("segment_map", "class_ids", "scores", "areas", "embeddings", "kernels"):
        ours, theirs = getattr(segments, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs)


def test_the_state_goes_out_and_comes_back_in(model):
    runtime, state, counts = OpenVINORuntime(model), None, []
    for _ in range(3):
        _, state = runtime.step(image(), state)
        counts.append(float(state[0, 0]))
    _, fresh = runtime.step(image(), None)
    assert counts == [1, 2, 3] and fresh[0, 0] == 1


def test_a_result_is_not_overwritten_by_the_next_step(model):
    runtime = OpenVINORuntime(model)
    first, state = runtime.step(image(red=255), None)
    kept = first.segment_map.copy()
    runtime.step(image(red=0), state)
    np.testing.assert_array_equal(first.segment_map, kept)
    assert state[0, 0] == 1


def test_onnx_runtime_continues_from_its_state(model):
    ours, other = OpenVINORuntime(model), OnnxRuntime(model)
    _, state = ours.step(image(), None)
    _, state = other.step(image(), state)
    assert state[0, 0] == 2


def test_another_image_is_rejected(model):
    with pytest.raises(ValueError, match=rf"uint8 \({HEIGHT}, {WIDTH}, 3\), got float32"):
        OpenVINORuntime(model).step(np.zeros((HEIGHT, WIDTH, 3), np.float32), None)


def test_kernels_that_are_not_finite_are_an_error(model, tmp_path):
    path = write_model(tmp_path / "nan.onnx", json.dumps(metadata()), step=np.nan)
    with pytest.raises(FloatingPointError, match="tiny"):
        OpenVINORuntime(path).step(image(), None)


def test_a_missing_file(model, tmp_path):
    with pytest.raises(ModelError, match=r"no model file .*none\.onnx"):
        OpenVINORuntime(tmp_path / "none.onnx")


def test_without_openvino_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"video_knet_ros\[openvino\]"):
        OpenVINORuntime(tmp_path / "any.onnx")


def test_a_model_opens_without_a_progress_callback(model, tmp_path):
    """OpenVINO's package by itself sends an event when it is imported and writes to ~/intel."""
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): sys.exit('the network was used')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from video_knet_core.engine.openvino_runtime import OpenVINORuntime\n"
        f"OpenVINORuntime({str(model)!r})\n"
        "loaded = [n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m]\n"
        "assert not loaded, loaded\n"
    )
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "intel").exists()


def test_closing_twice_is_harmless_and_a_step_after_it_raises(model):
    runtime = OpenVINORuntime(model)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime.step(image(), None)
