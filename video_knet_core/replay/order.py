"""The order in which messages are taken.

A bag holds messages as they were received, which for one camera is nearly always the order of their
stamps. Images that overtook each other on the way are put right within a window of a few frames.
What is further back in time is no disorder: the recording was looped, or the clock was set. Such
images stay where they are, and the tracker is reset, as it is in the live node.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Collection, Iterator

from ..bags.bag import ROS1, BagDamage, Message

WINDOW = 4
"""Images of a topic that wait for an earlier one."""
RESTART = 1_000_000_000
"""Nanoseconds by which a stamp must be behind the newest one to be a new beginning."""


def in_stamp_order(messages: Iterator[Message], cameras: Collection[str]) -> Iterator[Message]:
    """All messages; the images of each camera by stamp, equal stamps as they were received.

    BagDamage by the bag comes after the messages that can be read.
    """
    windows: dict[str, list[tuple[int, int, Message]]] = {name: [] for name in cameras}
    damage = None
    try:
        for number, message in enumerate(messages):
            window = windows.get(message.topic.name)
            if window is None:
                yield message
                continue
            stamp = _stamp_of(message)
            if window and stamp < window[-1][0] - RESTART:
                yield from _emptied(window)
            bisect.insort(window, (stamp, number, message))
            if len(window) > WINDOW:
                yield window.pop(0)[2]
    except BagDamage as error:
        damage = error
    for window in windows.values():
        yield from _emptied(window)
    if damage is not None:
        raise damage


def _emptied(window: list[tuple[int, int, Message]]) -> list[Message]:
    held = [message for _, _, message in window]
    window.clear()
    return held


def _stamp_of(message: Message) -> int:
    """Stamp of a message that begins with a header [ns]; when it was received, if it has none."""
    try:
        if message.topic.encoding == ROS1:
            sec, nanosec = struct.unpack_from("<II", message.data, 4)
        else:  # the second byte is the byte order
            order = "<" if message.data[1] else ">"
            sec, nanosec = struct.unpack_from(f"{order}iI", message.data, 4)
    except (struct.error, IndexError):
        return message.time
    return sec * 10**9 + nanosec or message.time
