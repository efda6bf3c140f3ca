"""Bags of a red block that moves over the lower half of the image, which the tiny model finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from video_knet_core.bags.bag import Message
from video_knet_core.bags.making import BagFormat, make_bag
from video_knet_core.bags.opening import open_bag

TOPIC = "/camera/image_raw"
PERIOD = 100_000_000


def block(number: int, height: int = 50, width: int = 70) -> np.ndarray:
    """Image of frame `number`; no two of a hundred are the same."""
    image = np.zeros((height, width, 3), np.uint8)
    left = 5 + number % 20
    image[30:45, left : left + 20, 0] = 255
    image[..., 1] = number % 100
    return image


def drive(frames: int) -> list[tuple[np.ndarray, int]]:
    return [(block(number), number * PERIOD) for number in range(frames)]


def bag_of(folder: Path, frames: int = 10, form: BagFormat | None = None, topics=(TOPIC,)) -> Path:
    """A new bag in `folder`."""
    form = form or BagFormat()
    path = folder / ("in.bag" if form.format == "ros1" else "in")
    make_bag({topic: drive(frames) for topic in topics}, path, form)
    return path


def read_all(path: Path) -> list[Message]:
    """All messages of a bag."""
    bag = open_bag(path)
    return list(bag.messages({topic.name for topic in bag.contents().topics}))


def storage_file(path: Path) -> Path:
    """The file with the messages of a bag."""
    return path if path.is_file() else next(p for p in path.iterdir() if p.suffix != ".yaml")


def rewritten(path: Path, change) -> Path:
    """The bag again, with `change(list of (topic, type, time, bytes))` for its messages; MCAP."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    from video_knet_core.bags.definitions import ros2_types

    rows = [(m.topic.name, m.topic.type, m.time, bytes(m.data)) for m in read_all(path)]
    target = path.with_name("changed")
    with Writer(target, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict = {}
        for name, kind, time, data in change(rows):
            if name not in connections:
                connections[name] = writer.add_connection(name, kind, typestore=ros2_types())
            writer.write(connections[name], time, data)
    return target
