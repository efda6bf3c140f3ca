"""MCAP files, as recorded by ROS 2: https://mcap.dev/spec, read with the `mcap` package.

Ours is what its readers do not do. A file that is cut off or damaged is read up to the place, which
is named, and so is the first part of a chunk that is cut off. A chunk of unknown compression is an
error; theirs take it for uncompressed. The checksum of the summary is checked. Memory stays flat:
their `SeekingReader` holds the index of all chunks, and in the order of the file all messages.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, cast

from mcap.data_stream import ReadDataStream
from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    McapRecord,
    Schema,
    Statistics,
)
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader

from .bag import (
    BagDamage,
    Contents,
    EndOfData,
    ExactReader,
    Message,
    Topic,
    distinct,
    in_range,
    survey,
)
from .compression import CompressionError, decompress
from .definitions import IDL, type_name

MAGIC = b"\x89MCAP0\r\n"
FOOTER_SIZE = 9 + 20
LARGEST_CUT = 1 << 30
"""Bytes behind damage up to which they may be a chunk that is cut off."""
READ_ERRORS = (McapError, ValueError, struct.error)
"""What the package raises for damaged records, EndOfData and checksums among the ValueErrors."""


@dataclass
class _Summary:
    """What the end of a file says of the rest."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    statistics: Statistics | None = None
    chunks: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Of each chunk: place, bytes with its index, earliest and latest receive time."""

    @property
    def is_complete(self) -> bool:
        """Whether it has the channel of every message; all of its parts are optional."""
        if self.statistics is None:
            return False
        counts = self.statistics.channel_message_counts
        return (
            sum(counts.values()) == self.statistics.message_count
            and counts.keys() <= self.channels.keys()
            and {channel.schema_id for channel in self.channels.values()} <= {0, *self.schemas}
        )


class McapFile:
    """One file, which begins with `MAGIC`; errors call it `name`."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._schemas: dict[int, Schema] = {}
        self._topics: dict[int, Topic] = {}

    def contents(self) -> Contents:
        """From the summary at the end of the file if it is complete, else from all messages."""
        with self._path.open("rb") as file:
            summary = self._summary(ExactReader(file))
        if summary is None or summary.statistics is None:
            return survey(self._messages(None, None, None))
        statistics, counts = summary.statistics, dict.fromkeys(self._names(), 0)
        for channel, count in statistics.channel_message_counts.items():
            counts[self._topics[channel].name] += count
        start, end = statistics.message_start_time, statistics.message_end_time
        filled = statistics.message_count > 0
        return Contents(
            distinct(self._topics.values()),
            counts,
            start if filled else None,
            end if filled else None,
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
                self._learn(record)
                if isinstance(record, McapMessage):
                    message = self._message(record, at)
                    if in_range(message.time, since, until) and (
                        names is None or message.topic.name in names
                    ):
                        yield message

    def _message(self, record: McapMessage, at: int) -> Message:
        if record.channel_id not in self._topics:
            raise BagDamage(
                f"{self._name}: the message at byte {at} has channel {record.channel_id}, which "
                "is defined nowhere before it"
            )
        return Message(self._topics[record.channel_id], record.log_time, record.data)

    def _learn(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel):
            schema = self._schemas.get(record.schema_id)
            self._topics[record.id] = Topic(
                record.topic,
                type_name(schema.name) if schema else "",
                record.message_encoding,
                _definition(schema) if schema else "",
                record.metadata.get("offered_qos_profiles", ""),
            )

    def _names(self) -> list[str]:
        return [topic.name for topic in self._topics.values()]

    # --- records

    def _records(
        self, file: ExactReader, skipped: dict[int, int]
    ) -> Iterator[tuple[int, McapRecord]]:
        """Place and content of each record up to the end of the data, those of chunks one by one.

        Args:
            file: the file.
            skipped: place -> bytes of the chunks that are passed over.
        """
        file.seek(0)
        records = _reader(file, start=True, validate_crcs=not skipped)
        while (at := file.tell()) < file.size:
            try:
                if at in skipped:
                    file.seek(at + skipped[at])
                    continue
                record = next(records)
            except READ_ERRORS as error:
                yield from self._cut_chunk(file, at)
                raise BagDamage(
                    f"{self._name}: the record at byte {at} is damaged: {_reason(error)}"
                ) from None
            if isinstance(record, Chunk):
                yield from ((at, inner) for inner in self._chunk(record, at))
            elif isinstance(record, (DataEnd, Footer)):
                return
            else:
                yield at, record
        raise BagDamage(f"{self._name}: the file ends at byte {at} without an end mark")

    def _chunk(self, chunk: Chunk, at: int, cut: bool = False) -> Iterator[McapRecord]:
        """The records of a chunk at byte `at`; of one that is cut off, those that are complete."""
        where = f"{self._name}: the chunk at byte {at} is damaged"
        try:
            data = decompress(chunk.compression, chunk.data, chunk.uncompressed_size, cut)
        except CompressionError as error:
            raise BagDamage(f"{where}: {error}") from None
        expected = chunk.uncompressed_crc
        if expected and not cut and expected != (got := zlib.crc32(data)):
            raise BagDamage(f"{where}: expected the checksum {expected}, got {got}")
        file = ExactReader(BytesIO(data))
        records = _reader(file)
        while (place := file.tell()) < file.size:
            try:
                record = next(records)
            except READ_ERRORS as error:
                if isinstance(error, EndOfData) and error.expected == 1:
                    return  # after a record that the package does not know, which it passes over
                raise BagDamage(f"{where}: its record at byte {place}: {_reason(error)}") from None
            yield record

    def _cut_chunk(self, file: ExactReader, at: int) -> Iterator[tuple[int, McapRecord]]:
        """The complete records of a chunk at byte `at` whose end is missing, if it is one."""
        file.seek(at)
        rest = BytesIO(file.read(min(file.size - at, LARGEST_CUT)))
        if len(rest.getvalue()) < LARGEST_CUT and rest.read(1) == bytes([Opcode.CHUNK]):
            rest.seek(9)
            # Up to there, or none for a size beyond all memory; the caller reports the damage.
            with suppress(BagDamage, OverflowError, *READ_ERRORS):
                chunk = Chunk.read(ReadDataStream(rest))  # of fewer bytes than it says
                for record in self._chunk(chunk, at, cut=True):
                    yield at, record

    # --- the summary

    def _summary(self, file: ExactReader) -> _Summary | None:
        """The summary, whose channels are learned; None if it is missing, damaged or incomplete."""
        try:
            summary = _read_summary(file)
        except READ_ERRORS:
            return None
        if summary is None or not summary.is_complete:
            return None
        for record in (*summary.schemas.values(), *summary.channels.values()):
            self._learn(record)
        return summary

    def _chunks_outside(
        self, file: ExactReader, since: int | None, until: int | None
    ) -> dict[int, int]:
        """Place -> bytes of the chunks that hold no message of a time range.

        None of them without a complete summary: channels may be defined in them.
        """
        if since is None and until is None or (summary := self._summary(file)) is None:
            return {}
        return {
            place: size
            for place, size, start, end in summary.chunks
            if (since is not None and end < since) or (until is not None and start >= until)
        }


def _reader(
    file: ExactReader, start: bool = False, validate_crcs: bool = False
) -> Iterator[McapRecord]:
    """Records from where the file is on; with `start`, that is its beginning.

    Raises one of `READ_ERRORS` where there are no more.
    """
    stream = cast(IO[bytes], file)  # it needs no more than `read`
    yield from StreamReader(
        stream, skip_magic=not start, emit_chunks=True, validate_crcs=validate_crcs
    ).records
    raise EndOfFile


def _read_summary(file: ExactReader) -> _Summary | None:
    file.seek(max(file.size - FOOTER_SIZE - len(MAGIC), 0))
    footer = next(_reader(file))
    if not isinstance(footer, Footer) or not 0 < footer.summary_start < file.size:
        return None
    if file.read(len(MAGIC)) != MAGIC:
        return None
    file.seek(footer.summary_start)
    data = file.read(file.size - footer.summary_start - 4 - len(MAGIC))
    if footer.summary_crc and zlib.crc32(data) != footer.summary_crc:
        return None
    file.seek(footer.summary_start)
    summary = _Summary()
    for record in _reader(file):
        if isinstance(record, Footer):
            break
        if isinstance(record, Schema):
            summary.schemas[record.id] = record
        elif isinstance(record, Channel):
            summary.channels[record.id] = record
        elif isinstance(record, Statistics):
            summary.statistics = record
        elif isinstance(record, ChunkIndex):
            times = record.message_start_time, record.message_end_time
            size = record.chunk_length + record.message_index_length  # which comes behind it
            summary.chunks.append((record.chunk_start_offset, size, *times))
    return summary


def _reason(error: Exception) -> str:
    """Its text; some errors of the package have none but their name."""
    return str(error) or type(error).__name__


def _definition(schema: Schema) -> str:
    """Text of a schema; one of IDL says so in its first line, as rosbag2 writes it."""
    text = schema.data.decode(errors="replace")
    if schema.encoding == "ros2idl" and not text.startswith(IDL.rstrip()[:80]):
        return f"{IDL}{type_name(schema.name)}\n{text}"
    return text
