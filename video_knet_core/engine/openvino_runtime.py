"""Runs an exported model with OpenVINO on the CPU."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from ..installation import pip_install
from .base import BackendError, ProgressCallback, Size
from .model_file import ExportedModelRuntime, ModelFile


class OpenVINORuntime(ExportedModelRuntime):
    """A `Runtime` of OpenVINO.

    Args:
        path: the exported model.
        threads: CPU threads of one step. They are not pinned to cores: a robot has other work.
        bfloat16: compute in it what OpenVINO can; else all in float32, also on a CPU on which
            OpenVINO by itself would take bfloat16.
        size: one of the model's native sizes; None is the first.

    Raises:
        ModelError: the file is missing, corrupt or not a model of this project.
        BackendError: OpenVINO is not installed, or cannot run the model here; or `bfloat16` on a
            CPU without instructions for it.
    """

    def __init__(
        self, path: str | Path, threads: int = 2, bfloat16: bool = False, size: Size | None = None
    ) -> None:
        model = ModelFile.read(path, form="deploy", size=size)
        super().__init__("openvino-bf16" if bfloat16 else "openvino", model)
        self._request: Any = open_request(model.path, threads, bfloat16, model.content)
        self._busy = threading.Lock()  # a request serves one thread at a time
        self._outputs = list(model.outputs)

    def _infer(self, inputs: dict[str, NDArray]) -> dict[str, NDArray]:
        with self._busy:
            if self._request is None:
                raise RuntimeError("the runtime is closed")
            outputs = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        return {name: outputs[name] for name in self._outputs}

    def close(self) -> None:
        """Free the model; the runtime cannot be used after. A second time does nothing."""
        self._request = None


def open_request(path: Path, threads: int, bfloat16: bool, content: bytes | None = None) -> Any:
    """An inference request of any ONNX file, or of `content` in place of the file's own;
    BackendError as of `OpenVINORuntime`."""
    core = _core(_import_openvino())
    abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if bfloat16 and "BF16" not in abilities:
        raise BackendError(f"expected a CPU that computes in BF16, got one of {abilities}")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "ENABLE_CPU_PINNING": False,
    }
    try:
        model = str(path) if content is None else core.read_model(content)
        return core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot run {path}: {error}") from None


def open_model(
    backend: str,
    path: Path,
    threads: int,
    progress: ProgressCallback | None,
    size: Size | None,
) -> OpenVINORuntime:
    """See `selector.Backend`."""
    return OpenVINORuntime(path, threads, backend == "openvino-bf16", size)


@functools.cache
def _core(openvino: ModuleType) -> Any:
    """One for the whole process.

    Each changes the stack on which its thread handles signals, and takes it back when it ends.
    After two that end in the order they were made, that stack is one that is no longer there, and
    the next signal ends the process with a segmentation fault.
    """
    return openvino.Core()


def _import_openvino() -> ModuleType:
    """The package without its telemetry.

    `openvino_telemetry` reports the import over the network and writes an identifier of this user
    to `~/intel`. Where it cannot be imported OpenVINO uses an empty module in its place.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        remedy = pip_install("'video_knet_ros[openvino]'")
        raise BackendError(f"cannot be imported ({error}): {remedy}") from None
    return openvino
