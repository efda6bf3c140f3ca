"""A model on sets of clips, clean and spoilt, with and without memory, with several trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..data.custom import CUSTOM
from ..data.street_frame import StreetClip
from ..data.video import Video, VideoDataset
from ..engine.base import ModelError, Runtime
from ..tasks import PANOPTIC
from ..tracking import TrackerSettings
from ..types import NO_CLASS
from .clips import TITLES, TrueClip, compare, pasted_clips, street_clips, synthetic_streets
from .conditions import CONDITIONS, Condition
from .dataset_evaluation import FRAMES_PER_SECOND, check_model
from .instances import TrueFrame, Void
from .scores import Scores

_COLUMNS = (
    *("stq", "aq", "sq", "id_consistency", "idsw", "box_found", "box_missed", "box_false"),
    *("box_switches", "box_mota", "box_idf1", "box_hota", "box_ids"),
)
"""Scores in the table; the file has all."""


ClipSet = VideoDataset | Sequence[StreetClip]


def open_sets(root: Path, names: Sequence[str], clips: int) -> dict[str, ClipSet]:
    """Sets of clips by name.

    Args:
        root: data root of training.
        names: "synthetic", "pasted" (see `clips.py`), or a folder of `root` with custom data, of
            which the split val is taken.
        clips: of the first two.

    Raises:
        DatasetError, FileNotFoundError: a set is missing or faulty.
    """
    sets: dict[str, ClipSet] = {}
    for name in names:
        if name == "synthetic":
            sets[name] = list(synthetic_streets(clips))
        elif name == "pasted":
            sets[name] = pasted_clips(root, clips)
        else:
            sets[name] = CUSTOM.open(root / name, CUSTOM.validation)
    return sets


def judge(
    runtime: Runtime,
    sets: Mapping[str, ClipSet],
    clips: int,
    frames: int,
    trackings: Mapping[str, TrackerSettings],
) -> Scores:
    """All trackers on all sets under all four conditions; a row of the table for each.

    Args:
        clips, frames: most clips of each set, and frames of each.
        trackings: settings by the name of the row.

    Returns:
        The figures are those of `ClipEvaluator.scores` by set, condition and tracker.

    Raises:
        ModelError: the model is not panoptic, or has not the classes of a set.
        DatasetError: a frame cannot be read.
    """
    if runtime.info.task != PANOPTIC.name:
        raise ModelError(
            f"{runtime.info.name}: expected a model of task {PANOPTIC.name}, "
            f"got one of task {runtime.info.task}"
        )
    shown = {name: true_clips(runtime, clip_set, clips, frames) for name, clip_set in sets.items()}
    figures = {
        name: {
            _title(condition): scores
            for condition, scores in compare(runtime, own, trackings, CONDITIONS).items()
        }
        for name, own in shown.items()
    }
    return Scores(
        columns={"": [TITLES.get(column, column.upper()) for column in _COLUMNS]},
        rows={
            f"{name}, {condition}, {tracker}": [row[column] for column in _COLUMNS]
            for name, conditions in figures.items()
            for condition, trackers in conditions.items()
            for tracker, row in trackers.items()
        },
        figures=figures,
        row_title="set, frames, tracker",
    )


def true_clips(runtime: Runtime, own: ClipSet, clips: int, frames: int) -> Iterable[TrueClip]:
    if not isinstance(own, VideoDataset):
        return street_clips(runtime, own[:clips], frames)
    check_model(runtime, own)
    return [
        TrueClip(partial(_labelled, video), min(frames, len(video)), FRAMES_PER_SECOND)
        for video in own.videos[:clips]
    ]


def _title(condition: Condition) -> str:
    frames = "spoilt" if condition.spoilt else "clean"
    return frames if condition.memory else f"{frames}, no memory"


def _labelled(video: Video, t: int) -> tuple[TrueFrame, Void]:
    frame = video[t]
    return frame, frame.semantic == NO_CLASS
