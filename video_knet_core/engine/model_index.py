"""Models by name: `find_model` finds the file of a name, the index has those of this version.

The index is `models/index.yaml`. Nothing here downloads anything: that is `model_download`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from ..config_io import ConfigError, Text, load_yaml, settings_class
from ..installation import shared_file, shared_folders
from .base import ModelError
from .cache_files import cache_folder

EXPORTED, CHECKPOINT = (".onnx",), (".safetensors",)
SUFFIXES = EXPORTED + CHECKPOINT
"""Of the files of a model, in the order in which its name is looked up."""
FOLDER = "models"


@settings_class
class IndexedFile:
    """A file of a release."""

    name: Text
    bytes: int
    sha256: str


@settings_class
class IndexedModel:
    """A model of this version."""

    name: str
    summary: str
    use: str
    terms: str
    """Of the training data."""
    card: str
    """The model card, a path in the repository."""
    files: tuple[IndexedFile, ...]
    """In the order of `SUFFIXES`."""


@settings_class
class ModelIndex:
    """The models of this version, and the tag of the release that has their files."""

    release: str
    models: tuple[IndexedModel, ...]


def model_index() -> ModelIndex:
    """The index of this version; ModelError if it is missing or damaged."""
    try:
        return load_yaml(ModelIndex, shared_file(f"{FOLDER}/index.yaml"))
    except (FileNotFoundError, ConfigError) as error:
        raise ModelError(str(error)) from None


def download_folder(index: ModelIndex) -> Path:
    """Where downloaded models are cached; those of another release do not get in the way."""
    return cache_folder() / FOLDER / index.release


def model_folders(index: ModelIndex) -> list[Path]:
    """Where a name is looked up: the folders of $VIDEO_KNET_MODELS, the cache, the package."""
    listed = os.environ.get("VIDEO_KNET_MODELS", "").split(os.pathsep)
    of_user = [Path(os.path.expanduser(folder)) for folder in listed if folder]
    return [*of_user, download_folder(index), *(folder / FOLDER for folder in shared_folders())]


def find_model(model: str | Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """The file of a model, given as a path or by its name.

    An existing file comes first. A name, which has no slash and no suffix, is looked up in
    `model_folders`, in each with `suffixes` in turn. Any other path is returned as it is.

    Raises:
        ModelError: there is no file of that name; the message lists the known names and the places.
    """
    path, name = Path(model), Path(model).name
    if path.is_file() or str(model) != name or path.suffix or name in ("", ".."):
        return path
    folders = model_folders(index := model_index())
    for folder in folders:
        for suffix in suffixes:
            if (file := folder / f"{name}{suffix}").is_file():
                return file
    known = {entry.name for entry in index.models}
    listed = [f.stem for folder in folders for f in folder.glob("*") if f.suffix in suffixes]
    raise ModelError(
        f"no model {name!r}: expected a file, or {name_hint(name, sorted({*known, *listed}))}; "
        f"looked in {', '.join(map(str, folders))}"
    )


def name_hint(name: str, known: Sequence[str]) -> str:
    """The known names, the nearest one, and how to download it."""
    near = get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]}?" if near and near[0] != name else ""
    get = f"`video-knet models get {near[0] if near else 'NAME'}` downloads a model"
    return f"one of {', '.join(known)}{meant} ({get})"
