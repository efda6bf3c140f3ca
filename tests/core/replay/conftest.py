"""Shared by the tests of replays."""

from __future__ import annotations

import pytest
from tiny_onnx import TASKS, write_tiny_model

from video_knet_core.engine.selector import open_runtime


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory):
    """Task -> an engine with a small model of it."""
    folder = tmp_path_factory.mktemp("tasks")
    return {
        task: open_runtime(write_tiny_model(folder / f"{task}.onnx", task), "onnxruntime-cpu")
        for task in TASKS
    }
