"""How good a model is, run as it is used: frame after frame through the predictor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..config import TrackingConfig
from ..data.camvid import camvid_clip
from ..data.pasted_clips import PastedClip
from ..data.sprites import SpriteSplit, load_sprites
from ..data.street_frame import STREET_CLASSES, STREET_THINGS, StreetClip, StreetFrame
from ..engine.base import ModelError, Runtime
from ..metrics.overlaps import Classes, count_overlaps
from ..metrics.stq import SegmentationTrackingQuality
from ..metrics.vpq import MeanVideoPanopticQuality
from ..metrics.vss import MeanIoU, VideoSemanticConsistency
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..types import NO_CLASS, ClassTable, PanopticFrame, first_difference
from .shared_runtime import SharedRuntime

HELD_OUT_SEED = 1_000_000
"""First seed of the synthetic clips for evaluation; training uses lower ones."""


@dataclass(frozen=True)
class StreetScores:
    """Scores 0..1 on clips with exact tracks."""

    stq: float
    aq: float
    sq: float
    vpq: float
    """VPQ as Cityscapes-VPS reports it: the windows of all clips are pooled for each length of 1,
    2, 3 and 4 consecutive frames, then the four are averaged. NaN if the clips are shorter."""
    miou: float
    stays: int
    """Appearances of objects that were found in at least two frames; see `IdSwitches`."""
    steady: float
    """Share of the stays with one id from start to end; NaN without stays."""
    switches: int
    """Changes of id within the stays."""


@dataclass(frozen=True)
class ClassScores:
    """Fractions 0..1; NaN where nothing was measured."""

    miou: float
    """Mean IoU of the classes that occur."""
    per_class: tuple[float, ...]
    """IoU of each class, by class id."""
    mvc8: float
    """mVC over windows of 8 frames as released with VSPW (`metrics/vss.py`): void is a label like
    any other, the last window is not used, and so a clip needs 9 frames."""


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
        found = owners(truth, predicted)
        for left in self._ids.keys() - found.keys():
            self._finished.append(self._ids.pop(left))
        for true_id, track_id in found.items():
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


def evaluate_clips(
    runtime: Runtime,
    clips: Iterable[StreetClip],
    frames: int,
    trackings: Mapping[str, TrackingConfig],
) -> dict[str, StreetScores]:
    """Segmentation and tracking on the first `frames` frames of each clip.

    Args:
        trackings: the trackers to compare, by a name of yours. The network runs once for each
            frame, so all of them see the same segments.

    Returns:
        Scores by the same names.

    Raises:
        ModelError: the model has other classes than the street's.
    """
    classes, shared = street_classes(runtime), SharedRuntime(runtime)
    measured = {name: _Measured(classes) for name in trackings}
    for number, clip in enumerate(clips):
        predictors = {name: VideoPredictor(shared, config) for name, config in trackings.items()}
        for t in progress_bar(range(frames), f"clip {number + 1}", leave=False):
            truth = clip.frame(t)
            for name, predictor in predictors.items():
                frame = predictor.step(truth.image, round(t * 1e9 / clip.fps))
                measured[name].update(truth, frame, number)
        for scores in measured.values():
            scores.end_clip()
    return {name: scores.compute() for name, scores in measured.items()}


def evaluate_synthetic(
    runtime: Runtime, clips: int, frames: int, tracking: TrackingConfig | None = None
) -> StreetScores:
    """One tracker on `clips` held-out synthetic streets of `frames` frames each."""
    trackings = {"": tracking or TrackingConfig()}
    return evaluate_clips(runtime, synthetic_streets(clips), frames, trackings)[""]


def synthetic_streets(count: int) -> Iterator[SyntheticStreet]:
    """The held-out streets, each made when it is asked for."""
    return map(SyntheticStreet, range(HELD_OUT_SEED, HELD_OUT_SEED + count))


def pasted_clips(
    root: Path, classes: ClassTable, count: int, split: SpriteSplit = "held_out"
) -> list[PastedClip]:
    """Clips with the seeds 0 .. `count` - 1 from a data root of training.

    Args:
        root: holds `camvid/val_clip` and `sprites`.
        split: see `load_sprites`.

    Raises:
        FrameError: the clip is missing or faulty, or there is no sprite to paste.
        FileNotFoundError: the list of sprites or one of its cut-outs is missing.
    """
    clip = camvid_clip(root / "camvid" / "val_clip")
    sprites = load_sprites(root / "sprites", classes, split)
    return [PastedClip(clip, sprites, classes.things, seed) for seed in range(count)]


def evaluate_camvid(runtime: Runtime, root: Path, fps: float = 15.0) -> ClassScores:
    """Semantic segmentation of a CamVid clip, its frames taken as one video of `fps`."""
    number = len(street_classes(runtime))
    quality = VideoSemanticConsistency(number, windows=(8,), void=(NO_CLASS,))
    clip, predictor = camvid_clip(root), VideoPredictor(runtime)
    for t, truth in enumerate(progress_bar(clip, leave=False)):
        frame = predictor.step(truth.image, round(t * 1e9 / fps))
        quality.update(truth.semantic, frame.semantic_map())
    result = quality.compute()
    return ClassScores(
        result.miou, tuple(float(value) for value in result.per_class), result.mvc[8]
    )


def street_classes(runtime: Runtime) -> ClassTable:
    """The classes of the model; ModelError if they are not those of the data."""
    classes = runtime.info.classes
    things = STREET_THINGS if classes.things else ()
    kinds = [(name, name in things) for name in STREET_CLASSES]
    if difference := first_difference(kinds, classes.kinds):
        raise ModelError(f"{runtime.info.name}: its classes are not the street's: {difference}")
    return classes


class _Measured:
    """All that is counted of one tracker."""

    def __init__(self, classes: ClassTable) -> None:
        number, things = len(classes), classes.things
        self._classes = Classes(number, things, NO_CLASS)
        self._quality = SegmentationTrackingQuality(number, things, ignore=NO_CLASS)
        self._panoptic = MeanVideoPanopticQuality(number, things, ignore=NO_CLASS)
        self._iou = MeanIoU(number, ignore=NO_CLASS)
        self._switches = IdSwitches()

    def update(self, truth: StreetFrame, frame: PanopticFrame, clip: int) -> None:
        """Add the next frame of clip number `clip`."""
        semantic, ids = frame.semantic_map(), frame.track_id_map()
        maps = truth.semantic, truth.instance, semantic, ids
        for overlaps in count_overlaps(*maps, self._classes):
            self._quality.add(overlaps, clip)
            self._panoptic.add(overlaps, clip)
        self._iou.update(truth.semantic, semantic)
        self._switches.update(truth.instance, ids)

    def end_clip(self) -> None:
        """The next frame belongs to another clip."""
        self._switches.end_clip()

    def compute(self) -> StreetScores:
        """Scores of everything seen so far."""
        stq, aq, sq = self._quality.compute().measured
        stays, steady = self._switches.stays()
        return StreetScores(
            stq=stq,
            aq=aq,
            sq=sq,
            vpq=self._panoptic.compute().vpq,
            miou=self._iou.compute().miou,
            stays=stays,
            steady=steady / stays if stays else float("nan"),
            switches=self._switches.switches,
        )


def owners(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[int, int]:
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
