"""What an exported model says of itself, read without running it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..config import ModelConfig
from .onnx_runtime import METADATA_KEY, _check_tensors, _open_session, _read_metadata, _shape
from .runtime import ModelError, ModelInfo


@dataclass(frozen=True)
class ModelFile:
    """The metadata of an exported model."""

    path: Path
    name: str
    config: ModelConfig
    precision: str
    form: str
    checkpoint_sha256: str
    state_shape: tuple[int, ...]

    @classmethod
    def read(cls, path: str | Path) -> ModelFile:
        """ModelError if the file is missing, corrupt or foreign."""
        path = Path(path)
        if not path.is_file():
            raise ModelError(f"no model file {path}")
        session = _open_session(path, 1, cuda=False)
        try:
            name, config = _read_metadata(session)
            _check_tensors(session, config)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        data = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        return cls(
            path,
            name,
            config,
            data.get("precision", "fp32"),
            data.get("form", "deploy"),
            data.get("checkpoint_sha256", ""),
            _shape(session, "previous_kernels"),
        )

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.name, self.config.classes, self.config.height, self.config.width)
