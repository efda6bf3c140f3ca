"""Runs an exported model with OpenVINO on the CPU."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Detections, check_image
from .base import BackendError, ProgressCallback
from .model_file import ModelFile


class OpenVINORuntime:
    """A `Runtime` of OpenVINO. The state of a camera is the kernels of its last frame, [N, C].

    It computes in float32, also on a CPU on which OpenVINO by itself would take bfloat16.

    Args:
        path: the exported model.
        threads: CPU threads of one step. They are not pinned to cores: a robot has other work.

    Raises:
        ModelError: the file is missing, corrupt or not a model of this project.
        BackendError: OpenVINO is not installed, or cannot run the model here.
    """

    name = "openvino"

    def __init__(self, path: str | Path, threads: int = 2) -> None:
        openvino = _import_openvino()
        model = ModelFile.read(path, form="deploy")
        self.info = model.info
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = openvino.Core().compile_model(str(model.path), "CPU", settings)
            self._request: Any = compiled.create_infer_request()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot run {model.path}: {error}") from None
        self._busy = threading.Lock()  # a request serves one thread at a time
        self._outputs = list(model.outputs)
        self._no_kernels = np.zeros(model.state_shape, np.float32)

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        """Segment one frame; see `Runtime.step`."""
        check_image(image, (self.info.height, self.info.width))
        inputs = {
            "image": image,
            "previous_kernels": self._no_kernels if state is None else state,
            "has_previous": np.array([state is not None]),
        }
        with self._busy:
            if self._request is None:
                raise RuntimeError("the runtime is closed")
            outputs = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        results = {name: outputs[name] for name in self._outputs}
        return Detections.from_outputs(results, self.info.name), results["kernels"]

    def portable_state(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Kernels [N, C] of a state, for any other backend: it is these already."""
        return state

    def close(self) -> None:
        """Free the model; the runtime cannot be used after. A second time does nothing."""
        self._request = None


def open_model(
    backend: str, path: Path, threads: int, progress: ProgressCallback | None
) -> OpenVINORuntime:
    """See `selector.Backend`."""
    return OpenVINORuntime(path, threads)


def _import_openvino() -> ModuleType:
    """The package without its telemetry.

    `openvino_telemetry` reports the import over the network and writes an identifier of this user
    to `~/intel`. Where it cannot be imported OpenVINO uses an empty module in its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            f"cannot be imported ({error}): pip install 'video_knet_ros[openvino]'"
        ) from None
    return openvino
