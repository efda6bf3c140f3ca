"""Runs an exported model with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from numpy.typing import NDArray

from .base import BackendError, ModelError, ProgressCallback, Size
from .model_file import ExportedModelRuntime, ModelFile


class OnnxRuntime(ExportedModelRuntime):
    """A `Runtime` of ONNX Runtime.

    Args:
        path: the exported model.
        threads: CPU threads of one step.
        cuda: run on the GPU.
        size: one of the model's native sizes; None is the first.

    Raises:
        ModelError: the file is missing, corrupt or not a model of this project.
        BackendError: `cuda` was requested and this ONNX Runtime has none that works.
    """

    def __init__(
        self, path: str | Path, threads: int = 2, cuda: bool = False, size: Size | None = None
    ) -> None:
        model = ModelFile.read(path, form="deploy", size=size)
        super().__init__("onnxruntime-cuda" if cuda else "onnxruntime-cpu", model)
        session = open_session(model.path, threads, cuda, model.content)
        self._session: onnxruntime.InferenceSession | None = session
        self._outputs = list(model.outputs)

    def _infer(self, inputs: dict[str, NDArray]) -> dict[str, NDArray]:
        if (session := self._session) is None:
            raise RuntimeError("the runtime is closed")
        return dict(zip(self._outputs, session.run(self._outputs, inputs), strict=True))

    def close(self) -> None:
        """Free the session; the runtime cannot be used after. A second time does nothing."""
        self._session = None


def open_model(
    backend: str,
    path: Path,
    threads: int,
    progress: ProgressCallback | None,
    size: Size | None,
) -> OnnxRuntime:
    """See `selector.Backend`."""
    return OnnxRuntime(path, threads, backend == "onnxruntime-cuda", size)


def open_session(
    path: Path, threads: int, cuda: bool, content: bytes | None = None
) -> onnxruntime.InferenceSession:
    """Any ONNX file, with the settings of a robot; errors as of `OnnxRuntime`.

    `content` is opened in place of the file's own, if given.
    """
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
        session = onnxruntime.InferenceSession(
            content or str(path), options, providers=[(provider, settings)]
        )
    except Exception as error:  # the classes of ONNX Runtime's errors have no base but this
        if cuda:  # no driver, no memory; if the file is at fault the CPU reports it
            raise BackendError(f"{provider}: {error}") from None
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {error}") from None
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise BackendError(f"ONNX Runtime could not start its {provider}")
    session.disable_fallback()  # a step that fails on the GPU raises, it is not run on the CPU
    return session
