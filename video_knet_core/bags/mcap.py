"""MCAP files, as recorded by ROS 2: https://mcap.dev/spec."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lz4.frame import decompress as lz4_decompress

from .bag import BagDamage, BagError, Contents, Message, Topic, survey
from .zstd import zstd_decompress

MAGIC = b"\x89MCAP0\r\n"
FOOTER_SIZE = 9 + 20
SCHEMA, CHANNEL, MESSAGE, CHUNK, STATISTICS, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0B, 0x0F
DECOMPRESS: dict[str, Callable[[memoryview], bytes]] = {
    "": bytes,
    "lz4": lz4_decompress,
    "zstd": zstd_decompress,
}


class McapFile:
    """One file. Raises BagError if it is not of this format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schemas: dict[int, tuple[str, str]] = {}
        self._channels: dict[int, Topic] = {}
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise BagError(f"{path} is not an MCAP file: it does not begin like one")

    def contents(self) -> Contents:
        """From the summary at the end of the file if there is one, else from all messages."""
        try:
            with self.path.open("rb") as file:
                statistics = self._summary(file)
        except (ValueError, LookupError, struct.error):  # BagDamage is a ValueError
            statistics = None  # the end is missing or damaged
        if statistics is None:
            return survey(self._messages(None, 0))
        start, end, count_of = statistics
        topics = {channel: topic for channel, topic in self._channels.items()}
        counts: dict[str, int] = {}
        for channel, topic in topics.items():
            counts[topic.name] = counts.get(topic.name, 0) + count_of.get(channel, 0)
        return Contents(tuple({t.name: t for t in topics.values()}.values()), counts, start, end)

    def messages(self, names: Collection[str], since: int = 0) -> Iterator[Message]:
        """See `Bag.messages`."""
        return self._messages(names, since)

    def _messages(self, names: Collection[str] | None, since: int) -> Iterator[Message]:
        with self.path.open("rb") as file:
            file.seek(len(MAGIC))
            for at, code, content in self._records(file):
                if code == DATA_END:
                    return
                if code != CHUNK:
                    chunk = [(code, content)]
                elif _chunk_end(content) < since and self._channels:
                    continue
                else:
                    chunk = self._chunk(content, at)
                for message in self._read(chunk, at):
                    if message.time >= since and (names is None or message.topic.name in names):
                        yield message
            raise BagDamage(f"{self.path}: the file ends at byte {file.tell()} without an end mark")

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, int, memoryview]]:
        """Place, code and content of each record from here on."""
        size_of_file = self.path.stat().st_size
        while head := file.read(9):
            at = file.tell() - len(head)
            if len(head) < 9:
                raise BagDamage(f"{self.path}: the record at byte {at} is cut off")
            code, size = struct.unpack("<BQ", head)
            if at + 9 + size > size_of_file:
                raise BagDamage(
                    f"{self.path}: the record at byte {at} of {size} bytes ends behind the end "
                    f"of the file, byte {size_of_file}"
                )
            yield at, code, memoryview(file.read(size))

    def _chunk(self, content: memoryview, at: int) -> list[tuple[int, memoryview]]:
        """Code and content of each record in a chunk, which is at byte `at` of the file."""
        try:
            size, check = struct.unpack_from("<QI", content, 16)
            kind, place = _text(content, 28)
            if kind not in DECOMPRESS:
                raise ValueError(f"its compression is {kind!r}, wanted one of {[*DECOMPRESS]}")
            data = DECOMPRESS[kind](content[place + 8 :])
            if len(data) != size:
                raise ValueError(f"it has {len(data)} bytes, wanted {size}")
            if check and zlib.crc32(data) != check:
                raise ValueError("its checksum is wrong")
            return list(_split(memoryview(data)))
        except Exception as error:  # decompressors raise errors of their own
            raise BagDamage(f"{self.path}: the chunk at byte {at} is damaged: {error}") from None

    def _read(self, records: list[tuple[int, memoryview]], at: int) -> Iterator[Message]:
        """The messages among records; schemas and channels are remembered."""
        for code, content in records:
            try:
                if code == MESSAGE:
                    channel, _, time = struct.unpack_from("<HIQ", content)
                    message = Message(self._channels[channel], time, content[22:])
                else:
                    self._learn(code, content)
                    continue
            except (struct.error, UnicodeDecodeError, KeyError) as error:
                raise BagDamage(
                    f"{self.path}: a record at byte {at} is damaged: {error!r}"
                ) from None
            yield message

    def _learn(self, code: int, content: memoryview) -> None:
        if code == SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            name, place = _text(content, 2)
            _, place = _text(content, place)
            definition, _ = _text(content, place)
            self._schemas[number] = (_ros2_name(name), definition)
        elif code == CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            name, place = _text(content, 4)
            encoding, place = _text(content, place)
            qos = _map(content, place).get("offered_qos_profiles", "")
            kind, definition = self._schemas.get(schema, ("", ""))
            self._channels[number] = Topic(name, kind, encoding, definition, qos)

    def _summary(self, file: BinaryIO) -> tuple[int, int, dict[int, int]] | None:
        """First and last receive time and messages by channel; None if there is no such summary."""
        size = self.path.stat().st_size
        file.seek(max(size - FOOTER_SIZE - len(MAGIC), 0))
        footer = file.read()
        if not footer.endswith(MAGIC) or footer[0] != 0x02:
            return None
        start, check = struct.unpack_from("<Q8xI", footer, 9)
        if not 0 < start < size:
            return None
        file.seek(start)
        if check and zlib.crc32(file.read(size - start - 4 - len(MAGIC))) != check:
            return None
        file.seek(start)
        found: Any = None
        for _, code, content in self._records(file):
            if code == 0x02:
                break
            self._learn(code, content)
            if code == STATISTICS:
                count, first, last = struct.unpack_from("<Q18xQQ", content)
                counts = struct.iter_unpack("<HQ", content[46:])
                found = (first if count else 0, last, dict(counts))
        return found


def _split(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    place = 0
    while place < len(data):
        code, size = struct.unpack_from("<BQ", data, place)
        if place + 9 + size > len(data):
            raise ValueError(f"a record of {size} bytes ends behind its end")
        yield code, data[place + 9 : place + 9 + size]
        place += 9 + size


def _chunk_end(content: memoryview) -> int:
    """Receive time of the last message of a chunk."""
    return struct.unpack_from("<Q", content, 8)[0] if len(content) >= 16 else 0


def _text(data: memoryview, place: int) -> tuple[str, int]:
    """A string, and where the next field begins."""
    (size,) = struct.unpack_from("<I", data, place)
    return bytes(data[place + 4 : place + 4 + size]).decode(), place + 4 + size


def _map(data: memoryview, place: int) -> dict[str, str]:
    (size,) = struct.unpack_from("<I", data, place)
    place, end = place + 4, place + 4 + size
    pairs = {}
    while place < end:
        key, place = _text(data, place)
        pairs[key], place = _text(data, place)
    return pairs


def _ros2_name(name: str) -> str:
    """sensor_msgs/msg/Image, also of ROS 1's sensor_msgs/Image."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
