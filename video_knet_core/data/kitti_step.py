"""KITTI-STEP (Weber et al., "STEP: Segmenting and Tracking Every Pixel", 2021), in two layouts.

Official (deeplab2, g3doc/setup/kitti_step.md):
    images/SPLIT/0002/000000.png, panoptic_maps/SPLIT/0002/000000.png
Flattened (Video-K-Net, DATASET.md):
    video_sequence/SPLIT/000002_000000_leftImg8bit.png and ..._panoptic.png

Labels are RGB: R = class (a Cityscapes train id, 255 void), G * 256 + B = instance; 0 = stuff,
void, or a crowd of things.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..natural_order import natural_order
from .cityscapes_vps import NAMES
from .label_png import as_classes, label_file, read_rgb
from .sequences import first_folder, list_folders, list_images, match_frames
from .video import FrameFiles, Labels, Video, VideoList, class_kinds

KINDS = class_kinds(NAMES, {11, 13})
"""The classes of Cityscapes, of which person and car are things."""
IMAGE_END, LABEL_END = "_leftImg8bit", "_panoptic"


def open_kitti_step(root: Path, split: str) -> VideoList:
    """Open either layout; a split without label folder (test) has no labels.

    Raises:
        DatasetError: there is no such split, or it holds no sequence.
    """
    folder = first_folder(root / "images" / split, root / "video_sequence" / split)
    flat = folder.parent.name == "video_sequence"
    videos = _flat(folder) if flat else _official(folder, root / "panoptic_maps" / split)
    return VideoList("kitti_step", KINDS, videos, consecutive=True)


def _official(images: Path, panoptic: Path) -> list[Video]:
    read = read_step if panoptic.is_dir() or images.name != "test" else None
    names = list_folders(images)
    if read:
        names = natural_order({*names, *list_folders(panoptic)})
    return [
        Video(name, match_frames(list_images(images / name), labels), read)
        for name in names
        for labels in [list_images(panoptic / name) if read else None]
    ]


def _flat(folder: Path) -> list[Video]:
    """One folder of all sequences, told apart by the start of the file names."""
    files: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for stem, path in list_images(folder).items():
        for kind, end in enumerate((IMAGE_END, LABEL_END)):
            video, _, frame = stem.removesuffix(end).partition("_")
            if stem.endswith(end) and frame:
                files.setdefault(video, ({}, {}))[kind][frame] = path
    labelled = folder.name != "test" or any(labels for _, labels in files.values())
    read = read_step if labelled else None
    return [
        Video(name, match_frames(images, labels if labelled else None), read)
        for name, (images, labels) in files.items()
    ]


def read_step(frame: FrameFiles) -> Labels:
    """Labels of one frame; DatasetError names a class beyond the table."""
    path = label_file(frame)
    rgb = read_rgb(path)
    high, low = rgb[..., 1].astype(np.int64), rgb[..., 2]
    return Labels(as_classes(rgb[..., 0], len(KINDS), path), high * 256 + low)
