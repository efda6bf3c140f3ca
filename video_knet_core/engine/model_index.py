"""Models by name: `find_model` finds the file of a name, the index has those of this version.

The index is `models/index.yaml`. Nothing here downloads anything: that is `model_download`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from os.path import isfile  # False where it cannot be known, which Path.is_file() raises
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


def model_folders(index: ModelIndex) -> list[list[Path]]:
    """Where a name is looked up: each folder of $VIDEO_KNET_MODELS; the cache and the package.

    The last two are one place: what the package has and what was downloaded belong together.
    """
    listed = os.environ.get("VIDEO_KNET_MODELS", "").split(os.pathsep)
    of_version = [folder / FOLDER for folder in shared_folders()]
    of_version.insert(0, download_folder(index))
    return [*([Path(os.path.expanduser(folder))] for folder in listed if folder), of_version]


def find_model(model: str | Path, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """The file of a model, given as a path or by its name.

    An existing file comes first. A name is text without a slash and a suffix; it is looked up in
    each place of `model_folders` with `suffixes` in turn. Any other path is returned as it is,
    with the home folder for `~`.

    Raises:
        ModelError: there is no file of that name; the message lists the known names and the places.
    """
    path, name = Path(os.path.expanduser(model)), Path(model).name
    if isfile(path) or model != name or path.suffix or name in ("", ".."):
        return path
    places = model_folders(index := model_index())
    for place in places:
        for suffix in suffixes:
            for folder in place:
                if isfile(file := folder / f"{name}{suffix}"):
                    return file
    folders = [folder for place in places for folder in place]
    present: list[str] = []
    for folder in folders:
        with suppress(OSError):  # there is no such folder, or it cannot be read
            present += [file.stem for file in folder.iterdir() if file.suffix in suffixes]
    indexed = {
        entry.name: {Path(file.name).suffix for file in entry.files} for entry in index.models
    }
    if name in indexed and not indexed[name].intersection(suffixes):
        hint = f"{name} comes as a checkpoint only: `video-knet export {name} {name}.onnx`"
    else:
        of_kind = [entry for entry, kinds in indexed.items() if kinds.intersection(suffixes)]
        names = sorted(n for n in {*of_kind, *present} if "." not in n)
        hint = name_hint(name, names, " --checkpoint" if suffixes == CHECKPOINT else "")
    raise ModelError(
        f"no model {name!r}: expected a file, or {hint}; looked in {', '.join(map(str, folders))}"
    )


def name_hint(name: str, known: Sequence[str], options: str = "") -> str:
    """The known names, the nearest one, and how to download it, with `options` of the command."""
    near = get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]}?" if near and near[0] != name else ""
    get = f"`video-knet models get {near[0] if near else 'NAME'}{options}` downloads a model"
    return f"one of {', '.join(known)}{meant} ({get})"
