"""What a network learns from, for each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..data.pairs import FramePair
from ..types import ClassTable
from .criterion import BatchCriterion, Criterion, SemanticCriterion, Total
from .targets import ClassTargets, FrameTargets, class_targets, frame_targets
from .train_config import LossWeights, TrainConfig


@dataclass(frozen=True)
class TrainingTask:
    """The parts that differ between tasks."""

    targets: Callable[[FramePair, int, ClassTable, TrainConfig], FrameTargets | ClassTargets]
    """Makes them of one frame of a pair. Data workers that are spawned get it by pickle, so it is
    no function within another."""
    criterion: Callable[[LossWeights, ClassTable, Total, int], BatchCriterion]
    """The number is that of the first part of the network that learns; see `Criterion`."""


def _mask_targets(
    pair: FramePair, side: int, classes: ClassTable, config: TrainConfig, background: bool = False
) -> FrameTargets:
    return frame_targets(
        pair.semantic[side],
        pair.instance[side],
        classes,
        config.mask_stride,
        config.targets,
        config.rank_stride,
        None if pair.masks is None else pair.masks[side],
        background,
        None if pair.depth is None else pair.depth[side],
    )


def _class_targets(
    pair: FramePair, side: int, classes: ClassTable, config: TrainConfig
) -> ClassTargets:
    return class_targets(pair.semantic[side], classes, config.rank_stride, config.targets)


def _mask_criterion(
    weights: LossWeights,
    classes: ClassTable,
    total: Total,
    first: int = 0,
    background: bool = False,
) -> BatchCriterion:
    return Criterion(weights, len(classes.things), background, total, first)


def _semantic_criterion(
    weights: LossWeights, classes: ClassTable, total: Total, first: int = 0
) -> BatchCriterion:
    return SemanticCriterion(weights, total, first)


TRAINING_TASKS = {
    "panoptic": TrainingTask(_mask_targets, _mask_criterion),
    "semantic": TrainingTask(_class_targets, _semantic_criterion),
    "instance": TrainingTask(
        partial(_mask_targets, background=True), partial(_mask_criterion, background=True)
    ),
}
"""By `ModelConfig.task`."""
