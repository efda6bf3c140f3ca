"""MCAP files, as recorded by ROS 2: https://mcap.dev/spec, by the records of the `mcap` package."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO, Any, cast

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, DataEnd, Footer, McapRecord, Schema, Statistics
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader

from .bag import Message, RecordedTopic
from .chunked import ChunkedFile, EndOfData, ExactReader, FileIndex, PackedChunk
from .definitions import IDL, type_name

MAGIC = b"\x89MCAP0\r\n"
FOOTER_SIZE = 9 + 20


class McapFile(ChunkedFile):
    """One file, which begins with `MAGIC`."""

    errors = (McapError, ValueError, struct.error)
    _schemas: dict[int, Schema]

    def _outer_records(self, file: ExactReader, whole: bool) -> Iterator[McapRecord]:
        self._schemas = {}
        file.seek(0)
        records = _records(file, skip_magic=False, validate_crcs=whole)
        return itertools.takewhile(lambda r: not isinstance(r, (DataEnd, Footer)), records)

    def _inner_records(self, chunk: ExactReader) -> Iterator[McapRecord]:
        while chunk.tell() < chunk.size:
            try:
                yield from _records(chunk)
            except EndOfData as error:
                if error.expected > 1 or chunk.tell() < chunk.size:
                    raise  # else between two records: the package reads the next one

    def _parse(self, record: Any) -> PackedChunk | Message | None:
        if isinstance(record, Chunk):
            size, crc = record.uncompressed_size, record.uncompressed_crc
            return PackedChunk(record.compression, record.data, size, crc)
        if isinstance(record, McapMessage):
            if record.channel_id not in self._topics:
                raise ValueError(f"its channel {record.channel_id} is defined nowhere before it")
            return Message(self._topics[record.channel_id], record.log_time, record.data)
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel):
            self._topics[record.id] = _topic(record, self._schemas)
        return None

    def _skip(self, file: ExactReader) -> None:
        _, size = struct.unpack("<BQ", file.read(9))
        file.seek(file.tell() + size)

    def _cut_chunk(self, rest: BytesIO) -> Chunk | None:
        if rest.read(1) != bytes([Opcode.CHUNK]):
            return None
        rest.seek(9)
        return Chunk.read(ReadDataStream(rest))  # has fewer bytes than its header announces

    def _index(self, file: ExactReader) -> FileIndex | None:
        summary = _read_summary(file)
        schemas = {record.id: record for record in summary if isinstance(record, Schema)}
        channels = [record for record in summary if isinstance(record, Channel)]
        statistics = next((r for r in summary if isinstance(r, Statistics)), None)
        if statistics is None or not {c.schema_id for c in channels} <= {0, *schemas}:
            return None
        counts, total = statistics.channel_message_counts, statistics.message_count
        if sum(counts.values()) != total:
            return None
        return FileIndex(
            {channel.id: _topic(channel, schemas) for channel in channels},
            counts,
            statistics.message_start_time if total else None,
            statistics.message_end_time if total else None,
            [
                (r.chunk_start_offset, r.message_start_time, r.message_end_time)
                for r in summary
                if isinstance(r, ChunkIndex)
            ],
        )


def _records(file: ExactReader, skip_magic: bool = True, **options: bool) -> Iterator[McapRecord]:
    """Records from where the file is on; no more than `read` is used of it."""
    stream = cast(IO[bytes], file)
    return StreamReader(stream, skip_magic=skip_magic, emit_chunks=True, **options).records


def _read_summary(file: ExactReader) -> list[McapRecord]:
    """The records of the summary; empty if there is none, or its checksum is wrong.

    The package does not verify that checksum.
    """
    file.seek(max(file.size - FOOTER_SIZE - len(MAGIC), 0))
    footer = next(_records(file))
    if not isinstance(footer, Footer) or not 0 < footer.summary_start < file.size:
        return []
    file.seek(footer.summary_start)
    data = file.read(file.size - footer.summary_start - 4 - len(MAGIC))
    if footer.summary_crc and zlib.crc32(data) != footer.summary_crc:
        return []
    file.seek(footer.summary_start)
    return list(_records(file))


def _topic(channel: Channel, schemas: dict[int, Schema]) -> RecordedTopic:
    """A definition in IDL gets a first line for that, as rosbag2 writes it."""
    qos = channel.metadata.get("offered_qos_profiles", "")
    schema = schemas.get(channel.schema_id)
    if schema is None:
        return RecordedTopic(channel.topic, "", channel.message_encoding, "", qos)
    kind, text = type_name(schema.name), schema.data.decode(errors="replace")
    if schema.encoding == "ros2idl" and not text.startswith(IDL.rstrip()[:80]):
        text = f"{IDL}{kind}\n{text}"
    return RecordedTopic(channel.topic, kind, channel.message_encoding, text, qos)
