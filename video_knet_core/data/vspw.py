"""VSPW (Miao et al., "VSPW: A Large-scale Dataset for Video Scene Parsing in the Wild", 2021).

    SPLIT.txt, data/VIDEO/origin/*.jpg, data/VIDEO/mask/*.png

Mask values: 0 others, 1..124 classes, 255 void. Class ids here are the value - 1, in the data
set's own order, as its tools have them and as predictions are handed in; "others" is ignored.
There are no instances. `Labels.raw` has the mask values themselves, since the released mVC
distinguishes "others" and void.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..types import NO_CLASS
from .dataset_format import DatasetFormat
from .folders import listed_videos
from .label_png import look_up, read_values
from .predictions import ClassMap, png_predictions
from .video import Labels, VideoDataset, class_kinds

# fmt: off
NAMES = (
    "wall", "ceiling", "door", "stair", "ladder", "escalator", "Playground_slide",
    "handrail_or_fence", "window", "rail", "goal", "pillar", "pole", "floor", "ground", "grass",
    "sand", "athletic_field", "road", "path", "crosswalk", "building", "house", "bridge", "tower",
    "windmill", "well_or_well_lid", "other_construction", "sky", "mountain", "stone", "wood",
    "ice", "snowfield", "grandstand", "sea", "river", "lake", "waterfall", "water",
    "billboard_or_Bulletin_Board", "sculpture", "pipeline", "flag", "parasol_or_umbrella",
    "cushion_or_carpet", "tent", "roadblock", "car", "bus", "truck", "bicycle", "motorcycle",
    "wheeled_machine", "ship_or_boat", "raft", "airplane", "tyre", "traffic_light", "lamp",
    "person", "cat", "dog", "horse", "cattle", "other_animal", "tree", "flower", "other_plant",
    "toy", "ball_net", "backboard", "skateboard", "bat", "ball",
    "cupboard_or_showcase_or_storage_rack", "box", "traveling_case_or_trolley_case", "basket",
    "bag_or_package", "trash_can", "cage", "plate", "tub_or_bowl_or_pot", "bottle_or_cup",
    "barrel", "fishbowl", "bed", "pillow", "table_or_desk", "chair_or_seat", "bench", "sofa",
    "shelf", "bathtub", "gun", "commode", "roaster", "other_machine", "refrigerator",
    "washing_machine", "Microwave_oven", "fan", "curtain", "textiles", "clothes",
    "painting_or_poster", "mirror", "flower_pot_or_vase", "clock", "book", "tool", "blackboard",
    "tissue", "screen_or_television", "computer", "printer", "Mobile_phone", "keyboard",
    "other_electronic_product", "fruit", "food", "instrument", "train",
)
# fmt: on
"""Of the classes 1..124."""
CLASS_COUNT = len(NAMES)
CLASS_OF_VALUE = np.full(256, -1, np.int64)
CLASS_OF_VALUE[1 : CLASS_COUNT + 1] = np.arange(CLASS_COUNT)
CLASS_OF_VALUE[[0, NO_CLASS]] = NO_CLASS


def _open(root: Path, split: str) -> VideoDataset:
    videos = listed_videos(root, split, "data/{}/origin", "data/{}/mask", _read)
    return VideoDataset("vspw", class_kinds(NAMES, ()), videos)


def _read(path: str, _: int) -> Labels:
    values = read_values(path)
    semantic = look_up(values, CLASS_OF_VALUE, path).astype(np.uint8)
    none = np.zeros(semantic.shape, np.int64)
    return Labels(semantic, none, raw=values.astype(np.uint8))


def _encode_prediction(semantic: ClassMap) -> NDArray[np.uint8]:
    """The PNG of class ids 0..123 (mask value - 1); ValueError for others, 255 too: the released
    evaluation would count it as some other class."""
    if semantic.size and not 0 <= semantic.min() <= semantic.max() < CLASS_COUNT:
        raise ValueError(
            f"expected class ids 0..{CLASS_COUNT - 1} everywhere, "
            f"got {semantic.min()}..{semantic.max()}"
        )
    return semantic.astype(np.uint8)


def _decode_prediction(path: Path, dataset: VideoDataset) -> ClassMap:
    return look_up(read_values(path), np.arange(dataset.class_count), path)


VSPW = DatasetFormat(
    "vspw",
    "semantic",
    _open,
    ("{}.txt",),
    predictions=png_predictions(_encode_prediction, _decode_prediction),
)
