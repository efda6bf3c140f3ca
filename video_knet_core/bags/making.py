"""Makes bags of videos, so that anyone has one in a minute."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.frame_source import Frame, FrameSource
from ..messages.result_messages import Conversions
from ..messages.view_messages import (
    CAMERA_INFO,
    ODOMETRY,
    camera_info,
    depth_image,
    view_odometry,
)
from ..user_names import camera_topics
from .bag import BagError
from .definitions import COMPRESSED_IMAGE, IMAGE, conversions, ros1_types, ros2_types
from .writing import COMPRESSIONS, BagWriter, NewTopic, offered

FIRST_STAMP = 1_700_000_000_000_000_000
"""Of the first frame [ns]: a bag that is made again is the same."""
DELAY = 2_000_000
"""From the stamp of an image to when it was received [ns]."""
ODOMETRY_TOPIC = "/odometry"
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

    def image_topic(self, topic: str) -> str:
        """Where the images of a camera are written: with JPEG, on TOPIC/compressed."""
        return topic if self.jpeg is None else f"{topic}/compressed"

    @property
    def image_type(self) -> str:
        """Of the messages of images."""
        return IMAGE if self.jpeg is None else COMPRESSED_IMAGE

    def image_message(self, convert: Conversions, header: Any, image: NDArray[np.uint8]) -> Any:
        """Message of an RGB image [H, W, 3]."""
        if self.jpeg is None:
            return convert.image_message(header, "rgb8", image)
        options = [cv2.IMWRITE_JPEG_QUALITY, self.jpeg]
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        return convert.find(COMPRESSED_IMAGE)(header=header, format="jpeg", data=data.ravel())


class TypedBag:
    """A new bag of messages as objects of rosbags; `convert` makes them.

    BagError if `out` is there already, OSError if it cannot be written.

    Args:
        out: a new .bag file for ROS 1, else a new folder.
        topics: the type of each.
        form: how it is written.
        latched: topics that a late subscriber gets the last message of (ROS 2).
    """

    def __init__(
        self,
        out: Path,
        topics: Mapping[str, str],
        form: BagFormat = BagFormat(),  # noqa: B008 - it is frozen
        latched: Collection[str] = (),
    ) -> None:
        self._topics, self._is_ros1 = dict(topics), form.format == "ros1"
        self._store = ros1_types() if self._is_ros1 else ros2_types()
        self.convert = conversions(self._store)
        out.parent.mkdir(parents=True, exist_ok=True)
        new = [self._topic(name, kind, name in latched) for name, kind in topics.items()]
        self._writer = BagWriter(out, new, form.format, form.compression)

    def _topic(self, name: str, kind: str, latched: bool) -> NewTopic:
        version = 1 if self._is_ros1 else 2
        definition, digest = self._store.generate_msgdef(kind, ros_version=version)
        digest = digest if self._is_ros1 else self._store.hash_rihs01(kind)
        return NewTopic(name, kind, definition, digest, offered(latched=True) if latched else ())

    def header(self, stamp: int, frame_id: str, number: int = 0) -> Any:
        """Header with a stamp in nanoseconds; only ROS 1 has the number in it."""
        return self.convert.find("std_msgs/msg/Header")(
            stamp=self.convert.time_message(stamp),
            frame_id=frame_id,
            **({"seq": number} if self._is_ros1 else {}),
        )

    def write(self, topic: str, time: int, message: Any) -> None:
        """Append a message received at `time` [ns]."""
        store = self._store
        serialize = store.serialize_ros1 if self._is_ros1 else store.serialize_cdr
        self._writer.write(topic, time, serialize(message, self._topics[topic]))

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()


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
    count = 0
    topics = {form.image_topic(topic): form.image_type for topic in cameras}
    with closing(TypedBag(out, topics, form)) as bag:
        rows = itertools.islice(zip(*cameras.values(), strict=False), max_frames)
        for number, row in enumerate(rows):
            for topic, (image, stamp) in zip(cameras, row, strict=True):
                stamp += FIRST_STAMP
                header = bag.header(stamp, topic.strip("/").replace("/", "_"), number)
                message = form.image_message(bag.convert, header, image)
                bag.write(form.image_topic(topic), stamp + DELAY, message)
                count += 1
    return count


def make_depth_bag(
    source: FrameSource,
    topic: str,
    out: Path,
    form: BagFormat = BagFormat(),  # noqa: B008 - it is frozen
    max_frames: int | None = None,
) -> int:
    """Write images with depth, camera_info and, where the source has poses, odometry.

    Returns how many images. All messages of a frame have its stamp, and the image comes last. The
    frame_id is the name of the camera: "front" of /front/image_raw.

    BagError if `out` is there already or the source has no depth, FrameError if a frame cannot be
    read.

    Args:
        source: with stamps from 0 on [ns].
        topic: of the images; depth and camera_info are beside it, odometry is on /odometry.
        out: a new folder.
        form: of ROS 2.
        max_frames: at most.
    """
    camera = source.intrinsics
    first = next(source.views(), None)
    if first is None:
        return 0
    if camera is None or first.depth is None:
        name = source.path or "the video"
        raise BagError(f"{name}: expected depth and the intrinsics of the camera, got images alone")
    frame_id = topic.rpartition("/")[0].strip("/").replace("/", "_") or "camera"
    depth_topic, info_topic = camera_topics(topic)
    kinds = {info_topic: CAMERA_INFO, depth_topic: IMAGE, form.image_topic(topic): form.image_type}
    if first.pose is not None:
        kinds[ODOMETRY_TOPIC] = ODOMETRY
    count, last = 0, None
    with closing(TypedBag(out, kinds, form)) as bag:
        for view in itertools.islice(source.views(), max_frames):
            stamp = FIRST_STAMP + view.stamp
            convert, header = bag.convert, bag.header(stamp, frame_id)
            size = view.image.shape[:2]
            messages = {info_topic: camera_info(convert, header, camera, size)}
            if view.pose is not None:
                messages[ODOMETRY_TOPIC] = view_odometry(convert, header, view, last)
            if view.depth is not None:
                messages[depth_topic] = depth_image(convert, header, view.depth)
            messages[form.image_topic(topic)] = form.image_message(convert, header, view.image)
            for name, message in messages.items():
                bag.write(name, stamp + DELAY, message)
            count, last = count + 1, view
    return count
