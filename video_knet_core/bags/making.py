"""Makes bags of videos, so that anyone has one in a minute."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.store import Typestore

from ..data.frame_source import Frame
from .bag import BagError
from .definitions import COMPRESSED_IMAGE, IMAGE, ros1_types, ros2_types
from .writing import COMPRESSIONS, BagWriter, NewTopic

FIRST_STAMP = 1_700_000_000_000_000_000
"""Of the first frame [ns]: a bag that is made again is the same."""
DELAY = 2_000_000
"""From the stamp of an image to when it was received [ns]."""
FORMATS = ("mcap", "sqlite3", "ros1")


@dataclass(frozen=True)
class BagFormat:
    """How a bag is written."""

    format: str = "mcap"
    """One of `FORMATS`."""
    compression: str = "none"
    """One of `COMPRESSIONS`; of ROS 1, only by chunk."""
    jpeg: int | None = None
    """Quality of JPEG images, 1..100; None = raw images."""

    def __post_init__(self) -> None:
        expected: tuple[str, ...] = COMPRESSIONS
        if self.format == "ros1":
            expected = ("none", "chunk")
        elif self.format == "sqlite3":
            expected = ("none", "message", "file")
        if self.compression not in expected:
            raise BagError(
                f"{self.format} can be compressed by {', '.join(expected)}, got {self.compression}"
            )


def make_bag(
    cameras: Mapping[str, Iterable[Frame]],
    out: Path,
    form: BagFormat = BagFormat(),  # noqa: B008 - it is frozen
    max_frames: int | None = None,
) -> int:
    """Write the frames of cameras, one after the other in turn; returns how many images.

    Args:
        cameras: topic -> RGB images with stamps from 0 on [ns]. The shortest ends the bag. With
            JPEG, `/compressed` is added to the topic.
        out: a .bag file for ROS 1, else a folder; it must not be there.
        form: how it is written.
        max_frames: of each camera, at most.

    Raises:
        BagError: `out` is there already.
        FrameError: a frame cannot be read.
    """
    kind = IMAGE if form.jpeg is None else COMPRESSED_IMAGE
    suffix = "" if form.jpeg is None else "/compressed"
    store = ros1_types() if form.format == "ros1" else ros2_types()
    out.parent.mkdir(parents=True, exist_ok=True)
    topics = [NewTopic(topic + suffix, kind, *_definition(store, kind)) for topic in cameras]
    writer = BagWriter(out, topics, form.format, form.compression)
    count = 0
    try:
        rows = itertools.islice(zip(*cameras.values(), strict=False), max_frames)
        for number, row in enumerate(rows):
            for topic, (image, stamp) in zip(cameras, row, strict=True):
                stamp += FIRST_STAMP
                header = _header(store, number, stamp, topic.strip("/").replace("/", "_"))
                message = _image(store, header, image, form.jpeg)
                serialize = store.serialize_ros1 if store is ros1_types() else store.serialize_cdr
                writer.write(topic + suffix, stamp + DELAY, serialize(message, kind))
                count += 1
    finally:
        writer.close()
    return count


def _definition(store: Typestore, kind: str) -> tuple[str, str]:
    """Text of the message definition and its hash."""
    if store is ros1_types():
        return store.generate_msgdef(kind)
    return store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)


def _header(store: Typestore, number: int, stamp: int, frame_id: str) -> Any:
    types: dict[str, Any] = store.types
    sec, nanosec = divmod(stamp, 10**9)
    time = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    more = {"seq": number} if store is ros1_types() else {}
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id, **more)


def _image(store: Typestore, header: Any, image: NDArray[np.uint8], jpeg: int | None) -> Any:
    types: dict[str, Any] = store.types
    if jpeg is not None:
        options = [cv2.IMWRITE_JPEG_QUALITY, jpeg]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        return types[COMPRESSED_IMAGE](header=header, format="jpeg", data=data.ravel())
    height, width = image.shape[:2]
    return types[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(image).ravel(),
    )
