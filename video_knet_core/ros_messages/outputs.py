"""What is published of a frame, by the task of the model; for the node and for replays.

The class map belongs to every task, and so does the label info where there is vision_msgs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import visualize
from ..types import ClassTable, PanopticFrame


@dataclass(frozen=True)
class ImageOutput:
    """An output of type sensor_msgs/Image."""

    topic: str
    """Below the name of the node."""
    encoding: str
    pixels: Callable[[NDArray[np.uint8], PanopticFrame, ClassTable, float], NDArray]
    """Image, frame, classes and opacity -> pixels [H, W] or [H, W, 3]."""


IMAGE_OUTPUTS = {
    "panoptic": ImageOutput(
        "panoptic/image", "16UC1", lambda image, frame, classes, opacity: frame.labels
    ),
    "semantic": ImageOutput(
        "semantic/image", "mono8", lambda image, frame, classes, opacity: frame.semantic_map()
    ),
    "overlay": ImageOutput("overlay/image", "rgb8", visualize.overlay),
}
"""By name; the one that takes longest comes last."""


@dataclass(frozen=True)
class TaskOutputs:
    """Names of the outputs of a frame: those of `IMAGE_OUTPUTS`, and two tables."""

    all: tuple[str, ...]
    """That the task has, in the order in which they are published."""
    usual: tuple[str, ...]
    """That a replay writes unless it is asked for others: all that is known of a frame."""


OUTPUTS = {
    "panoptic": TaskOutputs(
        ("instances", "detections", "panoptic", "semantic", "overlay"), ("instances", "panoptic")
    ),
    # a row of the table would point at a label image that there is not: the class image has it all
    "semantic": TaskOutputs(("semantic", "overlay"), ("semantic",)),
    # masks may overlap: the table has them whole, the label image shows which is in front
    "instance": TaskOutputs(
        ("instances", "detections", "panoptic", "overlay"), ("instances", "panoptic")
    ),
}
"""By task of the model."""
ALL_OUTPUTS = OUTPUTS["panoptic"].all
"""The other tasks have some of these."""


def topic_of(output: str) -> str:
    """Topic of an output below the name of the node."""
    return IMAGE_OUTPUTS[output].topic if output in IMAGE_OUTPUTS else output
