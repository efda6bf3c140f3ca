"""The topics of the results.

`OUTPUTS` has what can be published of a frame, `Task.outputs` names what of it a task has; the
class map belongs to every task, and so does the label info where there is vision_msgs.

A new topic is a file in `msg/` (or a type of another package), a row of `OUTPUTS`, and its name in
the `outputs` of tasks: node, replays and builds follow. Then run `make setup`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import visualize
from ..config_io import expect
from ..spatial.settings import class_ids
from ..tasks import Task
from ..types import ClassTable, plain_name
from . import object_messages as spatial
from .result_messages import DETECTIONS, IMAGE, INSTANCES, Conversions, FrameToPublish

OBJECTS = "video_knet_ros/msg/TrackedObjectArray"
DETECTIONS_3D, MARKERS = "vision_msgs/msg/Detection3DArray", "visualization_msgs/msg/MarkerArray"
CLOUD, POSE = "sensor_msgs/msg/PointCloud2", "geometry_msgs/msg/PoseStamped"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_DTYPES = {"16UC1": "<u2", "32SC1": "<i4"}


@dataclass(frozen=True)
class MessageOutput:
    """An output of a frame."""

    topic: str
    """Below the name of the node."""
    type: str
    """Of the message; no topic where its package is not installed."""
    make: Callable[[Conversions, FrameToPublish], Any]
    """Makes the message, None if there is none now; called only while the topic has subscribers."""
    spatial: bool = False
    """It needs `FrameToPublish.spatial`."""
    semantic = False


@dataclass(frozen=True)
class ImageOutput:
    """An output of a frame of type sensor_msgs/Image."""

    topic: str
    encoding: str
    draw: Callable[[FrameToPublish, NDArray], object]
    """Fills the pixels of an image; called only while the topic has subscribers."""
    type: str = IMAGE
    semantic: bool = False
    """Its size is that of the class image."""
    spatial = False

    def size(self, result: FrameToPublish) -> tuple[int, int]:
        """Height and width."""
        frame = result.semantic_frame if self.semantic else result.frame
        return frame.label_map.size

    def blank(self, size: tuple[int, int]) -> NDArray:
        """Pixels for `draw`, [H, W] or [H, W, 3] by the encoding, of this size (H, W)."""
        dtype = np.dtype(_DTYPES.get(self.encoding, "u1"))
        return np.zeros((*size, 3) if self.encoding == "rgb8" else size, dtype)

    def make(self, convert: Conversions, result: FrameToPublish) -> Any:
        """Make the message."""
        pixels = self.blank(self.size(result))
        self.draw(result, pixels)
        return convert.image_message(result.header, self.encoding, pixels)


def _draw_confidence(result: FrameToPublish, pixels: NDArray) -> None:
    frame = result.semantic_frame
    scores = np.rint(255 * frame.by_label("score", 0, np.float64).clip(0, 1))
    frame.label_map.look_up(scores.astype(np.uint8), out=pixels)


def _draw_instance_ids(result: FrameToPublish, pixels: NDArray) -> None:
    """Class in the upper 16 bits, track in the lower: of ids over 65535 the rest."""
    frame = result.frame
    ids = frame.by_label("class_id", 0, np.int64) << 16
    ids |= frame.by_label("track_id", 0, np.int64) & 0xFFFF
    ids[0] = -1  # of no class
    frame.label_map.look_up(ids.astype(np.int32), out=pixels)


def _draw_mask(class_id: int, result: FrameToPublish, pixels: NDArray) -> None:
    frame = result.frame
    inside = frame.by_label("class_id", -1, np.int64) == class_id
    frame.label_map.look_up(np.where(inside, 255, 0).astype(np.uint8), out=pixels)


def _draw_overlay(result: FrameToPublish, pixels: NDArray) -> None:
    drawn = visualize.overlay(result.image, result.frame, result.classes, result.opacity)
    np.copyto(pixels, drawn)


OUTPUTS: dict[str, MessageOutput | ImageOutput] = {
    "instances": MessageOutput("instances", INSTANCES, Conversions.instance_array),
    "detections": MessageOutput("detections", DETECTIONS, Conversions.detections),
    "panoptic": ImageOutput(
        "panoptic/image", "16UC1", lambda result, pixels: result.frame.label_map.enlarge(pixels)
    ),
    "semantic": ImageOutput(
        "semantic/image",
        "mono8",
        lambda result, pixels: result.semantic_frame.semantic_map(out=pixels),
        semantic=True,
    ),
    "confidence": ImageOutput("semantic/confidence", "mono8", _draw_confidence, semantic=True),
    "instance_id": ImageOutput("instance_id/image", "32SC1", _draw_instance_ids),
    "overlay": ImageOutput("overlay/image", "rgb8", _draw_overlay),
    "objects": MessageOutput("objects", OBJECTS, spatial.object_array, True),
    "detections_3d": MessageOutput("detections_3d", DETECTIONS_3D, spatial.detections, True),
    "markers": MessageOutput("markers", MARKERS, spatial.markers, True),
    "followed": MessageOutput("followed/pose", POSE, spatial.followed_pose, True),
    "obstacles": MessageOutput("obstacles", CLOUD, spatial.obstacles, True),
    "free_space": MessageOutput("free_space", CLOUD, spatial.free_space, True),
    "points": MessageOutput("points", CLOUD, spatial.points, True),
}
"""By name, in the order of publishing: what is in the image first, whose messages never wait for
what is in space."""


def outputs_of(
    task: Task, classes: ClassTable, mask_classes: str
) -> dict[str, MessageOutput | ImageOutput]:
    """The outputs of a model, by name: those of its task, and masks of the classes named.

    ConfigError if the model lacks one of these classes.
    """
    names = [name.strip() for name in mask_classes.split(",") if name.strip()]
    for name in names:
        known = class_ids(classes, name)
        expect(bool(known), "mask_classes", f"classes of {[c.name for c in classes]}", name)
    masks: dict[str, MessageOutput | ImageOutput] = {}
    for class_id in class_ids(classes, mask_classes):
        name = re.sub(r"\W", "_", plain_name(classes[class_id].name), flags=re.ASCII)
        topic = f"mask/{name}"
        masks[topic] = ImageOutput(f"{topic}/image", "mono8", partial(_draw_mask, class_id))
        info = f"{topic}/camera_info"
        masks[info] = MessageOutput(info, CAMERA_INFO, spatial.camera_info, True)
    named = {name: output for name, output in OUTPUTS.items() if name in task.outputs}
    return named | masks
