"""The tracked things as vision_msgs, for tools that do not know this package's messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import ClassTable, PanopticFrame, Track


@dataclass(frozen=True)
class VisionTypes:
    """The message classes of one ROS library; each is called with all its fields by name."""

    Detection2DArray: Callable[..., Any]
    Detection2D: Callable[..., Any]
    BoundingBox2D: Callable[..., Any]
    Pose2D: Callable[..., Any]
    Point2D: Callable[..., Any]
    ObjectHypothesisWithPose: Callable[..., Any]
    ObjectHypothesis: Callable[..., Any]
    LabelInfo: Callable[..., Any]
    VisionClass: Callable[..., Any]
    PoseWithCovariance: Callable[..., Any]
    Pose: Callable[..., Any]
    Point: Callable[..., Any]
    Quaternion: Callable[..., Any]


class VisionConversions:
    """Makes messages of the given classes."""

    def __init__(self, types: VisionTypes) -> None:
        self._types = types

    def detections(self, header: Any, frame: PanopticFrame) -> Any:
        """One detection per thing with pixels in this frame.

        The `id` is "EPOCH/TRACK_ID", and empty for a thing without a track: the messages have no
        place of their own for the epoch, without which a track id names several objects. The
        `class_id` is the number of the class, as vision_msgs has it; `label_info` has the names.
        """
        things = [track for track in frame.tracks if track.is_thing and track.label]
        rows = [self._detection(header, track, frame.epoch) for track in things]
        return self._types.Detection2DArray(header=header, detections=rows)

    def label_info(self, header: Any, classes: ClassTable, threshold: float) -> Any:
        """Names of the class ids, to be latched; they hold for the class image, too.

        Args:
            header: its stamp says since when they hold.
            classes: the classes of the model.
            threshold: least class score of what is published, 0..1.
        """
        rows = [self._types.VisionClass(class_id=c.id, class_name=c.name) for c in classes]
        return self._types.LabelInfo(header=header, class_map=rows, threshold=float(threshold))

    def _detection(self, header: Any, track: Track, epoch: int) -> Any:
        hypothesis = self._types.ObjectHypothesis(
            class_id=str(track.class_id), score=float(track.score)
        )
        result = self._types.ObjectHypothesisWithPose(
            hypothesis=hypothesis, pose=self._unknown_pose()
        )
        return self._types.Detection2D(
            header=header,
            results=[result],
            bbox=self._box(track),
            id=f"{epoch}/{track.track_id}" if track.track_id else "",
        )

    def _unknown_pose(self) -> Any:
        """A camera tells no pose in space: it stays at its default."""
        pose = self._types.Pose(
            position=self._types.Point(x=0.0, y=0.0, z=0.0),
            orientation=self._types.Quaternion(x=0.0, y=0.0, z=0.0, w=1.0),
        )
        return self._types.PoseWithCovariance(pose=pose, covariance=np.zeros(36))

    def _box(self, track: Track) -> Any:
        """Box centred between the outer edges of its pixels, as in vision_msgs' create_aabb.hpp."""
        x, y, width, height = (float(v) for v in track.box)
        position = self._types.Point2D(x=x + width / 2, y=y + height / 2)
        return self._types.BoundingBox2D(
            center=self._types.Pose2D(position=position, theta=0.0), size_x=width, size_y=height
        )
