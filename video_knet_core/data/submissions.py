"""Results in the form that the evaluation servers of the data sets take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.rle import RunLengths
from ..types import NO_CLASS
from .label_png import segment_colors, write_png

STEP_IDS = 1 << 16


def step_rgb(semantic: NDArray[np.uint8], instance: NDArray) -> NDArray[np.uint8]:
    """[H, W, 3] of the KITTI-STEP code: R = class, G * 256 + B = instance.

    Args:
        semantic: [H, W] class ids, 255 = void.
        instance: [H, W] ids 0..65535, 0 for stuff.

    Raises:
        ValueError: the maps differ in size, or an id does not fit.
    """
    _check_sizes(semantic, instance)
    if instance.size and not 0 <= instance.min() <= instance.max() < STEP_IDS:
        raise ValueError(
            f"instance ids must be 0..{STEP_IDS - 1}, found {instance.min()}..{instance.max()}"
        )
    return np.stack([semantic, instance >> 8, instance & 255], axis=-1).astype(np.uint8)


def write_step(
    out: Path, video: str, frame: str, semantic: NDArray[np.uint8], instance: NDArray
) -> Path:
    """Write OUT/VIDEO/FRAME.png; returns the path. Raises as `step_rgb`, and OSError."""
    path = out / video / f"{frame}.png"
    write_png(path, step_rgb(semantic, instance))
    return path


class CityscapesVpsWriter:
    """OUT/pan_pred/IMAGE.png and OUT/pred.json, one annotation for each frame in the order given.

    Add the labelled frames (the 5th, 10th, .. 30th of a video) in the order of the ground truth,
    then `close`. Ids of segments are unique within a video and stay with their object.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._annotations: list[dict[str, Any]] = []
        self._video: str | None = None
        self._segments: dict[tuple[int, int], int] = {}

    def add(
        self, video: str, image_id: str, semantic: NDArray[np.uint8], instance: NDArray
    ) -> None:
        """Write the PNG of one frame.

        Args:
            video: name of the video; ids start anew with another one.
            image_id: the image's name without _newImg8bit.png or _leftImg8bit.png.
            semantic: [H, W] class ids, 255 = void.
            instance: [H, W] ids, 0 for stuff; those of a void pixel do not count.
        """
        _check_sizes(semantic, instance)
        if video != self._video:
            self._video, self._segments = video, {}
        ids, infos = self._numbered(semantic, instance)
        write_png(self.out / "pan_pred" / f"{image_id}.png", segment_colors(ids))
        self._annotations.append(
            {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": infos}
        )

    def close(self) -> Path:
        """Write pred.json; returns its path."""
        path = self.out / "pred.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"annotations": self._annotations}))
        return path

    def _numbered(self, semantic: NDArray, instance: NDArray) -> tuple[NDArray, list[dict]]:
        """[H, W] segment ids, 0 = void, and a row for each segment."""
        joint = np.where(semantic == NO_CLASS, -1, instance.astype(np.int64) * 256 + semantic)
        found, positions = np.unique(joint, return_inverse=True)
        ids = np.array([self._id_of(int(value)) for value in found], np.int64)
        id_map = ids[positions].reshape(joint.shape)
        infos = [
            _segment_row(int(i), int(value) % 256, id_map == i)
            for i, value in zip(ids, found, strict=True)
            if i
        ]
        return id_map, infos

    def _id_of(self, joint: int) -> int:
        if joint < 0:
            return 0
        segment = (joint % 256, joint // 256)
        return self._segments.setdefault(segment, len(self._segments) + 1)


class YoutubeVisWriter:
    """A results.json of tracks: a list of entries with a mask, or null, for each frame."""

    def __init__(self, path: Path, compressed: bool = True) -> None:
        self.path = path
        self.compressed = compressed
        self._tracks: list[dict[str, Any]] = []

    def add(self, video_id: int, class_id: int, score: float, masks: NDArray[np.bool_]) -> None:
        """Add one track.

        Args:
            video_id: `id` of the video in the official index.
            class_id: 0..39; written as category 1..40.
            score: 0..1.
            masks: [T, H, W], all frames of the video; one without pixels is written as null.
        """
        if masks.ndim != 3:
            raise ValueError(f"masks must be [T, H, W], found {masks.shape}")
        self._tracks.append(
            {
                "video_id": video_id,
                "category_id": class_id + 1,
                "score": float(score),
                "segmentations": [self._entry(mask) for mask in masks],
            }
        )

    def close(self) -> Path:
        """Write the file; returns its path."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._tracks))
        return self.path

    def _entry(self, mask: NDArray[np.bool_]) -> dict[str, Any] | None:
        if not mask.any():
            return None
        runs = RunLengths.from_mask(mask)
        if self.compressed:
            return runs.to_coco()
        return {"size": list(runs.size), "counts": runs.counts.tolist()}


def _segment_row(segment_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    area = int(mask.sum())
    return {"id": segment_id, "category_id": category, "iscrowd": 0, "bbox": box, "area": area}


def _check_sizes(semantic: NDArray, instance: NDArray) -> None:
    if semantic.ndim != 2 or semantic.shape != instance.shape:
        raise ValueError(
            f"semantic and instance must both be [H, W], found {semantic.shape}, {instance.shape}"
        )
