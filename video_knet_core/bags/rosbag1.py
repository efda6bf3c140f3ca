"""Bags of ROS 1, format 2.0: http://wiki.ros.org/Bags/Format/2.0, by the records of `rosbags`.

Its reader opens no bag without a whole index and holds the index of all messages in memory, which
it then reads by time. Ours reads the records in the order of the file, up to damage.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from rosbags.rosbag1.reader import Header, ReaderError, RecordType, read_bytes, read_uint32

from .bag import (
    ROS1,
    BagDamage,
    Contents,
    ExactReader,
    Message,
    Topic,
    distinct,
    in_range,
    survey,
)
from .compression import decompress
from .definitions import type_name

MAGIC = b"#ROSBAG V2.0\n"
LARGEST_CUT = 1 << 30
"""Bytes behind damage up to which they may be a chunk that is cut off."""
READ_ERRORS = (ReaderError, ValueError, struct.error)
"""What rosbags raises for damaged records, and EndOfData, which is a ValueError."""


class _Record(NamedTuple):
    header: Header
    data: bytes

    @property
    def code(self) -> int:
        return self.header.get_uint8("op")


class _Chunk(NamedTuple):
    """What the index says of a chunk."""

    place: int
    start: int
    """Receive time of its earliest message [ns]."""
    end: int
    counts: dict[int, int]
    """Messages by connection."""


class Rosbag1File:
    """One .bag file, which begins with `MAGIC`; errors call it `name`."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._topics: dict[int, Topic] = {}

    def contents(self) -> Contents:
        """From the index at the end of the file if there is one, else from all messages."""
        with self._path.open("rb") as file:
            chunks = self._index(ExactReader(file))
        if chunks is None:
            return survey(self._messages(None, None, None))
        counts = dict.fromkeys((topic.name for topic in self._topics.values()), 0)
        for chunk in chunks:
            for connection, count in chunk.counts.items():
                counts[self._topics[connection].name] += count
        return Contents(
            distinct(self._topics.values()),
            counts,
            min((chunk.start for chunk in chunks if chunk.counts), default=None),
            max((chunk.end for chunk in chunks if chunk.counts), default=None),
        )

    def messages(
        self, names: Collection[str], since: int | None = None, until: int | None = None
    ) -> Iterator[Message]:
        """See `StorageFile.messages`."""
        return self._messages(names, since, until)

    def _messages(
        self, names: Collection[str] | None, since: int | None, until: int | None
    ) -> Iterator[Message]:
        with self._path.open("rb") as stream:
            file = ExactReader(stream)
            skipped = self._chunks_outside(file, since, until)
            for at, record in self._records(file, skipped):
                try:
                    message = self._take(record)
                except READ_ERRORS as error:
                    raise self._damage(at, error) from None
                if (
                    message is not None
                    and in_range(message.time, since, until)
                    and (names is None or message.topic.name in names)
                ):
                    yield message

    def _take(self, record: _Record) -> Message | None:
        """The message of a record, if it is one; what is said of a connection is remembered."""
        if record.code == RecordType.CONNECTION:
            number, topic = _connection(record)
            self._topics[number] = topic
        if record.code != RecordType.MSGDATA:
            return None
        number = record.header.get_uint32("conn")
        if number not in self._topics:
            raise ReaderError(f"its connection {number} is defined nowhere before it")
        return Message(self._topics[number], record.header.get_time("time"), record.data)

    def _damage(self, at: int, error: Exception) -> BagDamage:
        return BagDamage(f"{self._name}: the record at byte {at} is damaged: {error}")

    # --- records

    def _records(
        self, file: ExactReader, skipped: Collection[int]
    ) -> Iterator[tuple[int, _Record]]:
        """Place and content of each record before the index, those of chunks one by one.

        Args:
            file: the file.
            skipped: places of the chunks that are passed over.
        """
        file.seek(len(MAGIC))
        end = file.size + 1  # of a bag that was not closed, which has no index
        while (at := file.tell()) < end:
            if at == file.size:
                raise BagDamage(f"{self._name}: the file ends at byte {at} without its index")
            try:
                header = Header.read(_binary(file))
                if header.get_uint8("op") == RecordType.BAGHEADER:
                    end = header.get_uint64("index_pos") or end
                if at in skipped:
                    file.seek(file.tell() + read_uint32(_binary(file)) + 4)
                    continue
                record = _Record(header, _sized(file))
            except READ_ERRORS as error:
                yield from self._cut_chunk(file, at)
                raise self._damage(at, error) from None
            if record.code == RecordType.CHUNK:
                yield from self._chunk(record, at)
            else:
                yield at, record

    def _chunk(self, record: _Record, at: int, cut: bool = False) -> Iterator[tuple[int, _Record]]:
        """The records in a chunk at byte `at`; of one that is cut off, those that are complete."""
        try:
            size = record.header.get_uint32("size")
            data = decompress(record.header.get_string("compression"), record.data, size, cut)
        except READ_ERRORS as error:  # CompressionError is a ValueError
            raise self._damage(at, error) from None
        file = ExactReader(BytesIO(data))
        while file.tell() < file.size:
            try:
                inner = _read_record(file)
            except READ_ERRORS as error:
                raise self._damage(at, error) from None
            yield at, inner

    def _cut_chunk(self, file: ExactReader, at: int) -> Iterator[tuple[int, _Record]]:
        """The complete records of a chunk at byte `at` whose end is missing, if it is one."""
        with suppress(BagDamage, *READ_ERRORS):  # up to there; the caller reports the damage
            file.seek(at)
            header = Header.read(_binary(file))
            read_uint32(_binary(file))
            rest = file.size - file.tell()
            if header.get_uint8("op") == RecordType.CHUNK and rest < LARGEST_CUT:
                yield from self._chunk(_Record(header, file.read(rest)), at, cut=True)

    # --- the index

    def _index(self, file: ExactReader) -> list[_Chunk] | None:
        """The chunks by the index, whose connections are remembered; None if it is not whole."""
        topics: dict[int, Topic] = {}
        chunks: list[_Chunk] = []
        try:
            file.seek(len(MAGIC))
            place = Header.read(_binary(file), RecordType.BAGHEADER).get_uint64("index_pos")
            if not 0 < place < file.size:
                return None
            file.seek(place)
            while file.tell() < file.size:
                record = _read_record(file)
                if record.code == RecordType.CONNECTION:
                    number, topic = _connection(record)
                    topics[number] = topic
                elif record.code == RecordType.CHUNK_INFO:
                    chunks.append(_chunk_info(record))
        except READ_ERRORS:
            return None
        if not {number for chunk in chunks for number in chunk.counts} <= topics.keys():
            return None
        self._topics |= topics
        return chunks

    def _chunks_outside(
        self, file: ExactReader, since: int | None, until: int | None
    ) -> Collection[int]:
        """Places of the chunks that hold no message of a time range, as far as an index tells."""
        if since is None and until is None:
            return ()
        return {
            chunk.place
            for chunk in self._index(file) or ()
            if (since is not None and chunk.end < since)
            or (until is not None and chunk.start >= until)
        }


def _binary(file: ExactReader) -> BinaryIO:
    """For functions of rosbags, which need no more than `read`."""
    return cast(BinaryIO, file)


def _read_record(file: ExactReader) -> _Record:
    header = Header.read(_binary(file))
    header.get_uint8("op")  # every record has one
    return _Record(header, _sized(file))


def _sized(file: ExactReader) -> bytes:
    return read_bytes(_binary(file), read_uint32(_binary(file)))


def _connection(record: _Record) -> tuple[int, Topic]:
    """Number of a connection and its topic."""
    data = struct.pack("<I", len(record.data)) + record.data
    fields = Header.read(BytesIO(data))
    topic = Topic(
        record.header.get_string("topic"),
        type_name(fields.get_string("type")),
        ROS1,
        fields.get("message_definition", b"").decode(errors="replace"),
        "latched" if fields.get("latching") == b"1" else "",
    )
    return record.header.get_uint32("conn"), topic


def _chunk_info(record: _Record) -> _Chunk:
    return _Chunk(
        record.header.get_uint64("chunk_pos"),
        record.header.get_time("start_time"),
        record.header.get_time("end_time"),
        dict(struct.iter_unpack("<II", record.data)),
    )
