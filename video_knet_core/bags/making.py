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

from ..data.frame_source import Frame
from ..messages.result_messages import Conversions
from .bag import BagError
from .definitions import COMPRESSED_IMAGE, IMAGE, conversions, ros1_types, ros2_types
from .writing import COMPRESSIONS, BagWriter, NewTopic

FIRST_STAMP = 1_700_000_000_000_000_000
"""Of the first frame [ns]: a bag that is made again is the same."""
DELAY = 2_000_000
"""From the stamp of an image to when it was received [ns]."""
_BY_FORMAT = {
    "mcap": COMPRESSIONS,
    "sqlite3": ("none", "message", "file"),
    "ros1": ("none", "chunk"),
}
FORMATS = tuple(_BY_FORMAT)


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
        expected = _BY_FORMAT[self.format]
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

    BagError if `out` is there already, FrameError if a frame cannot be read.

    Args:
        cameras: topic -> RGB images with stamps from 0 on [ns]. The shortest ends the bag. With
            JPEG, `/compressed` is added to the topic.
        out: a new .bag file for ROS 1, else a new folder.
        form: how it is written.
        max_frames: of each camera, at most.
    """
    kind = IMAGE if form.jpeg is None else COMPRESSED_IMAGE
    suffix = "" if form.jpeg is None else "/compressed"
    old = form.format == "ros1"
    store = ros1_types() if old else ros2_types()
    convert, serialize = conversions(store), store.serialize_ros1 if old else store.serialize_cdr
    definition, digest = store.generate_msgdef(kind, ros_version=1 if old else 2)
    digest = digest if old else store.hash_rihs01(kind)
    out.parent.mkdir(parents=True, exist_ok=True)
    topics = [NewTopic(topic + suffix, kind, definition, digest) for topic in cameras]
    writer = BagWriter(out, topics, form.format, form.compression)
    count = 0
    try:
        rows = itertools.islice(zip(*cameras.values(), strict=False), max_frames)
        for number, row in enumerate(rows):
            for topic, (image, stamp) in zip(cameras, row, strict=True):
                stamp += FIRST_STAMP
                header = convert.find("std_msgs/msg/Header")(
                    stamp=convert.time_message(stamp),
                    frame_id=topic.strip("/").replace("/", "_"),
                    **({"seq": number} if old else {}),
                )
                message = _image(convert, header, image, form.jpeg)
                writer.write(topic + suffix, stamp + DELAY, serialize(message, kind))
                count += 1
    finally:
        writer.close()
    return count


def _image(convert: Conversions, header: Any, image: NDArray[np.uint8], jpeg: int | None) -> Any:
    if jpeg is None:
        return convert.image_message(header, "rgb8", image)
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return convert.find(COMPRESSED_IMAGE)(header=header, format="jpeg", data=data.ravel())
