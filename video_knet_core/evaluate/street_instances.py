"""How good the tracks of a network of task instance are, on clips of the street."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..config import TrackingConfig
from ..config_io import ConfigError
from ..data.camvid import street_ids
from ..data.instance_tracks import TrackCollector
from ..data.street_frame import STREET_CLASSES, STREET_THINGS, StreetClip
from ..engine.base import ModelError, Runtime
from ..metrics.vis import VideoInstanceAP
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..types import NO_CLASS, ClassInfo, ClassTable
from .instances import TrueTrackCollector, instances, predicted_tracks
from .shared_runtime import SharedRuntime

STREET_TABLE = ClassTable(
    tuple(
        ClassInfo(number, name, name in STREET_THINGS, (0, 0, 0))
        for number, name in enumerate(STREET_CLASSES)
    )
)
"""The classes that clips are labelled with; their colours play no part."""


@dataclass(frozen=True)
class InstanceScores:
    """Scores 0..1 as YouTube-VIS has them; NaN where nothing was measured."""

    ap: float
    """Mean over the IoU thresholds 0.5, 0.55, ... 0.95 and the classes."""
    ap50: float
    ap75: float
    ar10: float
    """Recall of the 10 best tracks of a clip."""


def evaluate_instances(
    runtime: Runtime,
    clips: Iterable[StreetClip],
    frames: int,
    trackings: Mapping[str, TrackingConfig],
) -> dict[str, InstanceScores]:
    """Tracks on the first `frames` frames of each clip.

    What is found on void pixels counts neither for nor against a network.

    Args:
        trackings: as that of `evaluate_clips`.

    Returns:
        Scores by the same names.

    Raises:
        ModelError: a class of the model is none of the street's.
    """
    try:
        ids = street_ids(runtime.info.classes, runtime.info.name)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    things, shared = runtime.info.classes.things, SharedRuntime(runtime)
    metrics = {name: VideoInstanceAP(things, absent=np.nan) for name in trackings}
    for number, clip in enumerate(clips):
        predictors = {name: VideoPredictor(shared, config) for name, config in trackings.items()}
        found = {name: TrackCollector() for name in trackings}
        true = TrueTrackCollector(things)
        for t in progress_bar(range(frames), f"clip {number + 1}", leave=False):
            truth = clip.frame(t)
            true.add(truth.relabelled(ids), ignored=truth.semantic == NO_CLASS)
            for name, predictor in predictors.items():
                found[name].add(instances(predictor.step(truth.image, round(t * 1e9 / clip.fps))))
        for name, metric in metrics.items():
            metric.update(true.true(), predicted_tracks(found[name]), number)
    return {name: _scores(metric) for name, metric in metrics.items()}


def _scores(metric: VideoInstanceAP) -> InstanceScores:
    quality = metric.compute()
    return InstanceScores(quality.ap, quality.ap50, quality.ap75, quality.ar10)
