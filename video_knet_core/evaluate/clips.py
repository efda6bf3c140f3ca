"""Scores trackers on clips with exact tracks, drawn or pasted, and a model on CamVid.

The network runs once for each frame, so all trackers see the same segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..config_io import ConfigError
from ..data.camvid import camvid_clip, street_ids
from ..data.pasted_clips import PastedClip
from ..data.predictions import TrackCollector
from ..data.sprites import SpriteSplit, load_sprites
from ..data.street_frame import (
    STREET_CLASSES,
    STREET_THINGS,
    StreetClip,
    StreetFrame,
)
from ..engine.base import ModelError, Runtime
from ..metrics.overlaps import Classes, count_overlaps
from ..metrics.stq import SegmentationTrackingQuality
from ..metrics.vis import VideoInstanceAP
from ..metrics.vpq import MeanVideoPanopticQuality
from ..metrics.vss import MeanIoU, VideoSemanticConsistency
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..tasks import INSTANCE, PANOPTIC, TASKS
from ..tracking import TrackerSettings
from ..types import (
    NO_CLASS,
    ClassInfo,
    ClassTable,
    Detections,
    PanopticFrame,
    first_difference,
)
from .instances import TrueTrackCollector, instances, predicted_tracks
from .scores import Scores

HELD_OUT_SEED = 1_000_000
"""First seed of the synthetic clips for evaluation; training uses lower ones."""
STREET_TABLE = ClassTable(
    tuple(
        ClassInfo(number, name, name in STREET_THINGS, (0, 0, 0))
        for number, name in enumerate(STREET_CLASSES)
    )
)
"""The classes that clips are labelled with; their colours play no part."""


@dataclass(frozen=True)
class PanopticClipScores:
    """Scores 0..1 on clips with exact tracks."""

    stq: float
    aq: float
    sq: float
    vpq: float
    """VPQ as Cityscapes-VPS reports it: the windows of all clips are pooled for each length of 1,
    2, 3 and 4 consecutive frames, then the four are averaged. NaN if the clips are shorter."""
    miou: float
    segments: int
    """Visibility segments that were found in at least two frames; see `IdSwitches`."""
    id_consistency: float
    """Fraction of the visibility segments with one id from start to end; NaN without any."""
    idsw: int
    """Id switches: changes of id within the visibility segments."""


@dataclass(frozen=True)
class InstanceClipScores:
    """Scores 0..1 as YouTube-VIS has them; NaN where nothing was measured."""

    ap: float
    """Mean over the IoU thresholds 0.5, 0.55, ... 0.95 and the classes."""
    ap50: float
    ap75: float
    ar10: float
    """Recall of the 10 best tracks of a clip."""


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


ClipScores = PanopticClipScores | InstanceClipScores
_TITLES = {"miou": "mIoU", "id_consistency": "one id", "segments": "segments"}
"""Titles of columns that are not the name of the field in capitals."""


def clip_table(scores: Mapping[str, ClipScores]) -> Scores:
    """Rows by tracker; the scores are of one type."""
    names = [field.name for score in scores.values() for field in fields(score)]
    columns = list(dict.fromkeys(names))
    return Scores(
        columns={"": [_TITLES.get(name, name.upper()) for name in columns]},
        rows={tracker: [getattr(row, name) for name in columns] for tracker, row in scores.items()},
        row_title="tracker",
    )


def synthetic_streets(count: int) -> Iterator[SyntheticStreet]:
    """The held-out streets, each rendered on access."""
    return map(SyntheticStreet, range(HELD_OUT_SEED, HELD_OUT_SEED + count))


def pasted_clips(root: Path, count: int, split: SpriteSplit = "held_out") -> list[PastedClip]:
    """Clips with the seeds 0 .. `count` - 1 from a data root of training.

    Args:
        root: holds `camvid/val_clip` and `sprites`.
        split: see `load_sprites`.

    Raises:
        DatasetError: the clip is missing or faulty, or there is no sprite to paste.
        FileNotFoundError: the list of sprites or one of its cut-outs is missing.
    """
    clip = camvid_clip(root / "camvid" / "val_clip")
    sprites = load_sprites(root / "sprites", STREET_TABLE, split)
    return [PastedClip(clip, sprites, STREET_TABLE.things, seed) for seed in range(count)]


def evaluate_clips(
    runtime: Runtime,
    clips: Iterable[StreetClip],
    frames: int,
    trackings: Mapping[str, TrackerSettings],
) -> dict[str, Any]:
    """Segmentation and tracking on the first `frames` frames of each clip.

    Args:
        trackings: the trackers to compare, by a name of yours.

    Returns:
        By the same names, `PanopticClipScores` or `InstanceClipScores` as the model's task is.

    Raises:
        ModelError: a class of the model is none of the street's, or its task has no tracks.
    """
    ids, shared = _class_ids(runtime), _SharedRuntime(runtime)
    if runtime.info.task not in _EVALUATORS:
        raise ModelError(f"{runtime.info.name} of task {runtime.info.task} has no tracks to score")
    new_evaluator = _EVALUATORS[runtime.info.task]
    evaluators = {name: new_evaluator(runtime.info.classes) for name in trackings}
    for number, clip in enumerate(clips, 1):
        predictors = {name: VideoPredictor(shared, config) for name, config in trackings.items()}
        for t in progress_bar(range(frames), f"clip {number}", leave=False):
            truth = clip.frame(t)
            labels, void = truth.relabelled(ids), truth.semantic == NO_CLASS
            for name, predictor in predictors.items():
                frame = predictor.step(truth.image, round(t * 1e9 / clip.fps))
                evaluators[name].update(labels, void, frame)
        for evaluator in evaluators.values():
            evaluator.end_clip()
    return {name: evaluator.compute() for name, evaluator in evaluators.items()}


def evaluate_camvid(runtime: Runtime, root: Path, fps: float = 15.0) -> ClassScores:
    """Semantic segmentation of a CamVid clip, its frames taken as one video of `fps`.

    Raises:
        ModelError: a class of the model is none of the street's.
        DatasetError: the clip is missing or faulty.
    """
    ids, number = _class_ids(runtime), len(runtime.info.classes)
    quality = VideoSemanticConsistency(number, windows=(8,), void=(NO_CLASS,))
    clip, predictor = camvid_clip(root, ids), VideoPredictor(runtime)
    for t, truth in enumerate(progress_bar(clip, total=len(clip), leave=False)):
        frame = predictor.step(truth.image, round(t * 1e9 / fps))
        quality.update(truth.semantic, frame.semantic_map())
    result = quality.compute()
    return ClassScores(result.miou, tuple(result.per_class.tolist()), result.mvc[8])


class IdSwitches:
    """Counts how often a true object gets another track id while it stays in sight.

    A visibility segment is a run of consecutive frames in which an object has pixels. In each frame
    a track is the object's if they overlap with an IoU above 0.5; frames without such a track do
    not count.
    """

    def __init__(self) -> None:
        self.switches = 0
        self._ids: dict[int, list[int]] = {}
        self._finished: list[list[int]] = []

    def update(self, truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Add the next frame: [H, W] true and predicted ids, 0 = no object."""
        found = _tracks_of(truth, predicted)
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

    def segments(self) -> tuple[int, int]:
        """Segments with at least two found frames, and those of them with a single id."""
        counted = [ids for ids in self._finished if len(ids) > 1]
        return len(counted), sum(len(set(ids)) == 1 for ids in counted)


class _ClipEvaluator(Protocol):
    def update(self, truth: StreetFrame, void: NDArray[np.bool_], frame: PanopticFrame) -> None:
        """Add the next frame; `void` [H, W]: pixels whose content is unknown."""
        ...

    def end_clip(self) -> None:
        """The next frame belongs to another clip."""
        ...

    def compute(self) -> ClipScores:
        """Scores of all clips that have ended."""
        ...


class _PanopticClips:
    def __init__(self, classes: ClassTable) -> None:
        number, things = len(classes), classes.things
        self._classes = Classes(number, things, NO_CLASS)
        self._quality = SegmentationTrackingQuality(number, things, ignore=NO_CLASS)
        self._panoptic = MeanVideoPanopticQuality(number, things, ignore=NO_CLASS)
        self._iou = MeanIoU(number, ignore=NO_CLASS)
        self._switches = IdSwitches()
        self._clip = 0

    def update(self, truth: StreetFrame, void: NDArray[np.bool_], frame: PanopticFrame) -> None:
        semantic, ids = frame.semantic_map(), frame.track_id_map()
        maps = truth.semantic, truth.instance, semantic, ids
        for overlaps in count_overlaps(*maps, self._classes):
            self._quality.add(overlaps, self._clip)
            self._panoptic.add(overlaps, self._clip)
        self._iou.update(truth.semantic, semantic)
        self._switches.update(truth.instance, ids)

    def end_clip(self) -> None:
        self._switches.end_clip()
        self._clip += 1

    def compute(self) -> PanopticClipScores:
        segments, consistent = self._switches.segments()
        return PanopticClipScores(
            *self._quality.compute().measured,
            vpq=self._panoptic.compute().vpq,
            miou=self._iou.compute().miou,
            segments=segments,
            id_consistency=consistent / segments if segments else float("nan"),
            idsw=self._switches.switches,
        )


class _InstanceClips:
    """What is found on void pixels counts neither for nor against a network."""

    def __init__(self, classes: ClassTable) -> None:
        self._things, self._clip = classes.things, 0
        self._metric = VideoInstanceAP(self._things, absent=np.nan)
        self._truth, self._found = TrueTrackCollector(self._things), TrackCollector()

    def update(self, truth: StreetFrame, void: NDArray[np.bool_], frame: PanopticFrame) -> None:
        self._truth.add(truth, ignored=void)
        self._found.add(instances(frame))

    def end_clip(self) -> None:
        self._metric.update(self._truth.true(), predicted_tracks(self._found), self._clip)
        self._truth, self._found = TrueTrackCollector(self._things), TrackCollector()
        self._clip += 1

    def compute(self) -> InstanceClipScores:
        quality = self._metric.compute()
        return InstanceClipScores(quality.ap, quality.ap50, quality.ap75, quality.ar10)


_EVALUATORS: dict[str, Callable[[ClassTable], _ClipEvaluator]] = {
    PANOPTIC.name: _PanopticClips,
    INSTANCE.name: _InstanceClips,
}


class _SharedRuntime:
    """A `Runtime` that remembers its last step, and returns it for the same image and state.

    So predictors that take turns, frame by frame, get the same segments (and states, by which the
    next frame is recognised as the same); only their tracking differs.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.info = runtime.name, runtime.info
        self._runtime = runtime
        self._last: tuple[NDArray[np.uint8], Any | None, tuple[Detections, Any]] | None = None

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        # the state by identity; the image by its pixels, as every predictor resizes for itself
        if (
            self._last is None
            or state is not self._last[1]
            or not np.array_equal(image, self._last[0])
        ):
            self._last = image, state, self._runtime.step(image, state)
        return self._last[2]

    def portable_state(self, state: Any) -> NDArray[np.float32]:
        return self._runtime.portable_state(state)

    def close(self) -> None:
        self._runtime.close()


def _class_ids(runtime: Runtime) -> NDArray[np.uint8]:
    """[256] class ids of the model by those of the street.

    Where pixels have a class each, the model needs all classes; else objects of others are
    background.
    """
    name, classes = runtime.info.name, runtime.info.classes
    if TASKS[runtime.info.task].has_stuff:
        kinds = [(kind, thing and bool(classes.things)) for kind, thing in STREET_TABLE.kinds]
        if difference := first_difference(kinds, classes.kinds):
            raise ModelError(f"{name}: its classes are not the street's: {difference}")
    try:
        return street_ids(classes, name)
    except ConfigError as error:
        raise ModelError(str(error)) from None


def _tracks_of(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> dict[int, int]:
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
