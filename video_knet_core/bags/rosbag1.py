"""Bags of ROS 1, format 2.0: http://wiki.ros.org/Bags/Format/2.0."""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lz4.frame import decompress as lz4_decompress

from .bag import ROS1, BagDamage, BagError, Contents, Message, Topic, survey

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, CHUNK, CHUNK_INFO, CONNECTION = 0x02, 0x03, 0x05, 0x06, 0x07
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "bz2": bz2.decompress,
    "lz4": lz4_decompress,
}


@dataclass(frozen=True)
class _Record:
    fields: dict[str, bytes]
    data: memoryview

    @property
    def code(self) -> int:
        return self.fields["op"][0]

    def number(self, name: str) -> int:
        return int.from_bytes(self.fields[name], "little")

    def time(self, name: str) -> int:
        seconds, nanoseconds = struct.unpack("<II", self.fields[name])
        return seconds * 10**9 + nanoseconds


class Rosbag1File:
    """One .bag file. Raises BagError if it is not of this format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._topics: dict[int, Topic] = {}
        with path.open("rb") as file:
            found = file.read(len(MAGIC))
        if found != MAGIC:
            raise BagError(f"{path} is not a bag of ROS 1, format 2.0: it does not begin like one")

    def contents(self) -> Contents:
        """From the index at the end of the file if there is one, else from all messages."""
        try:
            with self.path.open("rb") as file:
                found = self._index(file)
        except (ValueError, LookupError, struct.error):  # BagDamage is a ValueError
            found = None
        return found or survey(self._messages(None, 0))

    def messages(self, names: Collection[str], since: int = 0) -> Iterator[Message]:
        """See `Bag.messages`."""
        return self._messages(names, since)

    def _messages(self, names: Collection[str] | None, since: int) -> Iterator[Message]:
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            end = 0
            for at, record in self._records(file):
                try:
                    if record.code == BAG_HEADER:
                        end = record.number("index_pos")
                    for message in self._read(record):
                        if message.time >= since and (names is None or message.topic.name in names):
                            yield message
                except BagDamage:
                    raise
                except Exception as error:  # decompressors raise errors of their own
                    raise BagDamage(
                        f"{self.path}: the record at byte {at} is damaged: {error!r}"
                    ) from None
                if end and file.tell() >= end:
                    return
            if not end or file.tell() < end:
                raise BagDamage(
                    f"{self.path}: the file ends at byte {file.tell()} without its index"
                )

    def _read(self, record: _Record) -> Iterator[Message]:
        """The messages of a record, which may be a chunk of records."""
        if record.code == CHUNK:
            data = DECOMPRESS[record.fields["compression"].decode()](bytes(record.data))
            if len(data) != record.number("size"):
                raise ValueError(f"it has {len(data)} bytes, wanted {record.number('size')}")
            for inner in _split(memoryview(data)):
                yield from self._read(inner)
        elif record.code == CONNECTION:
            self._learn(record)
        elif record.code == MESSAGE:
            yield Message(self._topics[record.number("conn")], record.time("time"), record.data)

    def _learn(self, record: _Record) -> None:
        fields = _fields(record.data)
        package, _, name = fields["type"].decode().partition("/")
        latched = fields.get("latching") == b"1"
        self._topics[record.number("conn")] = Topic(
            record.fields["topic"].decode(),
            f"{package}/msg/{name}",
            ROS1,
            fields["message_definition"].decode(errors="replace"),
            "latched" if latched else "",
        )

    def _index(self, file: BinaryIO) -> Contents | None:
        file.seek(len(MAGIC))
        _, header = next(self._records(file))
        position = header.number("index_pos")
        if not 0 < position < self.path.stat().st_size:
            return None
        file.seek(position)
        counts: dict[str, int] = {}
        times = []
        for _, record in self._records(file):
            if record.code == CONNECTION:
                self._learn(record)
            elif record.code == CHUNK_INFO:
                times += [record.time("start_time"), record.time("end_time")]
                for connection, count in struct.iter_unpack("<II", record.data):
                    name = self._topics[connection].name
                    counts[name] = counts.get(name, 0) + count
        topics = {topic.name: topic for topic in self._topics.values()}
        start, end = min(times, default=0), max(times, default=0)
        return Contents(tuple(topics.values()), counts, start, end)

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, _Record]]:
        """Place and content of each record from here on."""
        size_of_file = self.path.stat().st_size
        while True:
            at = file.tell()
            if at == size_of_file:
                return
            try:
                fields = _fields(memoryview(_sized(file, size_of_file)))
                record = _Record(fields, memoryview(_sized(file, size_of_file)))
                record.code  # noqa: B018 - every record has one
            except (ValueError, struct.error, LookupError) as error:
                raise BagDamage(
                    f"{self.path}: the record at byte {at} is damaged: {error!r}"
                ) from None
            yield at, record


def _sized(file: BinaryIO, end: int) -> bytes:
    """The next bytes, whose number goes before them."""
    (size,) = struct.unpack("<I", file.read(4))
    if file.tell() + size > end:
        raise ValueError(f"its {size} bytes end behind the end of the file, byte {end}")
    return file.read(size)


def _split(data: memoryview) -> Iterator[_Record]:
    """The records in a chunk."""
    place = 0
    while place < len(data):
        parts = []
        for _ in range(2):
            (size,) = struct.unpack_from("<I", data, place)
            if place + 4 + size > len(data):
                raise ValueError(f"a part of {size} bytes ends behind the end of its chunk")
            parts.append(data[place + 4 : place + 4 + size])
            place += 4 + size
        yield _Record(_fields(parts[0]), parts[1])


def _fields(data: memoryview) -> dict[str, bytes]:
    fields, place = {}, 0
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place)
        if place + 4 + size > len(data):
            raise ValueError(f"a field of {size} bytes ends behind the end of its header")
        name, _, value = bytes(data[place + 4 : place + 4 + size]).partition(b"=")
        fields[name.decode()] = value
        place += 4 + size
    return fields
