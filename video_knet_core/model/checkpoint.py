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
from safetensors.torch import save
from torch import Tensor

from ..config import ModelConfig, NetworkConfig
from ..config_io import ConfigError, from_dict, read_yaml, to_dict
from ..output_files import make_folder, replacing
from .network import ExternalNetwork, network_class, network_name
from .video_knet import VideoKNet

AnyNetwork = VideoKNet | ExternalNetwork

FORMAT = 1
METADATA_KEY = "video_knet"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and what is wrong with it."""


def save_model(model: AnyNetwork, path: str | Path, **facts: Any) -> None:
    """Write the model atomically; `facts` (step, metrics ...) go into the metadata."""
    metadata = {"format": FORMAT, "config": to_dict(model.config), **facts}
    save_tensors(model.state_dict(), path, {METADATA_KEY: json.dumps(metadata)})


def load_model(path: str | Path) -> VideoKNet:
    """Read what `save_model` wrote of a Video K-Net, in eval mode.

    Raises:
        CheckpointError: of another network, or as `load_network`.
    """
    model = load_network(path)
    if not isinstance(model, VideoKNet):
        raise CheckpointError(f"{path}: expected a Video K-Net, got a {type(model).__name__}")
    return model


def load_network(path: str | Path) -> AnyNetwork:
    """Read what `save_model` wrote, in eval mode.

    Raises:
        CheckpointError: not a safetensors file of ours, another format, or weights that do not
            fit the configuration inside (missing, unexpected and misshapen keys are named).
    """
    config = checkpoint_config(path)
    model = build_network(config)
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
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged: {error}") from None
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: its metadata: expected a mapping, got {facts!r:.80}")
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format: expected {FORMAT}, got {facts.get('format')!r}")
    return facts


def build_network(config: NetworkConfig) -> AnyNetwork:
    """The network of a configuration, with its first weights."""
    if isinstance(config, ModelConfig):
        return VideoKNet(config)
    return network_class(network_name(to_dict(config)))(config)  # type: ignore[arg-type]


def network_config(data: Any) -> NetworkConfig:
    """The configuration in plain data; ConfigError names the key that is wrong."""
    name = network_name(data)
    return from_dict(ModelConfig if name is None else network_class(name).Config, data)


def load_network_config(path: str | Path) -> NetworkConfig:
    """Read a model configuration from a YAML file; errors name the file."""
    return read_yaml(network_config, path)


def checkpoint_config(path: str | Path) -> NetworkConfig:
    """The model configuration stored in a checkpoint."""
    try:
        return network_config(read_metadata(path)["config"])
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
    data = save({k: v.contiguous() for k, v in tensors.items()}, metadata)
    with replacing(path) as partial, partial.open("wb") as file:  # save_file: for the owner alone
        file.write(data)
        file.flush()
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
