"""Runs an exported model with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..config import ConfigError, ModelConfig, from_dict
from ..types import Segments
from .runtime import BackendError, ModelError, ModelInfo

FORMAT = 1
"""The version of the file's interface that this code speaks."""
METADATA_KEY = "video_knet"
INPUTS = {
    "image": ("tensor(uint8)", 3),
    "previous_kernels": ("tensor(float)", 2),
    "has_previous": ("tensor(bool)", 1),
}
OUTPUTS = {
    "segment_map": ("tensor(uint8)", 2),
    "class_ids": ("tensor(int64)", 1),
    "scores": ("tensor(float)", 1),
    "areas": ("tensor(int64)", 1),
    "embeddings": ("tensor(float)", 2),
    "kernels": ("tensor(float)", 2),
}
"""Type and number of dimensions of each tensor of the file."""


class OnnxRuntime:
    """A `Runtime` of ONNX Runtime. The state of a camera is the kernels of its last frame, [N, C].

    Args:
        path: the exported model.
        threads: CPU threads of one step.
        cuda: run on the GPU.

    Raises:
        ModelError: the file is missing, corrupt or not a model of this project.
        BackendError: `cuda` was asked for and this ONNX Runtime has none that works.
    """

    def __init__(self, path: str | Path, threads: int = 2, cuda: bool = False) -> None:
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"no model file {path}")
        self.name = "onnxruntime-cuda" if cuda else "onnxruntime-cpu"
        session = _open_session(path, threads, cuda)
        try:
            name, self.config = _read_metadata(session)
            _check_tensors(session, self.config)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        self.info = ModelInfo(name, self.config.classes, self.config.height, self.config.width)
        self._session = session
        self._no_kernels = np.zeros(_shape(session, "previous_kernels"), np.float32)

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Segments, Any]:
        """Segment one frame; see `Runtime.step`."""
        self.info.check_image(image)
        inputs = {
            "image": image,
            "previous_kernels": self._no_kernels if state is None else state,
            "has_previous": np.array([state is not None]),
        }
        outputs = dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), inputs), strict=True))
        embeddings, kernels = outputs["embeddings"], outputs["kernels"]
        self.info.check_kernels(embeddings, kernels)
        segments = Segments(
            map=outputs["segment_map"],
            class_ids=outputs["class_ids"],
            scores=outputs["scores"],
            areas=outputs["areas"],
            embeddings=embeddings,
            kernels=kernels,
        )
        return segments, kernels

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        """The state itself: it is kernels [N, C] already."""
        return np.asarray(state, np.float32)

    def close(self) -> None:
        """Free the session; the runtime cannot be used after."""
        del self._session


def _open_session(path: Path, threads: int, cuda: bool) -> onnxruntime.InferenceSession:
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
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
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # the classes of ONNX Runtime's errors share no base but this
        if cuda:  # no driver, no memory: the CPU may do, and will tell if it is the file's fault
            raise BackendError(f"{provider}: {error}") from None
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {error}") from None
    if provider not in session.get_providers():  # it falls back to the CPU without an error
        raise BackendError(f"ONNX Runtime could not start its {provider}")
    return session


def _read_metadata(session: onnxruntime.InferenceSession) -> tuple[str, ModelConfig]:
    """Name and configuration that the exporter wrote into the file."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ValueError("an ONNX file, but not of this project: it has no metadata 'video_knet'")
    try:
        data = json.loads(text)
        version, name, config = data["format"], data["name"], data["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"its metadata 'video_knet' is damaged ({error!r})") from None
    if version != FORMAT:
        raise ValueError(f"its format is {version}, this version reads format {FORMAT}")
    try:
        return name, from_dict(ModelConfig, config)
    except ConfigError as error:
        raise ValueError(f"its configuration does not fit this version: {error}") from None


def _check_tensors(session: onnxruntime.InferenceSession, config: ModelConfig) -> None:
    """Names, types and dimensions of every input and output are those of the format."""
    for kind, wanted, nodes in (
        ("inputs", INPUTS, session.get_inputs()),
        ("outputs", OUTPUTS, session.get_outputs()),
    ):
        found = {node.name: (node.type, len(node.shape)) for node in nodes}
        if found != wanted:
            raise ValueError(f"its {kind} must be {wanted}, found {found}")
    image = (config.height, config.width, 3)
    if _shape(session, "image") != image:
        raise ValueError(f"its image must be {image}, found {_shape(session, 'image')}")


def _shape(session: onnxruntime.InferenceSession, name: str) -> tuple[int, ...]:
    return next(tuple(node.shape) for node in session.get_inputs() if node.name == name)
