"""KITTI-STEP (Weber et al., "STEP: Segmenting and Tracking Every Pixel", 2021), in two layouts.

Official (deeplab2, g3doc/setup/kitti_step.md):
    images/SPLIT/0002/000000.png, panoptic_maps/SPLIT/0002/000000.png
Flattened (Video-K-Net, DATASET.md):
    video_sequence/SPLIT/000002_000000_leftImg8bit.png and ..._panoptic.png

Labels are RGB: R = class (a Cityscapes train id, 255 void), G * 256 + B = instance; 0 = stuff,
void, or a crowd of things. Predictions have the same code, as OUT/VIDEO/FRAME.png.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..natural_order import natural_order
from .cityscapes_vps import CITYSCAPES_RULES, NAMES
from .dataset_format import DatasetFormat
from .folders import first_folder, folder_video, list_folders, list_images, match_frames
from .label_png import class_values, look_up, read_rgb, step_rgb
from .predictions import PanopticMaps, PredictionFormat, png_predictions
from .video import Labels, Video, VideoDataset, class_kinds

KINDS = class_kinds(NAMES, {11, 13})
"""The classes of Cityscapes, of which person and car are things."""
IMAGE_END, LABEL_END = "_leftImg8bit", "_panoptic"


def _open(root: Path, split: str) -> VideoDataset:
    """Either layout; a split without label folder (test) has no labels."""
    folder = first_folder(root / "images" / split, root / "video_sequence" / split)
    flat = folder.parent.name == "video_sequence"
    videos = _flat(folder) if flat else _official(folder, root / "panoptic_maps" / split)
    return VideoDataset("kitti_step", KINDS, videos, consecutive=True)


def _official(images: Path, panoptic: Path) -> list[Video]:
    labelled = panoptic.is_dir() or images.name != "test"
    names = list_folders(images)
    if labelled:
        names = natural_order({*names, *list_folders(panoptic)})
    return [
        folder_video(name, images / name, panoptic / name if labelled else None, _read)
        for name in names
    ]


def _flat(folder: Path) -> list[Video]:
    """One folder of all sequences, distinguished by the start of the file names."""
    files: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for stem, path in list_images(folder).items():
        for kind, end in enumerate((IMAGE_END, LABEL_END)):
            video, _, frame = stem.removesuffix(end).partition("_")
            if stem.endswith(end) and frame:
                files.setdefault(video, ({}, {}))[kind][frame] = path
    labelled = folder.name != "test" or any(labels for _, labels in files.values())
    read = _read if labelled else None
    return [
        Video(name, match_frames(images, labels if labelled else None), read)
        for name, (images, labels) in files.items()
    ]


def _read(path: str, _: int) -> Labels:
    return Labels(*_read_maps(path, len(KINDS)))


def _read_maps(path: str | Path, class_count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    rgb = read_rgb(path)
    instance = rgb[..., 1].astype(np.int64) * 256 + rgb[..., 2]
    semantic = look_up(rgb[..., 0], class_values(class_count), path)
    return semantic.astype(np.uint8), instance


STEP_PREDICTIONS: PredictionFormat[PanopticMaps] = png_predictions(
    lambda maps: step_rgb(*maps), lambda path, dataset: _read_maps(path, dataset.class_count)
)
KITTI_STEP = DatasetFormat(
    "kitti_step",
    "panoptic",
    _open,
    ("images/{}", "video_sequence/{}"),
    predictions=STEP_PREDICTIONS,
    rules=CITYSCAPES_RULES,
)
