"""Tiny CamVid clips and sprites on disk, and an engine that knows a clip."""

from __future__ import annotations

import json

import cv2
import numpy as np

from video_knet_core.data.street_frame import STREET_CLASSES, StreetClip
from video_knet_core.engine.base import ModelInfo
from video_knet_core.types import ClassInfo, ClassTable, Detections

HEIGHT, WIDTH = 96, 128
SKY, ROAD, CAR = 0, 3, 8
"""Label values of CamVid."""
GREY_STEP = 20
"""Frame i of a clip is as grey as 40 + i * this."""
CUTOUT = (40, 20)
"""Height and width of the cut-outs."""
SPRITES = {
    "walker": ("person", (250, 10, 10)),
    "van": ("car", (10, 250, 10)),
    "lucia": ("person", (10, 10, 250)),
    "car-turn": ("car", (250, 250, 10)),
    "dog": ("animal", (0, 0, 0)),
}
"""Name -> class and colour; two of them are held out of training."""


def street_table(names=STREET_CLASSES):
    things = ("person", "cyclist", "vehicle")
    return ClassTable(tuple(ClassInfo(i, n, n in things, (0, 0, 0)) for i, n in enumerate(names)))


def write_camvid(root, frames=4, car=None):
    """A road under a sky; `car` = (rows, columns) of a car of the clip."""
    labels = np.full((HEIGHT, WIDTH), SKY, np.uint8)
    labels[HEIGHT // 2 :] = ROAD
    if car is not None:
        labels[car] = CAR
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for i in range(frames):
        image = np.full((HEIGHT, WIDTH, 3), 40 + i * GREY_STEP, np.uint8)
        cv2.imwrite(str(root / f"images/{i}.png"), image)
        cv2.imwrite(str(root / f"labels/{i}.png"), labels)
    return root


def write_sprites(root, names=tuple(SPRITES), frames=12, cut_off=()):
    """Blocks of one colour that go to the right; the frames `cut_off` touch the border."""
    index = {}
    height, width = CUTOUT
    for name in names:
        kind, colour = SPRITES[name]
        (root / name).mkdir(parents=True)
        rows = []
        for i in range(frames):
            block = np.full((height, width, 3), colour[::-1], np.uint8)
            cv2.imwrite(str(root / f"{name}/{i:05d}.jpg"), block)
            cv2.imwrite(str(root / f"{name}/{i:05d}.png"), np.full(CUTOUT, 255, np.uint8))
            x = 0 if i in cut_off else 10 + 2 * i
            box = [x, 10, x + width - 1, 10 + height - 1]
            rows.append({"frame": i, "bbox": box, "source_size": [200, 100], "scale": 1.0})
        index[name] = {"class": kind, "frames": rows}
    (root / "index.json").write_text(json.dumps(index))
    return root


class Oracle:
    """An engine that knows the clip; `swap` gives each object another look in every frame."""

    name = "oracle"

    def __init__(self, clip: StreetClip, swap=False, names=STREET_CLASSES):
        height, width = clip.frame(0).semantic.shape
        self.info = ModelInfo("oracle", street_table(names), height, width)
        self.steps = 0
        self._clip = clip
        self._swap = swap

    def step(self, image, state):
        self.steps += 1
        t = 0 if state is None else state
        truth = self._clip.frame(t)
        np.testing.assert_array_equal(image, truth.image)
        keys, slots = np.unique(
            truth.semantic.astype(np.int64) * 2**16 + truth.instance, return_inverse=True
        )
        slot_map = slots.reshape(truth.semantic.shape).astype(np.uint8) + 1
        slot_map[truth.semantic == 255] = 0
        looks = [
            np.random.default_rng([key, t if self._swap else 0]).normal(size=64) for key in keys
        ]
        areas = np.bincount(slot_map.ravel(), minlength=len(keys) + 1)[1:]
        scores = np.ones(len(keys), np.float32)
        return Detections(slot_map, keys // 2**16, scores, areas, np.array(looks)), t + 1

    def close(self):
        pass
