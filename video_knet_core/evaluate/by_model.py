"""Predictions of a model, run as it is used: frame after frame, each video anew."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ..config import TrackingConfig
from ..data import vipseg
from ..data.video import LabelledFrame, Video, VideoDataset
from ..engine.runtime import ModelError, Runtime
from ..predictor import VideoPredictor
from ..types import PanopticFrame
from .run import P, Predictor

FRAMES_PER_SECOND = 10.0
"""Of the stamps that the tracker sees; the data sets have none."""


def by_model(
    runtime: Runtime,
    dataset: VideoDataset,
    convert: Callable[[PanopticFrame], P],
    tracking: TrackingConfig | None = None,
) -> Predictor[P]:
    """Predict with a model.

    Args:
        runtime: the model.
        dataset: what it is run on.
        convert: makes the prediction of a frame of what the model gives.
        tracking: settings of the tracker.

    Raises:
        ModelError: the classes of the model are not those of the data set.
    """
    check_classes(runtime, dataset)

    def start(_: Video) -> Callable[[LabelledFrame], P]:
        predictor, positions = VideoPredictor(runtime, tracking), count()

        def predict(frame: LabelledFrame) -> P:
            stamp = round(next(positions) * 1e9 / FRAMES_PER_SECOND)
            return convert(predictor.step(frame.image, stamp))

        return predict

    return start


def check_classes(runtime: Runtime, dataset: VideoDataset) -> None:
    """ModelError unless the model has the classes of the data set.

    VSPW does not tell things from stuff, so that a model may: a semantic one has no things, and a
    panoptic one has some. There only the number is compared, and the same classes in the order of
    VIPSeg are refused. A model of task instance has no classes for most pixels, and is refused too.
    """
    name, classes = runtime.info.name, runtime.info.classes
    found, wanted = (len(classes), set(classes.things)), (dataset.class_count, set(dataset.things))
    if dataset.name == "vspw":
        if found == (vipseg.CLASS_COUNT, vipseg.THINGS):
            raise ModelError(
                f"{name}: the classes of vspw must be in its own order (mask value - 1), "
                "found the order of vipseg, stuff before things"
            )
        if runtime.info.task == "instance":
            raise ModelError(
                f"{name}: vspw needs a class of each pixel, found a model of task instance"
            )
        wanted = wanted[0], found[1]
    if found != wanted:
        raise ModelError(
            f"{name}: {dataset.name} has {wanted[0]} classes with things "
            f"{sorted(wanted[1])}, found {found[0]} with {sorted(found[1])}"
        )
