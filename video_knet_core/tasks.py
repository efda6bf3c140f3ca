"""The tasks of a model, one object each: all that differs between them and needs no network.

What differs in code is a table keyed by the name of the task. A new task is a `Task` here, its
merge of the masks in `MERGES` of `model/merge.py`, its targets and losses in `TRAINING_TASKS` of
`training/training_tasks.py`, its scores on clips in `CLIP_EVALUATORS` of `evaluate/clips.py`, and
where it is measured on data sets, a row in `EVALUATORS` of `evaluate/dataset_evaluation.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Facts about a task."""

    name: str
    has_things: bool
    """Its classes may be things; a model then needs one. Things are tracked, and each
    kernel of one is a candidate instance. Without things every kernel is a class."""
    has_stuff: bool
    """Its classes may be stuff. Without stuff, pixels of no instance are background."""
    merges: tuple[str, ...]
    """Possible values of `panoptic.merge`."""
    deploy_tensors: tuple[str, ...]
    """Outputs of an exported model, in order."""
    raw_tensors: tuple[str, ...]
    """Outputs of the raw form, for evaluation: predictions before the merge of the masks."""
    outputs: tuple[str, ...]
    """What the node publishes of a frame, in this order; topics see `messages.topics`."""
    default_outputs: tuple[str, ...]
    """Those that a replay writes by default: together they hold all results of a frame."""
    metrics: tuple[str, ...]
    """Scores of a validation. The first that can be measured decides which of two models is
    better."""


_SEGMENTS = ("segment_map", "class_ids", "scores", "areas")
_OBJECTS = ("objects", "detections_3d", "markers", "followed")
_POINTS = ("obstacles", "free_space", "points")
_RAW = ("class_logits", "mask_logits", "kernels", "embeddings")

PANOPTIC = Task(
    "panoptic",
    has_things=True,
    has_stuff=True,
    merges=("fast", "reference"),
    deploy_tensors=(*_SEGMENTS, "embeddings", "kernels"),
    raw_tensors=_RAW,
    outputs=(
        *("instances", "detections", "panoptic", "semantic", "confidence", "instance_id"),
        *("overlay", *_OBJECTS, *_POINTS),
    ),
    default_outputs=("instances", "panoptic"),
    metrics=("stq", "aq", "sq"),
)
"""One label per pixel."""
SEMANTIC = Task(
    "semantic",
    has_things=False,
    has_stuff=True,
    merges=("fast",),
    deploy_tensors=(*_SEGMENTS, "kernels"),
    raw_tensors=("mask_logits", "kernels"),  # of each class; kernels have no class or embedding
    # rows of a table would refer to a label image, which the task has not
    outputs=("semantic", "confidence", "overlay", *_POINTS),
    default_outputs=("semantic",),
    metrics=("miou",),
)
"""One class per pixel, nothing tracked."""
INSTANCE = Task(
    "instance",
    has_things=True,
    has_stuff=False,
    merges=("fast",),
    deploy_tensors=(*_SEGMENTS, "embeddings", "kernels", "masks"),
    raw_tensors=_RAW,
    # masks may overlap: the table has them whole, the label image shows the frontmost
    outputs=(
        *("instances", "detections", "panoptic", "instance_id", "overlay", *_OBJECTS),
        *("obstacles", "points"),  # what is no instance may be ground
    ),
    default_outputs=("instances", "panoptic"),
    metrics=("ap", "ap50"),
)
"""Instances whose masks may overlap, and background."""
TASKS = {task.name: task for task in (PANOPTIC, SEMANTIC, INSTANCE)}
