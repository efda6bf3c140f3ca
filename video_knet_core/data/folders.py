"""Sequences as folders: what files there are, and which image belongs to which labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..image_files import is_image
from ..natural_order import is_hidden, natural_order
from .video import DatasetError, FrameFiles, LabelReader, Video


def list_images(folder: str | Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Name without suffix -> path of the images of a folder, in natural order of the names.

    `suffixes`, in lower case, choose among them where frames and labels share a folder
    (x.jpg beside x.png). Empty if it is no folder. DatasetError if two images differ in the suffix
    only.
    """
    try:
        files = [f for f in os.listdir(folder) if is_image(f) and f.lower().endswith(suffixes)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    images: dict[str, str] = {}
    for name in natural_order(files):
        stem, path = os.path.splitext(name)[0], f"{folder}/{name}"
        if stem in images:
            raise DatasetError(f"expected one image called {stem}, got {images[stem]} and {path}")
        images[stem] = path
    return images


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders in `folder`, in natural order, without hidden ones.

    DatasetError if it is no folder or has none.
    """
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not is_hidden(e.name)]
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"there is no folder {folder}") from None
    if not names:
        raise DatasetError(f"{folder} holds no folders, expected one for each video")
    return natural_order(names)


def first_folder(*folders: Path) -> Path:
    """The first of `folders` there is; DatasetError naming them all if there is none."""
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DatasetError(f"there is no folder {' or '.join(map(str, folders))}")


def _read_names(path: Path) -> list[str]:
    """The lines of a split list as val.txt; DatasetError if it is missing, empty or no text."""
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, ValueError) as error:
        raise DatasetError(f"the list of videos {path} cannot be read: {error}") from None
    if not names:
        raise DatasetError(f"{path} is empty, expected one video on each line")
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise DatasetError(f"{path}: expected videos of the data set, got {name!r}")
    return names


def match_frames(
    images: Mapping[str, str], labels: Mapping[str, str] | None
) -> tuple[FrameFiles, ...]:
    """One frame for every name that has an image, or labels, or both, in natural order.

    Frames that lack one stay in: they are named when they are read, and by `validate-data`.
    """
    names = natural_order(images.keys() | (labels or {}).keys())
    return tuple(FrameFiles(name, images.get(name), (labels or {}).get(name)) for name in names)


def folder_video(name: str, images: Path, labels: Path | None, read: LabelReader) -> Video:
    """The video of a folder of images and a folder of labels, which None is published without."""
    if labels is None:
        return Video(name, match_frames(list_images(images), None))
    return Video(name, match_frames(list_images(images), list_images(labels)), read)


def listed_videos(
    root: Path, split: str, images: str, labels: str, read: LabelReader
) -> list[Video]:
    """The videos of ROOT/SPLIT.txt, each with a folder of images and one of labels.

    `images` and `labels` are relative to `root`, with {} for the name of the video. A video without
    its folders has no frames. The split `test` may be without labels.
    """
    folders = {
        name: (root / images.format(name), root / labels.format(name))
        for name in _read_names(root / f"{split}.txt")
    }
    labelled = split != "test" or any(folder.is_dir() for _, folder in folders.values())
    return [
        folder_video(name, image_folder, label_folder if labelled else None, read)
        for name, (image_folder, label_folder) in folders.items()
    ]
