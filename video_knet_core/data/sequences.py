"""Sequences as folders: what files there are, and which image belongs to which labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .frames import IMAGE_SUFFIXES
from .video import DatasetError, FrameFiles, LabelReader, Video


def list_images(folder: str | Path) -> dict[str, str]:
    """Name without suffix -> path of the images of a folder, by name; {} if it is no folder."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    split = (os.path.splitext(name) for name in names)
    return {stem: f"{folder}/{stem}{end}" for stem, end in split if end.lower() in IMAGE_SUFFIXES}


def list_folders(folder: str | Path) -> list[str]:
    """Names of the folders in `folder`, sorted; DatasetError if it is no folder or has none."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"there is no folder {folder}") from None
    if not names:
        raise DatasetError(f"{folder} holds no folders, wanted one for each video")
    return names


def first_folder(*folders: Path) -> Path:
    """The first of `folders` there is; DatasetError naming them all if there is none."""
    for folder in folders:
        if folder.is_dir():
            return folder
    raise DatasetError(f"there is no folder {' or '.join(map(str, folders))}")


def read_names(path: Path) -> list[str]:
    """The lines of a split list such as val.txt; DatasetError if it is missing or empty."""
    if not path.is_file():
        raise DatasetError(f"there is no list of videos {path}")
    names = path.read_text().split()
    if not names:
        raise DatasetError(f"{path} is empty, wanted one video on each line")
    return names


def match_frames(
    images: Mapping[str, str], labels: Mapping[str, str] | None
) -> tuple[FrameFiles, ...]:
    """One frame for every name that has an image, or labels, or both, sorted by name.

    Frames that lack one stay in: they are named when they are read, and by `validate-data`.
    """
    if labels is None:
        return tuple(FrameFiles(name, images[name]) for name in sorted(images))
    names: Iterable[str] = sorted(images.keys() | labels.keys())
    return tuple(FrameFiles(name, images.get(name), labels.get(name)) for name in names)


def listed_videos(
    root: Path, split: str, images: str, labels: str, read: LabelReader
) -> list[Video]:
    """The videos of ROOT/SPLIT.txt, each with a folder of images and one of labels.

    `images` and `labels` are relative to `root`, with {} for the name of the video. A video without
    its folders has no frames. The split `test` may be without labels.
    """
    names = read_names(root / f"{split}.txt")
    labelled = split != "test" or any((root / labels.format(name)).is_dir() for name in names)
    return [
        Video(
            name,
            match_frames(
                list_images(root / images.format(name)),
                list_images(root / labels.format(name)) if labelled else None,
            ),
            read if labelled else None,
        )
        for name in names
    ]
