"""VIPSeg (Miao et al., "Large-scale Video Panoptic Segmentation in the Wild", 2022).

    SPLIT.txt, imgs/VIDEO/*.jpg (or images/), panomasks/VIDEO/*.png

Mask values: 0 void; 1..124 = category; above, category * 100 + instance, instances from 0. Both the
archive and its 720p version (change2_720p.py) have them; the RGB masks made later are not needed.
Predictions are of the data set's own categories 0..123, as its eval_vpq_vspw.py reads them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..types import NO_CLASS
from .dataset_format import DatasetFormat, PanopticRules
from .folders import first_folder, listed_videos
from .label_png import look_up, read_values
from .panoptic_json import PanopticFiles
from .video import Labels, VideoDataset, class_kinds
from .vspw import NAMES

CLASS_COUNT = len(NAMES)
# fmt: off
_THING_CATEGORIES = (
    3, 5, 9, 11, 42, 44, 45, 47, 48, 49, 50, 51, 52, 53, 55, 56, 57, 61, 62, 63, 64, 65, 66,
    73, 75, 77, 78, 79, 80, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 96, 97, 98, 100, 101,
    102, 103, 107, 108, 109, 110, 115, 116, 117, 118, 119, 123, 124,
)
# fmt: on
"""Categories with instances, as panoVIPSeg_categories.json has them, counted from 1."""
THINGS = frozenset(range(CLASS_COUNT - len(_THING_CATEGORIES), CLASS_COUNT))
_VOID_VALUES = (0, 200)
"""Void; the authors of Video K-Net take the stray value 200 as void too."""
_STUFF_CATEGORIES = tuple(c for c in range(1, CLASS_COUNT + 1) if c not in _THING_CATEGORIES)
_CATEGORY_OF_CLASS = np.array(_STUFF_CATEGORIES + _THING_CATEGORIES, np.int64)
"""[124] category of each class id: stuff, then things, as in config/models/vipseg_r50.yaml."""
KINDS = class_kinds([NAMES[c - 1] for c in _CATEGORY_OF_CLASS], THINGS)
"""The categories are those of VSPW, in another order."""
CLASS_OF_VALUE = np.full((CLASS_COUNT + 1) * 100, -1, np.int64)
"""[12500] class id of each mask value; -1 where there is none."""
CLASS_OF_VALUE[_CATEGORY_OF_CLASS] = np.arange(CLASS_COUNT)
for _category in _THING_CATEGORIES:
    CLASS_OF_VALUE[_category * 100 : _category * 100 + 100] = CLASS_OF_VALUE[_category]
CLASS_OF_VALUE[list(_VOID_VALUES)] = NO_CLASS


def _open(root: Path, split: str) -> VideoDataset:
    images = first_folder(root / "imgs", root / "images")
    videos = listed_videos(root, split, f"{images.name}/{{}}", "panomasks/{}", _read)
    return VideoDataset("vipseg", KINDS, videos)


def _read(path: str, _: int) -> Labels:
    """The id of an instance is its mask value, since theirs start at 0."""
    values = read_values(path)
    semantic = look_up(values, CLASS_OF_VALUE, path).astype(np.uint8)
    objects = (values > CLASS_COUNT) & (semantic != NO_CLASS)
    return Labels(semantic, np.where(objects, values, 0).astype(np.int64))


VIPSEG = DatasetFormat(
    "vipseg",
    "panoptic",
    _open,
    ("{}.txt",),
    predictions=PanopticFiles(_CATEGORY_OF_CLASS - 1, by_video=True).form(),
    rules=PanopticRules((1, 2, 4, 6, 8), crowd="segment", authors_windows=(1, 2, 4, 6)),
)
"""Its labels have no crowds. The windows are those of the released eval_vpq_vspw.py."""
