"""What the readers have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

CDR = "cdr"
ROS1 = "ros1"


class BagError(ValueError):
    """A bag that cannot be read or written at all, or has not what is asked for."""


class BagDamage(BagError):
    """The bag can be read no further; what came before is good. The message tells the place."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag."""

    name: str
    type: str
    """With the middle part, also in ROS 1: sensor_msgs/msg/Image."""
    encoding: str = CDR
    """Of the messages: `CDR` or `ROS1`; others cannot be decoded."""
    definition: str = ""
    """Text of the message definition with all that it refers to; empty if the bag has none."""
    qos: str = ""
    """Offered QoS profiles as YAML; empty if the bag tells none."""


class Message(NamedTuple):
    """A message as it was recorded."""

    topic: Topic
    time: int
    """When it was received [ns]."""
    data: bytes | memoryview


@dataclass(frozen=True)
class Contents:
    """What is in a bag."""

    topics: tuple[Topic, ...]
    counts: dict[str, int]
    """Messages by topic, as far as the bag goes."""
    start: int
    """Receive time of the first message [ns]; 0 in an empty bag."""
    end: int
    """Receive time of the last message [ns]."""
    damage: str = ""
    """Where and why the bag can be read no further; empty if all of it can, as far as its index
    tells."""


class Bag(Protocol):
    """A bag on disk."""

    def contents(self) -> Contents:
        """What is in it; BagError if it is no bag or nothing of it can be read."""
        ...

    def messages(self, names: Collection[str], since: int = 0) -> Iterator[Message]:
        """Messages of some topics as they were recorded, those received before `since` left out.

        Raises:
            BagDamage: there is damage behind the last message that was given.
        """
        ...


def survey(messages: Iterator[Message]) -> Contents:
    """Contents of a bag without a usable index: everything is read."""
    topics: dict[str, Topic] = {}
    counts: dict[str, int] = {}
    start = end = 0
    damage = ""
    try:
        for topic, time, _ in messages:
            topics.setdefault(topic.name, topic)
            counts[topic.name] = counts.get(topic.name, 0) + 1
            start, end = min(start or time, time), max(end, time)
    except BagDamage as error:
        damage = str(error)
    return Contents(tuple(topics.values()), counts, start, end, damage)


def joined(parts: list[Contents]) -> Contents:
    """Contents of a bag in several files, up to the first damage."""
    topics: dict[str, Topic] = {}
    counts: dict[str, int] = {}
    for part in parts:
        for topic in part.topics:
            known = topics.setdefault(topic.name, topic)
            if not known.definition:
                topics[topic.name] = replace(known, definition=topic.definition)
            counts[topic.name] = counts.get(topic.name, 0) + part.counts.get(topic.name, 0)
    filled = [part for part in parts if sum(part.counts.values())]
    return Contents(
        tuple(topics.values()),
        counts,
        min((part.start for part in filled), default=0),
        max((part.end for part in filled), default=0),
        next((part.damage for part in parts if part.damage), ""),
    )
