"""What is predicted, measured and saved on each data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..config import TrackingConfig
from ..data.datasets import DATASETS
from ..data.predictions import PredictionFormat, check_classes, write_classes
from ..data.video import DatasetError, VideoDataset
from ..engine.base import Runtime
from ..output_files import new_folder
from ..types import PanopticFrame
from .by_model import by_model
from .instances import InstanceEvaluator, instances
from .panoptic import PanopticEvaluator, panoptic_maps
from .run import Evaluator, Receiver, run
from .scores import Scores
from .semantic import SemanticEvaluator, class_map

EVALUATIONS: dict[
    str, tuple[Callable[[PanopticFrame], Any], Callable[[VideoDataset], Evaluator[Any]]]
] = {
    "panoptic": (panoptic_maps, PanopticEvaluator),
    "semantic": (class_map, SemanticEvaluator),
    "instance": (instances, InstanceEvaluator),
}
"""Task of a data set -> what makes its predictions of the frames of a model, and scores them."""


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
    _, new_evaluator = EVALUATIONS[task]
    evaluator = new_evaluator(dataset)
    run(dataset, predictions.read(path, dataset), [evaluator])
    return evaluator.compute()


def evaluate_model(
    dataset: VideoDataset,
    runtime: Runtime,
    tracking: TrackingConfig | None = None,
    save: Path | None = None,
) -> Scores | None:
    """Score a model; with `save` also write its predictions into that folder.

    Returns:
        None for a split whose labels are not published: it is only saved.

    Raises:
        ModelError: the classes of the model are not those of the data set.
        DatasetError: a frame cannot be read, the labels are not published and nothing is saved, or
            the data set is for training only.
        OSError: `save` is not new or empty, or a prediction cannot be written.
    """
    task, predictions = _scored(dataset)
    convert, new_evaluator = EVALUATIONS[task]
    evaluator = new_evaluator(dataset) if dataset.is_labelled else None
    if evaluator is None and save is None:
        raise DatasetError(f"{_unlabelled(dataset)}; with --save its predictions are written")
    predictor = by_model(runtime, dataset, convert, tracking)
    with nullcontext() if save is None else new_folder(save):
        receivers: list[Receiver[Any]] = [] if evaluator is None else [evaluator]
        if save is not None:
            write_classes(save, dataset)
            writer = predictions.writer(save)
            receivers.append(writer)
        run(dataset, predictor, receivers)
        if save is not None:
            writer.close()
    return evaluator.compute() if evaluator is not None else None


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
