"""Results to messages. `image_decoding` is the way in, from image messages to pixels."""

from __future__ import annotations

import math
from array import array

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from video_knet_core.types import ClassTable, PanopticFrame, Track

from .image_decoding import ImageError as ImageError
from .image_decoding import to_rgb as to_rgb
from .msg import ClassInfo, ClassMap, TrackedInstance, TrackedInstanceArray
from .rle import instance_rle

NANOSECONDS = 1_000_000_000


def image_message(header: Header, encoding: str, pixels: NDArray) -> Image:
    """Image message of `pixels` [H, W] or [H, W, C]; 16-bit values are sent little-endian."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype("<u2", copy=False)
    data = array("B")  # rclpy takes an array as it is; an ndarray it would check byte by byte
    data.frombytes(np.ascontiguousarray(pixels).view(np.uint8).data)
    height, width = pixels.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=len(data) // height,
        data=data,
    )


def instance_array(
    header: Header,
    frame: PanopticFrame,
    classes: ClassTable,
    sequence: int,
    skipped: int,
    rle: bool = False,
) -> TrackedInstanceArray:
    """Table of a frame, one row per track; `latency_ms` is left unknown until it is published.

    With `rle` the rows of things carry their masks; stuff is in the label image for less.
    """
    height, width = frame.label_map.size
    instances = [_instance(track, classes) for track in frame.tracks]
    if rle:
        for instance, track in zip(instances, frame.tracks, strict=True):
            if track.is_thing:
                instance.rle = instance_rle(frame.labels, track)
    return TrackedInstanceArray(
        header=header,
        tracker_epoch=frame.epoch,
        sequence=sequence,
        skipped=skipped,
        height=height,
        width=width,
        instances=instances,
        born=array("Q", frame.born),
        ended=array("Q", frame.ended),
        latency_ms=math.nan,
        inference_ms=float(frame.times.step),
    )


def _instance(track: Track, classes: ClassTable) -> TrackedInstance:
    x, y, width, height = (int(v) for v in track.box)
    return TrackedInstance(
        label=int(track.label),
        track_id=int(track.track_id),
        class_id=int(track.class_id),
        class_name=classes[track.class_id].name,
        is_thing=bool(track.is_thing),
        state=int(track.state),
        score=float(track.score),
        track_score=float(track.track_score),
        age=int(track.age),
        first_seen=time_message(track.first_seen),
        last_seen=time_message(track.last_seen),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        centroid_x=float(track.centroid[0]),
        centroid_y=float(track.centroid[1]),
        velocity_x=float(track.velocity[0]),
        velocity_y=float(track.velocity[1]),
        area=int(track.area),
        truncated=bool(track.truncated),
    )


def class_map(classes: ClassTable) -> ClassMap:
    """The class table as a message, in id order."""
    rows = []
    for info in classes:
        r, g, b = info.color
        rows.append(ClassInfo(id=info.id, name=info.name, is_thing=info.is_thing, r=r, g=g, b=b))
    return ClassMap(classes=rows)


def nanoseconds(stamp: Time) -> int:
    """Integer nanoseconds of a stamp."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def time_message(stamp: int) -> Time:
    """Stamp message of integer nanoseconds."""
    sec, nanosec = divmod(int(stamp), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def latency_ms(stamp: int, now: int) -> float:
    """Milliseconds from `stamp` to `now` (ns); NaN if the image or the clock has no time yet."""
    return (now - stamp) / 1e6 if stamp and now else math.nan
