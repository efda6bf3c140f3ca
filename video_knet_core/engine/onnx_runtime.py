"""Runs an exported model with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..types import Detections, check_image
from .base import BackendError, ModelError, ProgressCallback
from .model_file import ModelFile


class OnnxRuntime:
    """A `Runtime` of ONNX Runtime. The state of a camera is the kernels of its last frame, [N, C].

    Args:
        path: the exported model.
        threads: CPU threads of one step.
        cuda: run on the GPU.

    Raises:
        ModelError: the file is missing, corrupt or not a model of this project.
        BackendError: `cuda` was requested and this ONNX Runtime has none that works.
    """

    def __init__(self, path: str | Path, threads: int = 2, cuda: bool = False) -> None:
        model = ModelFile.read(path, form="deploy")
        self.name = "onnxruntime-cuda" if cuda else "onnxruntime-cpu"
        self.info = model.info
        self._session: onnxruntime.InferenceSession | None = _open_session(
            model.path, threads, cuda
        )
        self._outputs = list(model.outputs)
        self._no_kernels = np.zeros(model.state_shape, np.float32)

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        """Segment one frame; see `Runtime.step`."""
        check_image(image, (self.info.height, self.info.width))
        if (session := self._session) is None:
            raise RuntimeError("the runtime is closed")
        inputs = {
            "image": image,
            "previous_kernels": self._no_kernels if state is None else state,
            "has_previous": np.array([state is not None]),
        }
        results = dict(zip(self._outputs, session.run(self._outputs, inputs), strict=True))
        return Detections.from_outputs(results, self.info.name), results["kernels"]

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """The state itself: it is kernels [N, C] already."""
        return np.asarray(state, np.float32)

    def close(self) -> None:
        """Free the session; the runtime cannot be used after. A second time does nothing."""
        self._session = None


def open_model(
    backend: str, path: Path, threads: int, progress: ProgressCallback | None
) -> OnnxRuntime:
    """See `selector.Backend`."""
    return OnnxRuntime(path, threads, cuda=backend == "onnxruntime-cuda")


def _open_session(path: Path, threads: int, cuda: bool) -> onnxruntime.InferenceSession:
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    # as with the other engines, float32 is float32
    settings = {"use_tf32": "0"} if cuda else {}
    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise BackendError(f"this ONNX Runtime has no {provider}, only {available}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # a robot has other work for its cores than to spin between two frames
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[(provider, settings)])
    except Exception as error:  # the classes of ONNX Runtime's errors have no base but this
        if cuda:  # no driver, no memory; if the file is at fault the CPU reports it
            raise BackendError(f"{provider}: {error}") from None
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {error}") from None
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise BackendError(f"ONNX Runtime could not start its {provider}")
    session.disable_fallback()  # a step that fails on the GPU raises, it is not run on the CPU
    return session
