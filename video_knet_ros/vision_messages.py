"""The tracked things as vision_msgs, for tools that do not know this package's messages.

Importing this file raises ImportError where vision_msgs is not installed; nothing else needs it.
"""

from __future__ import annotations

from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from video_knet_core.types import ClassTable, PanopticFrame, Track


def detections(header: Header, frame: PanopticFrame) -> Detection2DArray:
    """One detection per thing with pixels in this frame.

    The `id` is the track id, and empty for a thing without a track. The messages have no place for
    the tracker's epoch: after a reset, an id names another object. The `class_id` is the number of
    the class, as vision_msgs wants it; `label_info` tells the names.
    """
    things = [track for track in frame.tracks if track.is_thing and track.label]
    return Detection2DArray(header=header, detections=[_detection(header, t) for t in things])


def _detection(header: Header, track: Track) -> Detection2D:
    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = str(track.class_id)
    hypothesis.hypothesis.score = float(track.score)
    return Detection2D(
        header=header,
        results=[hypothesis],
        bbox=_box(track),
        id=str(track.track_id) if track.track_id else "",
    )


def _box(track: Track) -> BoundingBox2D:
    """Box centred between the outer edges of its pixels, as in vision_msgs' create_aabb.hpp."""
    x, y, width, height = track.box
    box = BoundingBox2D(size_x=float(width), size_y=float(height))
    box.center.position.x = x + width / 2
    box.center.position.y = y + height / 2
    return box


def label_info(header: Header, classes: ClassTable, threshold: float) -> LabelInfo:
    """Names of the class ids, to be latched; they hold for the class image, too.

    Args:
        header: its stamp says since when they hold.
        classes: the classes of the model.
        threshold: least class score of what is published, 0..1.
    """
    rows = [VisionClass(class_id=info.id, class_name=info.name) for info in classes]
    return LabelInfo(header=header, class_map=rows, threshold=float(threshold))
