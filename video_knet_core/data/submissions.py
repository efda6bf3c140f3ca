"""Results in the form that the evaluation servers and programs of the data sets take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics.rle import RunLengths
from ..output_files import make_folder, write_text
from ..types import NO_CLASS
from . import vipseg, vspw
from .label_png import segment_colors, write_png

STEP_IDS = 1 << 16


def step_rgb(semantic: NDArray[np.integer], instance: NDArray) -> NDArray[np.uint8]:
    """[H, W, 3] of the KITTI-STEP code: R = class, G * 256 + B = instance.

    Args:
        semantic: [H, W] class ids, 255 = void.
        instance: [H, W] ids 0..65535, 0 for stuff.

    Raises:
        ValueError: the maps differ in size, or an id does not fit.
    """
    _check_maps(semantic, instance)
    if instance.size and not 0 <= instance.min() <= instance.max() < STEP_IDS:
        raise ValueError(
            f"instance ids must be 0..{STEP_IDS - 1}, found {instance.min()}..{instance.max()}"
        )
    return np.stack([semantic, instance >> 8, instance & 255], axis=-1).astype(np.uint8)


def write_step(
    out: Path, video: str, frame: str, semantic: NDArray[np.integer], instance: NDArray
) -> Path:
    """Write OUT/VIDEO/FRAME.png; returns the path. Raises as `step_rgb`, and OSError."""
    path = out / video / f"{frame}.png"
    write_png(path, step_rgb(semantic, instance))
    return path


def write_vspw(out: Path, video: str, frame: str, semantic: NDArray[np.integer]) -> Path:
    """Write OUT/VIDEO/FRAME.png of class ids [H, W], 0..123 (mask value - 1); returns the path.

    Raises:
        ValueError: a value is no class. 255 is none either: the released evaluation would book it
            under some other class.
        OSError: the file cannot be written.
    """
    if semantic.size and not 0 <= semantic.min() <= semantic.max() < vspw.CLASS_COUNT:
        raise ValueError(
            f"class ids must be 0..{vspw.CLASS_COUNT - 1} everywhere, "
            f"got {semantic.min()}..{semantic.max()}"
        )
    path = out / video / f"{frame}.png"
    write_png(path, semantic.astype(np.uint8))
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
        self._segments = _SegmentIds()

    def add(
        self, video: str, image_id: str, semantic: NDArray[np.integer], instance: NDArray
    ) -> None:
        """Write the PNG of one frame.

        Args:
            video: name of the video; ids start anew with another one.
            image_id: the image's name without _newImg8bit.png or _leftImg8bit.png.
            semantic: [H, W] class ids, 255 = void.
            instance: [H, W] ids, 0 for stuff; those of a void pixel do not count.
        """
        if video != self._video:
            self._video, self._segments = video, _SegmentIds()
        png = f"{image_id}.png"
        infos = self._segments.write(self.out / "pan_pred" / png, semantic, instance)
        self._annotations.append({"image_id": image_id, "file_name": png, "segments_info": infos})

    def close(self) -> Path:
        """Write pred.json; returns its path."""
        return _write_json(self.out / "pred.json", {"annotations": self._annotations})


class VipsegWriter:
    """OUT/pan_pred/VIDEO/FRAME.png and OUT/pred.json, as VIPSeg's eval_vpq_vspw.py reads them.

    Categories are the data set's own, 0..123, not the class ids of its reader here.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        self._segments = _SegmentIds()

    def add(self, video: str, frame: str, semantic: NDArray[np.integer], instance: NDArray) -> None:
        """Write the PNG of one frame; see `CityscapesVpsWriter.add`. Videos come one by one."""
        if video not in self._annotations:
            self._annotations[video], self._segments = [], _SegmentIds()
        png = f"{frame}.png"
        infos = self._segments.write(self.out / "pan_pred" / video / png, semantic, instance)
        for info in infos:
            info["category_id"] = int(vipseg.CATEGORY_OF_CLASS[info["category_id"]]) - 1
        entry = {"image_id": frame, "file_name": png, "segments_info": infos}
        self._annotations[video].append(entry)

    def close(self) -> Path:
        """Write pred.json; returns its path."""
        videos = [
            {"video_id": name, "annotations": entries}
            for name, entries in self._annotations.items()
        ]
        return _write_json(self.out / "pred.json", {"annotations": videos})


class _SegmentIds:
    """Numbers the segments of one video: a class and an instance id together keep their number."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}

    def write(self, path: Path, semantic: NDArray, instance: NDArray) -> list[dict[str, Any]]:
        """Write the PNG of segment ids, 0 = void; returns a row for each segment."""
        _check_maps(semantic, instance)
        joint = np.where(semantic == NO_CLASS, -1, instance.astype(np.int64) * 256 + semantic)
        found, positions = np.unique(joint, return_inverse=True)
        ids = np.array([self._id_of(int(value)) for value in found], np.int64)
        id_map = ids[positions].reshape(joint.shape)
        write_png(path, segment_colors(id_map))
        return [
            _segment_row(int(i), int(value) % 256, id_map == i)
            for i, value in zip(ids, found, strict=True)
            if i
        ]

    def _id_of(self, joint: int) -> int:
        if joint < 0:
            return 0
        segment = (joint % 256, joint // 256)
        return self._ids.setdefault(segment, len(self._ids) + 1)


class YoutubeVisWriter:
    """A results.json of tracks: a list of entries with a mask, or null, for each frame."""

    def __init__(self, path: Path, compressed: bool = True) -> None:
        self.path = path
        self.compressed = compressed
        self._tracks: list[dict[str, Any]] = []

    def add(
        self,
        video_id: int,
        class_id: int,
        score: float,
        masks: NDArray[np.bool_] | Sequence[RunLengths | None],
    ) -> None:
        """Add one track.

        Args:
            video_id: `id` of the video in the official index.
            class_id: 0..39; written as category 1..40.
            score: 0..1.
            masks: [T, H, W], or run lengths of all frames of the video; one without pixels is
                written as null.
        """
        if isinstance(masks, np.ndarray):
            if masks.ndim != 3:
                raise ValueError(f"masks must be [T, H, W], found {masks.shape}")
            masks = [RunLengths.from_mask(mask) for mask in masks]
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
        return _write_json(self.path, self._tracks)

    def _entry(self, runs: RunLengths | None) -> dict[str, Any] | None:
        if runs is None or not runs.area:
            return None
        if self.compressed:
            return runs.to_coco()
        return {"size": list(runs.size), "counts": runs.counts.tolist()}


def _segment_row(segment_id: int, category: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    area = int(mask.sum())
    return {"id": segment_id, "category_id": category, "iscrowd": 0, "bbox": box, "area": area}


def _check_maps(semantic: NDArray, instance: NDArray) -> None:
    """ValueError unless both are [H, W], with class ids of 8 bits."""
    if semantic.ndim != 2 or semantic.shape != instance.shape:
        raise ValueError(
            f"semantic and instance must both be [H, W], got {semantic.shape}, {instance.shape}"
        )
    if semantic.size and not 0 <= semantic.min() <= semantic.max() <= NO_CLASS:
        raise ValueError(f"class ids must be 0..{NO_CLASS}, got {semantic.min()}..{semantic.max()}")


def _write_json(path: Path, content: Any) -> Path:
    make_folder(path.parent)
    write_text(path, json.dumps(content))
    return path
