"""Results in the image to messages, for the node and for replays.

`image_messages` has the other direction: image messages to pixels. `object_messages` has what is in
metres, and `topics` the topics of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import visualize
from ..spatial.spatial_frame import SpatialFrame
from ..types import ClassTable, PanopticFrame, Track

IMAGE = "sensor_msgs/msg/Image"
INSTANCES, CLASS_MAP = "video_knet_ros/msg/TrackedInstanceArray", "video_knet_ros/msg/ClassMap"
DETECTIONS, LABEL_INFO = "vision_msgs/msg/Detection2DArray", "vision_msgs/msg/LabelInfo"
NANOSECONDS = 1_000_000_000
_NOTHING = memoryview(b"")


@dataclass(frozen=True)
class FrameToPublish:
    """A frame and all that its messages contain."""

    header: Any
    """Of the image, copied onto every message."""
    image: NDArray[np.uint8]
    """RGB [H, W, 3]."""
    frame: PanopticFrame
    classes: ClassTable
    sequence: int
    """Number of the frame since activation."""
    skipped: int
    """Images dropped since the last frame."""
    rle: bool = False
    """Fill `TrackedInstance.rle`."""
    opacity: float = visualize.OPACITY
    """Of the colours in the overlay, 0..1."""
    latency_ms: float = math.nan
    """From the stamp of the image until now; NaN if unknown."""
    spatial: SpatialFrame | None = None
    """The frame in space."""
    semantic_size: tuple[int, int] | None = None
    """Height and width of the class image; None = those of the image."""

    @cached_property
    def semantic_frame(self) -> PanopticFrame:
        """The frame with a label map of the size of the class image."""
        if self.semantic_size in (None, self.frame.label_map.size):
            return self.frame
        return replace(self.frame, label_map=self.frame.label_map.at_size(self.semantic_size))


class Conversions:
    """Makes messages of the classes of one ROS library, called with fields by name.

    Args:
        find: class of a name such as "std_msgs/msg/Header"; it is asked once for each.
        sequence: type code (as "B", "H", "I" or "Q") and bytes -> what the library has for a
            sequence of numbers.
    """

    def __init__(
        self, find: Callable[[str], type[Any]], sequence: Callable[[str, memoryview], Any]
    ) -> None:
        self.find = cache(find)
        self.sequence = sequence

    def image_message(self, header: Any, encoding: str, pixels: NDArray) -> Any:
        """Image message of `pixels` [H, W] or [H, W, C]; values are sent little-endian."""
        if pixels.dtype.itemsize > 1:
            pixels = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
        data = self.sequence("B", _bytes(pixels))
        height, width = pixels.shape[:2]
        return self.find(IMAGE)(
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // height,
            data=data,
        )

    def time_message(self, stamp: int) -> Any:
        """Stamp message of integer nanoseconds."""
        sec, nanosec = divmod(int(stamp), NANOSECONDS)
        return self.find("builtin_interfaces/msg/Time")(sec=sec, nanosec=nanosec)

    def instance_array(self, result: FrameToPublish) -> Any:
        """Table of a frame, one row per track.

        With `rle` the rows of things carry their masks, whole ones where masks overlap; stuff is in
        the label image for less.
        """
        frame = result.frame
        height, width = frame.label_map.size
        return self.find(INSTANCES)(
            header=result.header,
            tracker_epoch=frame.epoch,
            sequence=result.sequence,
            skipped=result.skipped,
            height=height,
            width=width,
            instances=self._instances(frame, result.classes, result.rle),
            born=self.sequence("Q", _bytes(np.array(frame.born, np.uint64))),
            ended=self.sequence("Q", _bytes(np.array(frame.ended, np.uint64))),
            latency_ms=result.latency_ms,
            inference_ms=float(frame.times.step),
        )

    def _instances(self, frame: PanopticFrame, classes: ClassTable, rle: bool) -> list[Any]:
        """The rows of a frame, with run lengths of things if `rle`."""
        runs = [_runs(frame, track) for track in frame.tracks] if rle else repeat(_NOTHING)
        instance = self.find("video_knet_ros/msg/TrackedInstance")
        region = self.find("sensor_msgs/msg/RegionOfInterest")
        time_message = cache(self.time_message)  # most rows were last seen now
        rows = []
        for values, run in zip(frame.tracks.values(), runs, strict=False):
            label, track_id, class_id, is_thing, state, score, track_score, age, *rest = values
            first_seen, last_seen, box, centroid, velocity, area, truncated = rest
            x, y, width, height = box
            row = instance(
                label=label,
                track_id=track_id,
                class_id=class_id,
                class_name=classes[class_id].name,
                is_thing=is_thing,
                state=int(state),
                score=score,
                track_score=track_score,
                age=age,
                first_seen=time_message(first_seen),
                last_seen=time_message(last_seen),
                roi=region(x_offset=x, y_offset=y, height=height, width=width, do_rectify=False),
                centroid_x=centroid[0],
                centroid_y=centroid[1],
                velocity_x=velocity[0],
                velocity_y=velocity[1],
                area=area,
                truncated=truncated,
                rle=self.sequence("I", run),
            )
            rows.append(row)
        return rows

    def class_map(self, classes: ClassTable) -> Any:
        """The class table as a message, in id order."""
        row = self.find("video_knet_ros/msg/ClassInfo")
        rows = []
        for info in classes:
            r, g, b = info.color
            rows.append(row(id=info.id, name=info.name, is_thing=info.is_thing, r=r, g=g, b=b))
        return self.find(CLASS_MAP)(classes=rows)

    def label_info(self, header: Any, classes: ClassTable) -> Any:
        """Names of the class ids, to be latched; they hold for the class image, too.

        They are valid from the stamp of `header` on.
        """
        row = self.find("vision_msgs/msg/VisionClass")
        rows = [row(class_id=info.id, class_name=info.name) for info in classes]
        return self.find(LABEL_INFO)(header=header, class_map=rows, threshold=0.0)

    def detections(self, result: FrameToPublish) -> Any:
        """One detection per thing with pixels in this frame.

        The `id` is "EPOCH/TRACK_ID", and empty for a thing without a track: the messages have no
        place of their own for the epoch, without which a track id names several objects. The
        `class_id` is the number of the class, as vision_msgs has it; `label_info` has the names.
        """
        header, frame = result.header, result.frame
        things = [track for track in frame.tracks if track.is_thing and track.label]
        rows = [self._detection(header, track, frame.epoch) for track in things]
        return self.find(DETECTIONS)(header=header, detections=rows)

    def _detection(self, header: Any, track: Track, epoch: int) -> Any:
        """The pose in space is unknown and stays at its default."""
        hypothesis = self.make(
            "vision_msgs/msg/ObjectHypothesis",
            class_id=str(track.class_id),
            score=float(track.score),
        )
        pose = self.make(
            "geometry_msgs/msg/Pose",
            position=self.make("geometry_msgs/msg/Point", x=0.0, y=0.0, z=0.0),
            orientation=self.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        )
        result = self.make(
            "vision_msgs/msg/ObjectHypothesisWithPose",
            hypothesis=hypothesis,
            pose=self.make(
                "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)
            ),
        )
        # centred between the outer edges of its pixels, as in vision_msgs' create_aabb.hpp
        x, y, width, height = (float(v) for v in track.box)
        centre = self.make("vision_msgs/msg/Point2D", x=x + width / 2, y=y + height / 2)
        box = self.make(
            "vision_msgs/msg/BoundingBox2D",
            center=self.make("vision_msgs/msg/Pose2D", position=centre, theta=0.0),
            size_x=width,
            size_y=height,
        )
        return self.make(
            "vision_msgs/msg/Detection2D",
            header=header,
            results=[result],
            bbox=box,
            id=f"{epoch}/{track.track_id}" if track.track_id else "",
        )

    def make(self, name: str, /, **fields: Any) -> Any:
        """Make a message of the type of this name."""
        return self.find(name)(**fields)


def _runs(frame: PanopticFrame, track: Track) -> memoryview:
    """Bytes of the run lengths of a thing's mask inside its box; none if it has no pixels."""
    if not (track.label and track.is_thing):
        return _NOTHING
    return _bytes(run_lengths(frame.mask(track, in_box=True)))


def _bytes(values: NDArray) -> memoryview:
    return np.ascontiguousarray(values).view(np.uint8).data


def nanoseconds(stamp: Any) -> int:
    """Integer nanoseconds of a stamp message."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def latency_ms(stamp: int, now: int) -> float:
    """Milliseconds from `stamp` to `now` (ns); NaN if the image or the clock has no time yet."""
    return (now - stamp) / 1e6 if stamp and now else math.nan


def run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Run lengths of a mask inside its box [height, width], [R]: the field `rle` of a row.

    The runs go row by row through the box, on from the end of a row to the start of the next,
    background and instance by turns, background first. They add up to the area of the box.
    """
    pixels = mask.ravel()
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = np.zeros(1 + int(pixels[0]), np.intp)  # twice 0: the background before it is empty
    runs = np.diff(np.concatenate([start, ends, [pixels.size]]))
    return runs.astype(np.uint32)


def mask_from_rle(instance: Any) -> NDArray[np.bool_]:
    """Mask of a TrackedInstance, bool [roi.height, roi.width]; all false without runs.

    Its place in the image is `[roi.y_offset:][:roi.height], [roi.x_offset:][:roi.width]`.

    Raises:
        ValueError: the runs do not add up to the roi.
    """
    shape = (instance.roi.height, instance.roi.width)
    runs = np.asarray(instance.rle, np.int64)
    if not len(runs):
        return np.zeros(shape, bool)
    if runs.sum() != shape[0] * shape[1]:
        raise ValueError(
            f"rle: expected runs of {shape[0] * shape[1]} pixels "
            f"for a roi of {shape[1]} x {shape[0]}, got {runs.sum()}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape)
