"""The OpenVINO backend computes what ONNX Runtime does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from synthetic_street import SyntheticStreet
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.openvino_runtime import OpenVINORuntime

REPO = Path(__file__).parents[3]
SHIPPED = REPO / "models" / "street_lite0.onnx"
FLIPS = 1e-3
"""Fraction of pixels that may differ: the hard mask threshold flips single ones."""


pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="needs the extra `openvino`")


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
