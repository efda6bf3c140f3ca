"""Scores a model, or predictions on disk, on a data set; each frame is predicted once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from ..data.datasets import DATASETS
from ..data.predictions import (
    PredictionFormat,
    PredictionReader,
    PredictionWriter,
    check_classes,
    write_classes,
)
from ..data.video import DatasetError, LabelledFrame, Video, VideoDataset
from ..engine.base import ModelError, Runtime
from ..output_files import new_folder
from ..predictor import VideoPredictor
from ..progress import progress_bar
from ..tasks import INSTANCE, PANOPTIC, SEMANTIC, TASKS
from ..tracking import TrackerSettings
from ..types import PanopticFrame, first_difference
from .conditions import CLEAN, Condition
from .instances import InstanceEvaluator, instances
from .panoptic import PanopticEvaluator, panoptic_maps
from .scores import Evaluator, Scores
from .semantic import SemanticEvaluator, class_map

FRAMES_PER_SECOND = 10.0
"""Of the stamps that the tracker gets; the data sets have none."""

_Receiver = Evaluator[Any] | PredictionWriter[Any]
EVALUATORS: dict[
    str, tuple[Callable[[PanopticFrame], Any], Callable[[VideoDataset], Evaluator[Any]]]
] = {
    PANOPTIC.name: (panoptic_maps, PanopticEvaluator),
    SEMANTIC.name: (class_map, SemanticEvaluator),
    INSTANCE.name: (instances, InstanceEvaluator),
}
"""Task of a data set -> conversion of the frames of a model into predictions, and evaluator."""


def evaluate_predictions(dataset: VideoDataset, path: Path) -> Scores:
    """Score predictions on disk, in the form that `evaluate_model` saves them in.

    Raises:
        DatasetError: the labels are not published, a frame or its prediction cannot be read, the
            two do not fit, or the predictions were saved with other classes.
    """
    task, predictions = _scored(dataset)
    if not dataset.is_labelled:
        raise DatasetError(_unlabelled(dataset))
    check_classes(path, dataset)
    evaluator = EVALUATORS[task][1](dataset)
    predict_dataset(dataset, predictions.read(path, dataset), [evaluator])
    return evaluator.compute()


def evaluate_model(
    dataset: VideoDataset,
    runtime: Runtime,
    tracking: TrackerSettings | None = None,
    save: Path | None = None,
    condition: Condition = CLEAN,
) -> Scores | None:
    """Score a model; with `save` also write its predictions into that folder.

    Args:
        condition: how its frames are shown to the model.

    Returns:
        None for a split whose labels are not published: it is only saved.

    Raises:
        ModelError: the classes of the model are not those of the data set.
        DatasetError: a frame cannot be read, the labels are not published and nothing is saved, or
            the data set is for training only.
        OSError: `save` is not new or empty, or a prediction cannot be written.
    """
    task, predictions = _scored(dataset)
    convert, new_evaluator = EVALUATORS[task]
    evaluator = new_evaluator(dataset) if dataset.is_labelled else None
    if evaluator is None and save is None:
        raise DatasetError(f"{_unlabelled(dataset)}; with --save its predictions are written")
    check_model(runtime, dataset)
    numbers, shown = count(1), condition.runtime(runtime)

    def start(_: Video) -> Callable[[LabelledFrame], Any]:
        predictor, positions = VideoPredictor(shown, tracking), count()
        show = condition.images(next(numbers))

        def predict(frame: LabelledFrame) -> Any:
            t = next(positions)
            stamp = round(t * 1e9 / FRAMES_PER_SECOND)
            return convert(predictor.step(show(frame.image, t), stamp))

        return predict

    with nullcontext() if save is None else new_folder(save):
        receivers: list[Evaluator | PredictionWriter[Any]] = (
            [] if evaluator is None else [evaluator]
        )
        if save is not None:
            write_classes(save, dataset)
            writer = predictions.writer(save)
            receivers.append(writer)
        predict_dataset(dataset, start, receivers)
        if save is not None:
            writer.close()
    return evaluator.compute() if evaluator is not None else None


def predict_dataset(
    dataset: VideoDataset,
    predictor: PredictionReader[Any],
    receivers: Sequence[_Receiver],
) -> None:
    """Predict all frames of `dataset`, with a progress bar.

    Args:
        predictor: starts a video; what it returns is called with its frames in order.

    Raises:
        DatasetError: a frame cannot be read, or a prediction does not fit its frame.
        OSError: a prediction cannot be written.
    """
    for video in dataset:
        predict = predictor(video)
        for frame in progress_bar(video, video.name, total=len(video), leave=False):
            prediction = predict(frame)
            with _named(f"{video.name}/{frame.name}"):
                for receiver in receivers:
                    receiver.update(video, frame, prediction)
        with _named(video.name):
            for receiver in receivers:
                receiver.end_video(video)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the frame in errors of predictions; those of the data set do so themselves."""
    try:
        yield
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(f"{where}: {error}") from None


def check_model(runtime: Runtime, dataset: VideoDataset) -> None:
    """ModelError unless the model has the classes of the data set, by name and kind.

    A semantic data set does not separate things from stuff, but a model may: a semantic one has no
    things, a panoptic one has some. There only the names are compared, and a model without stuff is
    rejected, as most of its pixels have no class.
    """
    info = runtime.info
    kinds = info.classes.kinds
    if not TASKS[DATASETS[dataset.name].task].has_things:
        if not TASKS[info.task].has_stuff:
            raise ModelError(
                f"{info.name}: {dataset.name} needs a class of each pixel, "
                f"got a model of task {info.task}"
            )
        kinds = tuple((name, False) for name, _ in kinds)
    if difference := first_difference(dataset.kinds, kinds):
        raise ModelError(f"{info.name}: its classes are not those of {dataset.name}: {difference}")


def _scored(dataset: VideoDataset) -> tuple[str, PredictionFormat[Any]]:
    """The task of a data set, and the form of its predictions."""
    known = DATASETS[dataset.name]
    if known.predictions is None:
        names = (name for name, other in DATASETS.items() if other.predictions is not None)
        raise DatasetError(
            f"{dataset.name} is for training and its validation; expected one of {', '.join(names)}"
        )
    return known.task, known.predictions


def _unlabelled(dataset: VideoDataset) -> str:
    return f"{dataset.name}: this split is published without labels, so it cannot be scored here"
