"""What an exported model says of itself, read with ONNX Runtime alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ..config import ModelConfig
from ..config_io import ConfigError, from_dict
from ..tasks import TASKS
from .base import ModelError, ModelInfo

FORMAT = 1
"""The version of the file's interface that this code speaks."""
METADATA_KEY = "video_knet"
PRECISIONS = ("fp32", "fp16")
"""What maps are computed in; inputs and outputs are the same in both."""
INPUTS = {
    "image": ("tensor(uint8)", 3),
    "previous_kernels": ("tensor(float)", 2),
    "has_previous": ("tensor(bool)", 1),
}
"""Type and number of dimensions of each tensor, the same in all forms and tasks. A network that
does not look back takes the kernels all the same, and does not look at them."""
OUTPUTS = {
    "segment_map": ("tensor(uint8)", 2),
    "class_ids": ("tensor(int64)", 1),
    "scores": ("tensor(float)", 1),
    "areas": ("tensor(int64)", 1),
    "class_logits": ("tensor(float)", 2),
    "mask_logits": ("tensor(float)", 3),
    "embeddings": ("tensor(float)", 2),
    "kernels": ("tensor(float)", 2),
    "masks": ("tensor(uint8)", 3),
}
FORMS = ("deploy", "raw")
"""Runtimes run the deploy form; the raw one, for evaluation, has the predictions before the merge
of the masks. In task semantic those are the class logits of each pixel."""


def outputs_of(form: str, task: str) -> dict[str, tuple[str, int]]:
    """Type and number of dimensions of each output of a form, in order."""
    facts = TASKS[task]
    names = facts.deploy_tensors if form == "deploy" else facts.raw_tensors
    return {name: OUTPUTS[name] for name in names}


@dataclass(frozen=True)
class ModelFile:
    """An exported model of this project whose tensors are those of its form."""

    path: Path
    name: str
    config: ModelConfig
    precision: str
    """One of `PRECISIONS`."""
    form: str
    """One of `FORMS`."""
    checkpoint_sha256: str
    """Hex digest of the checkpoint that it was exported from; empty if it came from none."""

    @classmethod
    def read(cls, path: str | Path, form: str | None = None) -> ModelFile:
        """Read and check a file, without making it ready to run.

        Args:
            form: the one of `FORMS` that the caller needs; None takes any.

        Raises:
            ModelError: the file is missing, corrupt, not of this project or of another form.
        """
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"no model file {path}")
        session = _open_unoptimized(path)
        try:
            model = cls(path, **_read_metadata(session))
            model._check_tensors(session)
            if form not in (None, model.form):
                raise ValueError(_wrong_form(model.form))
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        return model

    @property
    def info(self) -> ModelInfo:
        """What a user of an engine must know."""
        config = self.config
        size = config.height, config.width
        return ModelInfo(self.name, config.classes, *size, config.task, self.checkpoint_sha256)

    @property
    def outputs(self) -> dict[str, tuple[str, int]]:
        """Type and number of dimensions of each output, in order."""
        return outputs_of(self.form, self.config.task)

    @property
    def state_shape(self) -> tuple[int, int]:
        """Number of kernels and their channels, [N,C]: what goes from frame to frame."""
        return self.config.slots, self.config.neck.channels

    def inputs(self, image: NDArray[np.uint8], state: Any | None) -> dict[str, NDArray]:
        """What the graph is fed with: an image and the kernels of the frame before, if any."""
        return {
            "image": image,
            "previous_kernels": np.zeros(self.state_shape, np.float32) if state is None else state,
            "has_previous": np.array([state is not None]),
        }

    def _check_tensors(self, session: onnxruntime.InferenceSession) -> None:
        """Names, types and dimensions of every input and output are those of the form."""
        for kind, wanted, nodes in (
            ("inputs", INPUTS, session.get_inputs()),
            ("outputs", self.outputs, session.get_outputs()),
        ):
            found = {node.name: (node.type, len(node.shape)) for node in nodes}
            if found != wanted:
                raise ValueError(f"its {kind} must be {wanted}, found {found}")
        shapes = {node.name: tuple(node.shape) for node in session.get_inputs()}
        for name, shape in {
            "image": (self.config.height, self.config.width, 3),
            "previous_kernels": self.state_shape,
        }.items():
            if shapes[name] != shape:
                raise ValueError(f"its {name} must be {shape}, found {shapes[name]}")


def _open_unoptimized(path: Path) -> onnxruntime.InferenceSession:
    """A session to look at, quick to make."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 3  # its warnings are about running it
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the classes of ONNX Runtime's errors share no base but this
        raise ModelError(f"{path} is not a model that ONNX Runtime can load: {error}") from None


def _read_metadata(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """The fields of `ModelFile` but its path, as the exporter wrote them."""
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
    # older files say nothing of these two
    precision, form = data.get("precision", PRECISIONS[0]), data.get("form", "deploy")
    for key, value, known in (("precision", precision, PRECISIONS), ("form", form, FORMS)):
        if value not in known:
            raise ValueError(f"its {key} must be one of {known}, found {value!r}")
    try:
        model_config = from_dict(ModelConfig, config)
    except ConfigError as error:
        raise ValueError(f"its configuration does not fit this version: {error}") from None
    return {
        "name": name,
        "config": model_config,
        "precision": precision,
        "form": form,
        "checkpoint_sha256": data.get("checkpoint_sha256", ""),
    }


def _wrong_form(form: str) -> str:
    option = "with" if form == "deploy" else "without"
    return (
        f"it is of the {form} form, which cannot be used here; export its checkpoint again "
        f"{option} --raw: video-knet export CHECKPOINT.safetensors MODEL.onnx"
        + (" --raw" if form == "deploy" else "")
    )
