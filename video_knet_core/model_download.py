"""Downloads the models of this version from its release, into the cache."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from os.path import isfile
from pathlib import Path

from .engine.base import ModelError
from .engine.cache_files import make_cache_folder, replacing_whole
from .engine.model_index import (
    CHECKPOINT,
    SUFFIXES,
    IndexedFile,
    IndexedModel,
    ModelIndex,
    download_folder,
    find_model,
    model_folders,
    model_index,
    name_hint,
)
from .progress import progress_bar

PROJECT = "https://github.com/video-knet-ros/video_knet_ros"
TIMEOUT_S = 30.0
"""For which a server may be silent."""
_BLOCK = 1 << 18
"""Bytes that are read at once."""

_OTHER_WAY = (
    "try again, or copy the file from another machine into a folder and name that in "
    "VIDEO_KNET_MODELS"
)

_log = logging.getLogger(__name__)


class DownloadError(Exception):
    """A file cannot be downloaded or stored; the message has the reason."""


def get_model(name: str, checkpoint: bool = False) -> Path:
    """The file of a model of this version; it is downloaded unless it is here.

    Args:
        checkpoint: the checkpoint in place of the exported model; a model that has no other file
            comes as its checkpoint anyway.

    Raises:
        ModelError: there is no such model, or no index.
        DownloadError: there is no network, the file is another one than expected, or the disk is
            full. A file that is there stays as it was.
    """
    index = model_index()
    files = {model.name: model.files for model in index.models}
    if name not in files:
        hint = name_hint(Path(name).stem, list(files))
        raise ModelError(f"no model {name!r}: expected {hint}")
    file = files[name][-1 if checkpoint else 0]
    path = find_file(file, index) or _download(file, index)
    if (taken := find_model(name, CHECKPOINT if checkpoint else SUFFIXES)) != path:
        words = "%s is here, but the name %s stands for another file: delete %s, or give the path"
        _log.warning(words, path, name, taken)
    return path


def find_file(file: IndexedFile, index: ModelIndex) -> Path | None:
    """Where a file of the index can be read, with its content; None if it is nowhere."""
    for folder in chain.from_iterable(model_folders(index)):
        path = folder / file.name
        with suppress(OSError):
            size = path.stat().st_size if isfile(path) else -1
            if size == file.bytes and sha256_of(path) == file.sha256:
                return path
    return None


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card_link(model: IndexedModel, index: ModelIndex) -> str:
    """The address of the model card."""
    return f"{PROJECT}/blob/{index.release}/{model.card}"


def _download(file: IndexedFile, index: ModelIndex) -> Path:
    base = os.environ.get("VIDEO_KNET_MODELS_URL") or f"{PROJECT}/releases/download/{index.release}"
    url, path = f"{base.rstrip('/')}/{file.name}", download_folder(index) / file.name
    _log.info("downloading %s, %.1f MB", url, file.bytes / 1e6)
    try:
        make_cache_folder(path.parent)
        with (
            replacing_whole(path, 0o644) as partial,
            progress_bar(
                description=file.name, total=file.bytes, unit="B", unit_scale=True, leave=False
            ) as bar,
        ):
            for block in _verified(_blocks(url), url, file):
                partial.write(block)
                bar.update(len(block))
    except OSError as error:
        hint = "set VIDEO_KNET_CACHE to another folder"
        raise DownloadError(f"cannot write {path}: {error.strerror or error}; {hint}") from None
    return path


def _verified(blocks: Iterator[bytes], url: str, file: IndexedFile) -> Iterator[bytes]:
    """The blocks as they come; in the end DownloadError unless they are the expected file."""
    digest, length = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        length += len(block)
        if length > file.bytes:
            break
        yield block
    if length != file.bytes:
        more = "or more " if length > file.bytes else ""
        found = f"{url}: expected {file.bytes} bytes, got {length} {more}".rstrip()
        raise DownloadError(f"{found}; {_OTHER_WAY}")
    if (got := digest.hexdigest()) != file.sha256:
        raise DownloadError(f"{url}: expected SHA-256 {file.sha256}, got {got}; {_OTHER_WAY}")


def _blocks(url: str) -> Iterator[bytes]:
    """The content at an address; DownloadError if it cannot be read."""
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:
            while block := answer.read(_BLOCK):
                yield block
    except (OSError, HTTPException, ValueError) as error:  # ValueError: it is no address
        reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
        reason = reason or type(error).__name__
        raise DownloadError(f"cannot download {url}: {reason}; {_OTHER_WAY}") from None
