"""Predictions of a model, run as it is used: frame after frame, each video anew."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ..config import TrackingConfig
from ..data.datasets import DATASETS
from ..data.video import LabelledFrame, Video, VideoDataset
from ..engine.base import ModelError, Runtime
from ..predictor import VideoPredictor
from ..tasks import TASKS
from ..types import PanopticFrame, first_difference
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
    """ModelError unless the model has the classes of the data set, by name and kind.

    VSPW does not tell things from stuff, so that a model may: a semantic one has no things, and a
    panoptic one has some. There only the names are compared. A model of task instance has no
    classes for most pixels, and is rejected.
    """
    name, classes = runtime.info.name, runtime.info.classes.kinds
    if DATASETS[dataset.name].task == "semantic":
        if not TASKS[runtime.info.task].has_stuff:
            raise ModelError(
                f"{name}: {dataset.name} needs a class of each pixel, got a model of task instance"
            )
        classes = tuple((class_name, False) for class_name, _ in classes)
    if difference := first_difference(dataset.kinds, classes):
        raise ModelError(f"{name}: its classes are not those of {dataset.name}: {difference}")
