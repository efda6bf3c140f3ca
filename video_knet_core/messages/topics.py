"""How an output of a frame is published, for the node and for replays; `Task.outputs` names them.

The class map belongs to every task, and so does the label info where there is vision_msgs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import visualize
from ..tasks import TASKS
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


ALL_OUTPUTS = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.outputs))
"""Of all tasks: the images, and two tables."""


def topic_of(output: str) -> str:
    """Topic of an output below the name of the node."""
    return IMAGE_OUTPUTS[output].topic if output in IMAGE_OUTPUTS else output
