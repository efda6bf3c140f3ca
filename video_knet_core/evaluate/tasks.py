"""What is predicted, measured and saved on each data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from ..config import TrackingConfig
from ..data.video import DatasetError, VideoDataset
from ..engine.base import Runtime
from ..output_files import new_folder
from ..types import PanopticFrame
from .by_model import by_model
from .instances import InstanceEvaluator, instances
from .panoptic import PanopticEvaluator, panoptic_maps
from .run import Evaluator, P, Predictor, Receiver, Saver, run
from .saved_classes import check_classes, write_classes
from .saved_maps import (
    CityscapesVpsSaver,
    StepSaver,
    VipsegSaver,
    VspwSaver,
    read_cityscapes_vps_maps,
    read_step_maps,
    read_vipseg_maps,
    read_vspw_maps,
)
from .saved_tracks import YoutubeVisSaver, read_results
from .scores import Scores
from .semantic import SemanticEvaluator, class_map


@dataclass(frozen=True)
class Task(Generic[P]):
    """A kind of prediction, by frame, and all that is done with it."""

    convert: Callable[[PanopticFrame], P]
    """Makes it of what a model gives."""
    evaluator: Callable[[VideoDataset], Evaluator[P]]
    saver: Callable[[Path], Saver[P]]
    """Writes a folder in the form the data set is handed in."""
    read: Callable[[Path, VideoDataset], Predictor[P]]
    """Reads what `saver` writes."""


TASKS: dict[str, Task[Any]] = {
    "kitti_step": Task(panoptic_maps, PanopticEvaluator, StepSaver, read_step_maps),
    "cityscapes_vps": Task(
        panoptic_maps, PanopticEvaluator, CityscapesVpsSaver, read_cityscapes_vps_maps
    ),
    "vipseg": Task(panoptic_maps, PanopticEvaluator, VipsegSaver, read_vipseg_maps),
    "own": Task(panoptic_maps, PanopticEvaluator, StepSaver, read_step_maps),
    "vspw": Task(class_map, SemanticEvaluator, VspwSaver, read_vspw_maps),
    "youtube_vis_2019": Task(instances, InstanceEvaluator, YoutubeVisSaver, read_results),
}


def evaluate_predictions(dataset: VideoDataset, path: Path) -> Scores:
    """Score predictions on disk, in the form that `evaluate_model` saves them in.

    Raises:
        DatasetError: the labels are not published, a frame or its prediction cannot be read, the
            two do not fit, or the predictions were saved with other classes.
    """
    task = _task_of(dataset)
    if not is_labelled(dataset):
        raise DatasetError(_unlabelled(dataset))
    check_classes(path, dataset)
    evaluator = task.evaluator(dataset)
    run(dataset, task.read(path, dataset), [evaluator])
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
    task = _task_of(dataset)
    evaluator = task.evaluator(dataset) if is_labelled(dataset) else None
    if evaluator is None and save is None:
        raise DatasetError(f"{_unlabelled(dataset)}; with --save its predictions are written")
    predictor = by_model(runtime, dataset, task.convert, tracking)
    with nullcontext() if save is None else new_folder(save):
        if save is not None:
            write_classes(save, dataset)
        saver = None if save is None else task.saver(save)
        receivers: list[Receiver[Any]] = [part for part in (evaluator, saver) if part is not None]
        if save is not None:
            write_classes(save, dataset)
        run(dataset, predictor, receivers)
        if saver is not None:
            saver.close()
    return evaluator.compute() if evaluator is not None else None


def _task_of(dataset: VideoDataset) -> Task[Any]:
    if dataset.name not in TASKS:
        raise DatasetError(
            f"{dataset.name} is for training and its validation; what is scored here are "
            f"{', '.join(TASKS)}"
        )
    return TASKS[dataset.name]


def is_labelled(dataset: VideoDataset) -> bool:
    """Whether the split is published with labels."""
    return all(video.read is not None for video in dataset)


def _unlabelled(dataset: VideoDataset) -> str:
    return f"{dataset.name}: this split is published without labels, so it cannot be scored here"
