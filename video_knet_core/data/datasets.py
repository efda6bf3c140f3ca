"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..natural_order import natural_order
from .camvid import open_camvid
from .cityscapes_vps import open_cityscapes_vps
from .coco import open_coco_instances, open_coco_panoptic
from .kitti_step import open_kitti_step
from .own_data import open_own_data
from .video import DatasetError, VideoDataset
from .vipseg import open_vipseg
from .vspw import open_vspw
from .youtube_vis import open_youtube_vis


@dataclass(frozen=True)
class Layout:
    """A kind of data set: how it is opened, and what shows that a split is there."""

    open: Callable[[Path, str], VideoDataset]
    splits: tuple[str, ...]
    marks: tuple[str, ...]
    """Paths below the root, of which a split has one; {} stands for its name."""

    @property
    def validation(self) -> str:
        """The split that models are compared on."""
        return self.splits[1]


_SPLITS = ("train", "val", "test")
_COCO_SPLITS = ("train2017", "val2017")

DATASETS = {
    "kitti_step": Layout(open_kitti_step, _SPLITS, ("images/{}", "video_sequence/{}")),
    "cityscapes_vps": Layout(open_cityscapes_vps, _SPLITS, ("{}/img", "{}/img_all")),
    "vipseg": Layout(open_vipseg, _SPLITS, ("{}.txt",)),
    "vspw": Layout(open_vspw, _SPLITS, ("{}.txt",)),
    "youtube_vis_2019": Layout(
        open_youtube_vis, ("train", "valid", "test"), ("annotations/{}.json",)
    ),
    "coco_panoptic": Layout(open_coco_panoptic, _COCO_SPLITS, ("annotations/panoptic_{}.json",)),
    "coco_instances": Layout(open_coco_instances, _COCO_SPLITS, ("annotations/instances_{}.json",)),
    "camvid": Layout(open_camvid, ("train", "val_clip"), ("{}/labels",)),
    "own": Layout(open_own_data, _SPLITS, ("{}/images",)),
}


def open_dataset(name: str, root: str | Path, split: str) -> VideoDataset:
    """Open one split of a data set; no image is read.

    Args:
        name: one of `DATASETS`.
        root: the folder that holds the splits.
        split: "train", "val" ("valid" of YouTube-VIS) or "test"; of COCO "train2017", "val2017".

    Raises:
        DatasetError: an unknown name, a root or split that is not there, or a faulty index.
    """
    layout, root = layout_of(name), Path(root)
    if split not in splits_of(name, root):
        marks = " or ".join(mark.format(split) for mark in layout.marks)
        raise DatasetError(
            f"{name}: {root} has no split {split!r} ({marks}), found {_content(root)}"
        )
    return layout.open(root, split)


def splits_of(name: str, root: str | Path) -> tuple[str, ...]:
    """The splits that `root` has, of those known; DatasetError for an unknown name."""
    layout = layout_of(name)
    return tuple(
        split
        for split in layout.splits
        if any((Path(root) / mark.format(split)).exists() for mark in layout.marks)
    )


def layout_of(name: str) -> Layout:
    """DatasetError names the data sets there are."""
    if name not in DATASETS:
        raise DatasetError(f"the data set must be one of {sorted(DATASETS)}, found {name!r}")
    return DATASETS[name]


def _content(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    names = natural_order(path.name for path in root.iterdir())
    return ", ".join(names[:10]) or "an empty folder"
