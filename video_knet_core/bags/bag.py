"""What the readers have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import yaml

CDR = "cdr"
ROS1 = "ros1"


class _PlainLoader(yaml.SafeLoader):
    """A merge key is an error: merges of merges have exponential costs."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave it as it is."""


def load_plain(text: str | bytes) -> Any:
    """The plain data of a YAML text; raises what PyYAML does."""
    return yaml.load(text, _PlainLoader)


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
    """Where and why some of the bag cannot be read; empty if all of it can, by its index."""

    @property
    def seconds(self) -> float:
        """From the earliest message to the latest."""
        return 0.0 if self.start is None or self.end is None else (self.end - self.start) * 1e-9


def survey(messages: Iterator[Message]) -> Contents:
    """Contents of a bag without a usable index: everything is read."""
    topics: dict[RecordedTopic, int] = {}
    start: int | None = None
    end: int | None = None
    damage = ""
    try:
        for topic, time, _ in messages:
            topics[topic] = topics.get(topic, 0) + 1
            start = time if start is None else min(start, time)
            end = time if end is None else max(end, time)
    except BagDamage as error:
        damage = str(error)
    return counted(topics.items(), start, end, damage)


def counted(
    topics: Iterable[tuple[RecordedTopic, int]],
    start: int | None = None,
    end: int | None = None,
    damage: str = "",
) -> Contents:
    """Contents with so many messages of each topic; each name with each type is there once.

    Its definition is the first that there is.
    """
    found: dict[tuple[str, str, str], RecordedTopic] = {}
    counts: dict[str, int] = {}
    for topic, count in topics:
        key = topic.name, topic.type, topic.encoding
        known = found.setdefault(key, topic)
        found[key] = replace(known, definition=known.definition or topic.definition)
        counts[topic.name] = counts.get(topic.name, 0) + count
    return Contents(tuple(found.values()), counts, start, end, damage)


def joined(parts: Sequence[Contents], damages: Sequence[str] = ()) -> Contents:
    """Contents of a bag in several files; `damages` is what is wrong beside them."""
    whole = counted((topic, 0) for part in parts for topic in part.topics)
    for part in parts:
        for name, count in part.counts.items():
            whole.counts[name] += count
    return replace(
        whole,
        start=min((part.start for part in parts if part.start is not None), default=None),
        end=max((part.end for part in parts if part.end is not None), default=None),
        damage="; ".join([*damages, *(part.damage for part in parts if part.damage)]),
    )
