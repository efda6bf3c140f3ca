from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_onnx import CHANNELS, HEIGHT, SLOTS, WIDTH, metadata, write_model

from video_knet_core.engine.base import ModelError
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import default_model_path


def image(red=0):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[..., 0] = red
    return picture


def test_the_model_has_its_name_size_and_classes(model):
    info = OnnxRuntime(model).info
    assert (info.name, info.height, info.width) == ("tiny", HEIGHT, WIDTH)
    assert [c.name for c in info.classes] == ["road", "vehicle"]


def test_a_step_gives_the_segments_of_the_file(model):
    segments, _ = OnnxRuntime(model).step(image(red=255), None)
    half = HEIGHT // 4
    assert (segments.segment_map[:half] == 1).all() and (segments.segment_map[half:] == 2).all()
    assert segments.areas.tolist() == [half * WIDTH // 2, half * WIDTH // 2, 0]
    assert segments.class_ids.tolist() == [0, 1, 1]
    assert segments.embeddings.shape == (SLOTS, CHANNELS)
    assert segments.scores.dtype == np.float32


def test_the_state_goes_out_and_comes_back_in(model):
    runtime, state, counts = OnnxRuntime(model), None, []
    for _ in range(3):
        _, state = runtime.step(image(), state)
        counts.append(float(state[0, 0]))
    _, fresh = runtime.step(image(), None)
    assert counts == [1, 2, 3] and fresh[0, 0] == 1


def test_detections_have_their_kernels(model):
    segments, state = OnnxRuntime(model).step(image(), None)
    np.testing.assert_array_equal(segments.kernels, state)


@pytest.mark.parametrize(
    "bad", [np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.float32)]
)
def test_another_image_is_rejected(model, bad):
    with pytest.raises(ValueError, match=rf"uint8 \({HEIGHT}, {WIDTH}, 3\), got {bad.dtype}"):
        OnnxRuntime(model).step(bad, None)


def test_kernels_that_are_not_finite_are_an_error(tmp_path):
    path = write_model(tmp_path / "nan.onnx", json.dumps(metadata()), step=np.nan)
    with pytest.raises(FloatingPointError, match="tiny"):
        OnnxRuntime(path).step(image(), None)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"no model file .*none\.onnx"):
        OnnxRuntime(tmp_path / "none.onnx")


def test_opening_a_model_leaves_nothing_in_the_home_folder(model, tmp_path):
    """ONNX Runtime by itself writes an identifier there and sends usage events."""
    code = f"from video_knet_core.engine.selector import open_runtime; open_runtime({str(model)!r})"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_closing_twice_is_harmless_and_a_step_after_it_raises(model):
    runtime = OnnxRuntime(model)
    runtime.close()
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime.step(image(), None)


def test_the_shipped_model_runs_on_the_oldest_runtime_that_is_allowed():
    """In `make test-lowest`; here on the one that is installed."""
    runtime = OnnxRuntime(default_model_path(), threads=1)
    image = np.full((runtime.info.height, runtime.info.width, 3), 90, np.uint8)
    segments, _ = runtime.step(image, None)
    assert segments.segment_map.shape[0] >= runtime.info.height // 2 and len(segments.class_ids)
    runtime.close()
