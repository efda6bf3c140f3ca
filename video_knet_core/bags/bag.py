"""What the readers have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

CDR = "cdr"
ROS1 = "ros1"


class BagError(ValueError):
    """A bag that cannot be read or written at all, or does not have what is requested."""


class BagDamage(BagError):
    """Some of the bag cannot be read; all that can was given. The message names the place."""


@dataclass(frozen=True)
class RecordedTopic:
    """A topic of a bag."""

    name: str
    type: str
    """With the middle part, also in ROS 1: sensor_msgs/msg/Image."""
    encoding: str = CDR
    """Of the messages: `CDR` or `ROS1`; others cannot be decoded."""
    definition: str = ""
    """Text of the message definition with all that it refers to; empty if the bag has none."""
    qos: str = ""
    """Offered QoS profiles as YAML; empty if the bag has none."""


class Message(NamedTuple):
    """A message as it was recorded."""

    topic: RecordedTopic
    time: int
    """When it was received [ns]; may be 0 or negative (simulated time)."""
    data: bytes


@dataclass(frozen=True)
class Contents:
    """What is in a bag."""

    topics: tuple[RecordedTopic, ...]
    """Several of one name if the bag has messages of several types on it."""
    counts: dict[str, int]
    """Messages by name of the topic, as far as the bag can be read."""
    start: int | None
    """Receive time of the earliest message [ns]; None in a bag without messages."""
    end: int | None
    """Receive time of the latest message [ns]."""
    damage: str = ""
    """Where and why some of the bag cannot be read; empty if all of it can, according to its
    index."""

    @property
    def seconds(self) -> float:
        """From the earliest message to the latest."""
        return 0.0 if self.start is None or self.end is None else (self.end - self.start) * 1e-9


class StorageFile(Protocol):
    """One file of a bag; messages of its errors begin with its name."""

    def contents(self) -> Contents:
        """What is in it, from its index or from all messages."""
        ...

    def messages(
        self, names: Collection[str], since: int | None = None, until: int | None = None
    ) -> Iterator[Message]:
        """Messages of some topics in the order in which they were recorded.

        Args:
            names: of the topics.
            since: receive time of the earliest [ns]; None = no limit.
            until: receive time before which the others are [ns]; None = no limit.

        Raises:
            BagDamage: after the last message, if some of the file cannot be read.
        """
        ...


def in_range(time: int, since: int | None, until: int | None) -> bool:
    """Whether a receive time is within the limits of `StorageFile.messages`."""
    return (since is None or time >= since) and (until is None or time < until)


def distinct(topics: Iterable[RecordedTopic]) -> tuple[RecordedTopic, ...]:
    """Each name with each type once; the definition is the first that there is."""
    found: dict[tuple[str, str, str], RecordedTopic] = {}
    for topic in topics:
        known = found.setdefault((topic.name, topic.type, topic.encoding), topic)
        if not known.definition and topic.definition:
            found[known.name, known.type, known.encoding] = replace(
                known, definition=topic.definition
            )
    return tuple(found.values())


def survey(messages: Iterator[Message]) -> Contents:
    """Contents of a bag without a usable index: everything is read."""
    topics: dict[RecordedTopic, None] = {}
    counts: dict[str, int] = {}
    start: int | None = None
    end: int | None = None
    damage = ""
    try:
        for topic, time, _ in messages:
            topics.setdefault(topic)
            counts[topic.name] = counts.get(topic.name, 0) + 1
            start = time if start is None else min(start, time)
            end = time if end is None else max(end, time)
    except BagDamage as error:
        damage = str(error)
    return Contents(distinct(topics), counts, start, end, damage)


def joined(parts: Sequence[Contents], damages: Sequence[str] = ()) -> Contents:
    """Contents of a bag in several files; `damages` is what is wrong beside them."""
    counts: dict[str, int] = {}
    for part in parts:
        for name, count in part.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Contents(
        distinct(topic for part in parts for topic in part.topics),
        counts,
        min((part.start for part in parts if part.start is not None), default=None),
        max((part.end for part in parts if part.end is not None), default=None),
        "; ".join([*damages, *(part.damage for part in parts if part.damage)]),
    )
