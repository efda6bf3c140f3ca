"""How good a model is, run as it is used: frame after frame through the predictor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..config import TrackingConfig
from ..data.camvid import CamVid
from ..data.synthetic_street import SyntheticStreet
from ..engine.runtime import ModelError, Runtime
from ..metrics.stq import SegmentationTrackingQuality
from ..metrics.vss import MeanIoU
from ..predictor import VideoPredictor
from ..types import NO_CLASS, ClassTable

HELD_OUT_SEED = 1_000_000
"""First seed of the synthetic clips for evaluation; training uses lower ones."""
STREET_CLASSES = [
    *("road", "sidewalk", "building", "fence", "pole", "sign", "vegetation", "sky"),
    *("person", "cyclist", "vehicle"),
]
"""Names of the classes 0..10 of both data sets."""


@dataclass(frozen=True)
class SyntheticScores:
    """Scores 0..1 on synthetic clips."""

    stq: float
    aq: float
    sq: float
    miou: float
    stays: int
    """Appearances of objects that were found in at least two frames; see `IdSwitches`."""
    steady: float
    """Share of the stays with one id from start to end."""
    switches: int
    """Changes of id within the stays."""


@dataclass(frozen=True)
class ClassScores:
    """Mean IoU 0..1 and the IoU of each class, by class id; NaN for a class that never occurs."""

    miou: float
    per_class: tuple[float, ...]


class IdSwitches:
    """Counts how often a true object gets another track id while it stays in sight.

    A stay is a run of consecutive frames in which an object has pixels. In each frame a track is
    the object's if they overlap with an IoU above 0.5; frames without such a track do not count.
    """

    def __init__(self) -> None:
        self.switches = 0
        self._ids: dict[int, list[int]] = {}
        self._finished: list[list[int]] = []

    def update(self, truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Add the next frame: [H, W] true and predicted ids, 0 = no object."""
        owners = _owners(truth, predicted)
        for left in self._ids.keys() - owners.keys():
            self._finished.append(self._ids.pop(left))
        for true_id, track_id in owners.items():
            ids = self._ids.setdefault(true_id, [])
            self.switches += bool(ids and track_id and ids[-1] != track_id)
            if track_id:
                ids.append(track_id)

    def end_clip(self) -> None:
        """The next frame belongs to another clip."""
        self._finished += self._ids.values()
        self._ids = {}

    def stays(self) -> tuple[int, int]:
        """Stays with at least two found frames, and those of them with a single id."""
        counted = [ids for ids in self._finished if len(ids) > 1]
        return len(counted), sum(len(set(ids)) == 1 for ids in counted)


def evaluate_synthetic(
    runtime: Runtime, clips: int, frames: int, tracking: TrackingConfig | None = None
) -> SyntheticScores:
    """Segmentation and tracking on `clips` held-out synthetic streets of `frames` frames each."""
    classes = _street_classes(runtime)
    quality = SegmentationTrackingQuality(len(classes), classes.things, ignore=NO_CLASS)
    iou, switches = MeanIoU(len(classes), ignore=NO_CLASS), IdSwitches()
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + clips):
        street, predictor = SyntheticStreet(seed), VideoPredictor(runtime, tracking)
        for t in tqdm(range(frames), f"street {seed}", leave=False, disable=None):
            truth = street.frame(t)
            frame = predictor.step(truth.image, round(t * 1e9 / street.fps))
            semantic, ids = frame.semantic_map(), frame.track_id_map()
            quality.update(truth.semantic, truth.instance, semantic, ids, seed)
            iou.update(truth.semantic, semantic)
            switches.update(truth.instance, ids)
        switches.end_clip()
    result, (stays, steady) = quality.compute(), switches.stays()
    return SyntheticScores(
        stq=result.stq,
        aq=result.aq,
        sq=result.sq,
        miou=iou.compute().miou,
        stays=stays,
        steady=steady / stays if stays else float("nan"),
        switches=switches.switches,
    )


def evaluate_camvid(runtime: Runtime, root: Path, fps: float = 15.0) -> ClassScores:
    """Semantic segmentation of a CamVid clip, its frames taken as one video of `fps`."""
    clip, predictor = CamVid(root), VideoPredictor(runtime)
    iou = MeanIoU(len(_street_classes(runtime)), ignore=NO_CLASS)
    for t, (image, truth) in enumerate(tqdm(clip, leave=False, disable=None)):
        iou.update(truth, predictor.step(image, round(t * 1e9 / fps)).semantic_map())
    result = iou.compute()
    return ClassScores(result.miou, tuple(float(value) for value in result.per_class))


def _street_classes(runtime: Runtime) -> ClassTable:
    """The classes of the model; ModelError if they are not those of the data."""
    names = [info.name for info in runtime.info.classes]
    if names != STREET_CLASSES:
        raise ModelError(
            f"{runtime.info.name}: its classes must be {STREET_CLASSES}, found {names}"
        )
    return runtime.info.classes


def _owners(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[int, int]:
    """Track id of each true object in the frame; 0 where no track has an IoU above 0.5."""
    true_ids, true_areas = np.unique(truth, return_counts=True)
    track_ids, track_areas = np.unique(predicted, return_counts=True)
    rows, columns = np.searchsorted(true_ids, truth), np.searchsorted(track_ids, predicted)
    size = len(true_ids) * len(track_ids)
    shared = np.bincount((rows * len(track_ids) + columns).ravel(), minlength=size)
    shared = shared.reshape(len(true_ids), len(track_ids))
    overlap = shared / (true_areas[:, None] + track_areas[None, :] - shared)
    best = overlap.argmax(axis=1)
    found = np.where(overlap.max(axis=1) > 0.5, track_ids[best], 0)
    return {int(i): int(j) for i, j in zip(true_ids, found, strict=True) if i}
