"""Scores trackers on clips with exact tracks, drawn or pasted, and a model on CamVid.

The network runs once for each frame, so all trackers see the same segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthetic_street import SyntheticStreet

from ..config_io import ConfigError
from ..data.camvid import camvid_clip, street_ids
from ..data.pasted_clips import PastedClip
from ..data.sprites import SpriteSplit, load_sprites
from ..data.street_frame import STREET_CLASSES, STREET_THINGS, StreetClip
from ..engine.base import ModelError, Runtime
from ..metrics.vss import VideoSemanticConsistency, VideoSemanticQuality
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..tasks import INSTANCE, PANOPTIC, SEMANTIC, TASKS
from ..tracking import TrackerSettings
from ..types import NO_CLASS, ClassInfo, ClassTable, Detections, PanopticFrame, first_difference
from .conditions import CLEAN, Condition
from .instances import InstanceClips, TrueFrame, Void
from .panoptic import PanopticClips
from .scores import Scores
from .semantic import SemanticClips

if TYPE_CHECKING:
    from typing_extensions import Self

HELD_OUT_SEED = 1_000_000
"""First seed of the synthetic clips for evaluation; training uses lower ones."""
STREET_TABLE = ClassTable(
    tuple(
        ClassInfo(number, name, name in STREET_THINGS, (0, 0, 0))
        for number, name in enumerate(STREET_CLASSES)
    )
)
"""The classes that clips are labelled with; their colours play no part."""


TITLES = {
    **{"miou": "mIoU", "id_consistency": "one id", "segments": "segments", "idsw": "IDSW"},
    **{"box_found": "found", "box_missed": "missed", "box_false": "false", "box_ids": "ids"},
    **{"box_switches": "switches", "box_mota": "MOTA", "box_idf1": "IDF1", "box_hota": "HOTA"},
}
"""Titles of columns that are not the name of the score in capitals."""
_UNSEEN = ("box_boxes", "box_deta", "box_assa")
"""Scores that are not in the table."""


class ClipEvaluator(Protocol):
    """Compares predictions with labels on any number of clips. Processes exchange it by pickle."""

    def update(self, truth: TrueFrame, frame: PanopticFrame, clip: int, void: Void = None) -> None:
        """Add the next frame of clip number `clip`; what instances are found on `void` [H, W],
        pixels of unknown content, counts neither for nor against a model. ValueError if truth and
        frame do not fit."""
        ...

    def merge(self, other: Self) -> None:
        """Add the clips of `other`, which are none of these."""
        ...

    def scores(self) -> dict[str, float]:
        """Scores 0..1 and counts by name; NaN where nothing could be measured."""
        ...


CLIP_EVALUATORS: dict[str, Callable[[ClassTable], ClipEvaluator]] = {
    PANOPTIC.name: PanopticClips,
    SEMANTIC.name: SemanticClips,
    INSTANCE.name: InstanceClips,
}
"""By task; their scores include those of `Task.metrics`."""


def clip_table(scores: Mapping[str, Mapping[str, float]]) -> Scores:
    """Rows by tracker; all have the same scores."""
    names = [name for name in next(iter(scores.values())) if name not in _UNSEEN]
    return Scores(
        columns={"": [TITLES.get(name, name.upper()) for name in names]},
        rows={tracker: [row[name] for name in names] for tracker, row in scores.items()},
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
    condition: Condition = CLEAN,
) -> dict[str, dict[str, float]]:
    """Segmentation and tracking on the first `frames` frames of each clip.

    Args:
        trackings: the trackers to compare, by a name of yours.
        condition: how the clips are shown.

    Returns:
        By the same names, the scores of the `ClipEvaluator` of the model's task.

    Raises:
        ModelError: a class of the model is none of the street's.
    """
    shown = street_clips(runtime, clips, frames)
    return compare(runtime, shown, trackings, [condition])[condition]


@dataclass(frozen=True)
class TrueClip:
    """The first frames of a labelled clip, with the class ids of the model."""

    frame: Callable[[int], tuple[TrueFrame, Void]]
    """Gives a frame by its number, and where its content is unknown."""
    count: int
    fps: float


def street_clips(runtime: Runtime, clips: Iterable[StreetClip], frames: int) -> Iterator[TrueClip]:
    """`frames` frames of each clip; ModelError if a class of the model is none of the street's."""
    ids = _class_ids(runtime)

    def labelled(clip: StreetClip, t: int) -> tuple[TrueFrame, Void]:
        truth = clip.frame(t)
        return truth.relabelled(ids), truth.semantic == NO_CLASS

    return (TrueClip(partial(labelled, clip), frames, clip.fps) for clip in clips)


def compare(
    runtime: Runtime,
    clips: Iterable[TrueClip],
    trackings: Mapping[str, TrackerSettings],
    conditions: Sequence[Condition],
) -> dict[Condition, dict[str, dict[str, float]]]:
    """Scores of all trackers under all conditions, from one pass over the clips.

    Under each condition the network runs once for a frame, without memory once for both where a
    frame is not spoilt.
    """
    new_evaluator = CLIP_EVALUATORS[runtime.info.task]
    evaluators = {
        condition: {name: new_evaluator(runtime.info.classes) for name in trackings}
        for condition in conditions
    }
    runtimes = {
        memory: _SharedRuntime(Condition(memory=memory).runtime(runtime))
        for memory in (True, False)
    }
    for number, clip in enumerate(clips, 1):
        shows = {condition: condition.images(number) for condition in conditions}
        predictors = {
            (condition, name): VideoPredictor(runtimes[condition.memory], config)
            for condition in conditions
            for name, config in trackings.items()
        }
        for t in progress_bar(range(clip.count), f"clip {number}", leave=False):
            truth, void = clip.frame(t)
            images = {condition: show(truth.image, t) for condition, show in shows.items()}
            for (condition, name), predictor in predictors.items():
                frame = predictor.step(images[condition], round(t * 1e9 / clip.fps))
                evaluators[condition][name].update(truth, frame, number, void)
    return {
        condition: {name: evaluator.scores() for name, evaluator in own.items()}
        for condition, own in evaluators.items()
    }


def evaluate_camvid(runtime: Runtime, root: Path, fps: float = 15.0) -> VideoSemanticQuality:
    """mIoU and mVC8 as released with VSPW (`metrics/vss.py`) of a CamVid clip, its frames taken as
    one video of `fps`. Void is a label like any other, and mVC8 needs 9 frames.

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
    return quality.compute()


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
