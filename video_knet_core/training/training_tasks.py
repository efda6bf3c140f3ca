"""What a network learns from and is measured by, for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from ..config import ModelConfig
from ..data.pairs import FramePair
from ..model.video_knet import Prediction
from ..types import ClassTable
from .clip_metrics import ClipMetric, InstanceMetric, PanopticMetric, SemanticMetric
from .criterion import Criterion
from .matching import Match
from .semantic_criterion import SemanticCriterion
from .targets import ClassTargets, FrameTargets, class_targets, frame_targets
from .train_config import LossWeights, TrainConfig

Targets = FrameTargets | ClassTargets
Matches = dict[str, list[Match]]
"""Who is responsible for what in each frame; "track" is what the tracks learn with."""


class FrameCriterion(Protocol):
    """The weighted losses of frames, and of frame pairs."""

    def frames(
        self, prediction: Prediction, targets: Sequence[Any]
    ) -> tuple[dict[str, Tensor], Matches]:
        """Losses of B frames by name, and the matches they were taken with."""
        ...

    def pairs(
        self,
        key: tuple[Tensor, Sequence[Match], Sequence[Any]],
        reference: tuple[Tensor, Sequence[Match], Sequence[Any]],
    ) -> dict[str, Tensor]:
        """Losses of B pairs by name; each side is embeddings, matches and targets."""
        ...


@dataclass(frozen=True)
class TrainingTask:
    """The parts that differ between tasks."""

    targets: Callable[[FramePair, int, ClassTable, TrainConfig], Targets]
    """Makes them of one frame of a pair. Data workers that are spawned get it by pickle, so it is
    no function within another."""
    criterion: Callable[[LossWeights, ClassTable], FrameCriterion]
    metric: Callable[[ClassTable], ClipMetric]
    """Its first score that can be measured decides which model is the best."""


def _mask_targets(
    pair: FramePair, side: int, classes: ClassTable, config: TrainConfig, background: bool = False
) -> Targets:
    return frame_targets(
        pair.semantic[side],
        pair.instance[side],
        classes,
        config.mask_stride,
        config.targets,
        config.rank_stride,
        None if pair.masks is None else pair.masks[side],
        background,
    )


def _class_targets(pair: FramePair, side: int, classes: ClassTable, config: TrainConfig) -> Targets:
    return class_targets(pair.semantic[side], classes, config.rank_stride, config.targets)


TRAINING_TASKS = {
    "panoptic": TrainingTask(
        _mask_targets,
        lambda weights, classes: Criterion(weights, len(classes.things)),
        PanopticMetric,
    ),
    "semantic": TrainingTask(
        _class_targets, lambda weights, classes: SemanticCriterion(weights), SemanticMetric
    ),
    "instance": TrainingTask(
        partial(_mask_targets, background=True),
        lambda weights, classes: Criterion(weights, len(classes.things), background=True),
        InstanceMetric,
    ),
}


def task_of(model: ModelConfig) -> TrainingTask:
    """That of a model."""
    return TRAINING_TASKS[model.task]
