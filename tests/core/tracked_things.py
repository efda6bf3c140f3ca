"""Detections of things with a look and a place, as trackers get them; one unit of time is a frame
at 10 Hz."""

from __future__ import annotations

import dataclasses

import numpy as np

from video_knet_core.engine.base import ModelInfo
from video_knet_core.geometry import Regions
from video_knet_core.types import ClassInfo, ClassTable, Detections, TrackTable

PERSON, CYCLIST, VEHICLE = 8, 9, 10
FRAME = 100_000_000


@dataclasses.dataclass
class Thing:
    """One segment; `look` is its embedding or the direction of it, `at` the upper left of its box
    of `size`."""

    look: np.ndarray | int
    score: float = 0.9
    at: tuple[float, float] = (100, 100)
    size: tuple[float, float] = (20, 40)
    class_id: int = VEHICLE


def seen(*things: Thing) -> Detections:
    """The detections of a frame."""
    boxes = [(*t.at, *t.size) for t in things]
    regions = Regions(
        areas=np.full(len(things), 500),
        boxes=np.array(boxes, np.int64).reshape(-1, 4),
        centroids=np.array([(x + 9.5, y + 19.5) for x, y, _, _ in boxes]).reshape(-1, 2),
        truncated=np.zeros(len(things), bool),
    )
    looks = [20 * np.eye(64)[t.look] if isinstance(t.look, int) else t.look for t in things]
    return Detections(
        segment_map=np.zeros((1, 1), np.uint8),
        class_ids=np.array([t.class_id for t in things], np.int64),
        scores=np.array([t.score for t in things], np.float32),
        areas=regions.areas,
        embeddings=np.array(looks, np.float32).reshape(len(things), 64),
        regions=regions,
        image_size=(480, 640),
    )


def rows(update) -> TrackTable:
    """The rows of the detections."""
    return TrackTable(update.rows)


def ids(update) -> list[int]:
    """The track ids of the detections."""
    return update.rows["track_id"].tolist()


class OneThing:
    """A runtime that returns one vehicle, always the same, and no kernels; its state counts."""

    name = "one thing"
    info = ModelInfo("one thing", ClassTable((ClassInfo(0, "vehicle", True, (1, 1, 1)),)), 32, 32)

    def step(self, image, state):
        segments = Detections(
            segment_map=np.ones((8, 8), np.uint8),
            class_ids=np.zeros(1, np.int64),
            scores=np.full(1, 0.9, np.float32),
            areas=np.full(1, 64),
            embeddings=np.ones((1, 4), np.float32),
        )
        return segments, (state or 0) + 1

    def close(self):
        pass
