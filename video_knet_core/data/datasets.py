"""The data sets by name. To add one, write its module and add its `DatasetFormat` here."""

from __future__ import annotations

from pathlib import Path

from .camvid import CAMVID
from .cityscapes_vps import CITYSCAPES_VPS
from .coco import COCO_INSTANCES, COCO_PANOPTIC, CUSTOM_COCO
from .custom import CUSTOM
from .dataset_format import DatasetFormat
from .kitti_step import KITTI_STEP
from .video import DatasetError, VideoDataset
from .vipseg import VIPSEG
from .vspw import VSPW
from .youtube_vis import YOUTUBE_VIS

DATASETS = {
    dataset.name: dataset
    for dataset in (
        *(KITTI_STEP, CITYSCAPES_VPS, VIPSEG, VSPW, YOUTUBE_VIS),
        *(COCO_PANOPTIC, COCO_INSTANCES, CAMVID, CUSTOM, CUSTOM_COCO),
    )
}


def dataset_format(name: str) -> DatasetFormat:
    """One of `DATASETS`; DatasetError lists them for an unknown name."""
    if name not in DATASETS:
        raise DatasetError(f"expected a data set of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name]


def open_dataset(name: str, root: str | Path, split: str) -> VideoDataset:
    """Open one split of a data set of `DATASETS`; no image is read.

    `root` holds the splits "train", "val" ("valid" of YouTube-VIS) and "test"; of COCO "train2017"
    and "val2017"; of `custom_coco` it may be an index. DatasetError if name, root or split are
    unknown, or an index is faulty.
    """
    return dataset_format(name).open(Path(root), split)
