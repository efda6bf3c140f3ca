from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.selector import default_model_path


def test_opening_a_model_leaves_nothing_in_the_home_folder(model, tmp_path):
    """ONNX Runtime by itself writes an identifier there and sends usage events."""
    code = f"from video_knet_core.engine.selector import open_runtime; open_runtime({str(model)!r})"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())


def test_the_shipped_model_runs_on_the_oldest_runtime_that_is_allowed():
    """In `make test-lowest`; here on the one that is installed."""
    runtime = OnnxRuntime(default_model_path(), threads=1)
    image = np.full((runtime.info.height, runtime.info.width, 3), 90, np.uint8)
    segments, _ = runtime.step(image, None)
    assert segments.segment_map.shape[0] >= runtime.info.height // 2 and len(segments.class_ids)
    runtime.close()
