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

    Raises:
        BagDamage: by the bag, after the messages that can be read.
    """
    windows = {name: _Window() for name in cameras}
    damage = None
    try:
        for message in messages:
            if message.topic.name in windows:
                yield from windows[message.topic.name].take(message)
            else:
                yield message
    except BagDamage as error:
        damage = error
    for window in windows.values():
        yield from window.empty()
    if damage is not None:
        raise damage


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


class _Window:
    """The newest images of a topic, by stamp."""

    def __init__(self) -> None:
        self._held: list[tuple[int, int, Message]] = []
        self._count = 0
        self._newest: int | None = None

    def take(self, message: Message) -> list[Message]:
        """Keep an image; returns those whose turn has come."""
        stamp, out = _stamp_of(message), []
        if self._newest is not None and stamp < self._newest - RESTART:
            out = self.empty()
        held = self._newest if self._held else None
        self._newest = stamp if held is None else max(held, stamp)
        self._count += 1
        bisect.insort(self._held, (stamp, self._count, message))
        if len(self._held) > WINDOW:
            out.append(self._held.pop(0)[2])
        return out

    def empty(self) -> list[Message]:
        """Give all."""
        held, self._held = self._held, []
        return [message for _, _, message in held]
