"""Checkpoints: one safetensors file with the weights, the configuration and the class table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..config import ModelConfig
from ..config_io import ConfigError, from_dict, to_dict
from ..output_files import make_folder, replacing
from .video_knet import VideoKNet

FORMAT = 1
METADATA_KEY = "video_knet"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


def save_model(model: VideoKNet, path: str | Path, **facts: Any) -> None:
    """Write the model atomically; `facts` (step, metrics ...) go into the metadata."""
    metadata = {"format": FORMAT, "config": to_dict(model.config), **facts}
    save_tensors(model.state_dict(), path, {METADATA_KEY: json.dumps(metadata)})


def load_model(path: str | Path) -> VideoKNet:
    """Read what `save_model` wrote, in eval mode.

    Raises:
        CheckpointError: not a safetensors file of ours, another format, or weights that do not
            fit the configuration inside (missing, unexpected and misshapen keys are named).
    """
    config = checkpoint_config(path)
    model = VideoKNet(config)
    try:
        model.load_state_dict(load_tensors(path)[0])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The facts stored beside the weights: format, config and what the writer added."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} has no {METADATA_KEY!r} metadata: not written by this project"
        )
    try:
        facts = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise CheckpointError(f"{path}: its metadata is damaged: {error}") from None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: its metadata: expected a mapping, got {facts!r:.80}")
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format: expected {FORMAT}, got {facts.get('format')!r}")
    return facts


def checkpoint_config(path: str | Path) -> ModelConfig:
    """The model configuration stored in a checkpoint."""
    try:
        return from_dict(ModelConfig, read_metadata(path)["config"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: unusable configuration: {error}") from None


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; CheckpointError if it is none."""
    with _opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def save_tensors(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file so that a fault in the middle leaves the old file as it was."""
    path = Path(path)
    make_folder(path.parent)
    with replacing(path) as partial:
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}") from None
    except OSError as error:
        reason = "is a folder" if Path(path).is_dir() else f"cannot be read: {error}"
        raise CheckpointError(f"checkpoint {path} {reason}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from None


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
