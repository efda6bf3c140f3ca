"""Bags of ROS 1, format 2.0: http://wiki.ros.org/Bags/Format/2.0, by the records of `rosbags`."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple, cast

from rosbags.rosbag1.reader import Header, ReaderError, RecordType, read_bytes, read_uint32

from .bag import ROS1, Message, RecordedTopic
from .chunked import ChunkedFile, ExactReader, FileIndex, PackedChunk
from .definitions import type_name

MAGIC = b"#ROSBAG V2.0\n"


class _Record(NamedTuple):
    header: Header
    data: bytes

    @property
    def code(self) -> int:
        return self.header.get_uint8("op")


class Rosbag1File(ChunkedFile):
    """One .bag file, which begins with `MAGIC`."""

    errors = (ReaderError, ValueError, struct.error)

    def _outer_records(self, file: ExactReader, whole: bool) -> Iterator[_Record]:
        file.seek(len(MAGIC))
        end = math.inf  # of a bag that was not closed, which has no index
        while file.tell() < end:
            record = _read_record(file)
            if record.code == RecordType.BAGHEADER:
                end = record.header.get_uint64("index_pos") or end
            yield record

    def _inner_records(self, chunk: ExactReader) -> Iterator[_Record]:
        while chunk.tell() < chunk.size:
            yield _read_record(chunk)

    def _parse(self, record: Any) -> PackedChunk | Message | None:
        header, data = record.header, record.data
        if record.code == RecordType.CHUNK:
            return PackedChunk(header.get_string("compression"), data, header.get_uint32("size"))
        if record.code == RecordType.CONNECTION:
            number, topic = _connection(record)
            self._topics[number] = topic
        if record.code != RecordType.MSGDATA:
            return None
        number = header.get_uint32("conn")
        if number not in self._topics:
            raise ReaderError(f"its connection {number} is defined nowhere before it")
        return Message(self._topics[number], header.get_time("time"), data)

    def _skip(self, file: ExactReader) -> None:
        for _ in range(2):  # header and data
            file.seek(file.tell() + read_uint32(_binary(file)) + 4)

    def _cut_chunk(self, rest: BytesIO) -> _Record:
        header = Header.read(rest)
        read_uint32(rest)
        return _Record(header, rest.read())

    def _index(self, file: ExactReader) -> FileIndex | None:
        file.seek(len(MAGIC))
        place = Header.read(_binary(file), RecordType.BAGHEADER).get_uint64("index_pos")
        if not 0 < place < file.size:
            return None
        file.seek(place)
        records = list(self._inner_records(file))
        infos = [record for record in records if record.code == RecordType.CHUNK_INFO]
        chunks = [
            (h.get_uint64("chunk_pos"), h.get_time("start_time"), h.get_time("end_time"))
            for h, _ in infos
        ]
        counts: Counter[int] = Counter()
        for _, data in infos:
            counts.update(dict(struct.iter_unpack("<II", data)))
        filled = [chunk for chunk, (_, data) in zip(chunks, infos, strict=True) if data]
        return FileIndex(
            dict(_connection(r) for r in records if r.code == RecordType.CONNECTION),
            counts,
            min((start for _, start, _ in filled), default=None),
            max((end for *_, end in filled), default=None),
            chunks,
        )


def _binary(file: ExactReader) -> BinaryIO:
    """For functions of rosbags, which need no more than `read`."""
    return cast(BinaryIO, file)


def _read_record(file: ExactReader) -> _Record:
    header = Header.read(_binary(file))
    header.get_uint8("op")  # every record has one
    return _Record(header, read_bytes(_binary(file), read_uint32(_binary(file))))


def _connection(record: _Record) -> tuple[int, RecordedTopic]:
    """Number of a connection and its topic."""
    fields = Header.read(BytesIO(struct.pack("<I", len(record.data)) + record.data))
    topic = RecordedTopic(
        record.header.get_string("topic"),
        type_name(fields.get_string("type")),
        ROS1,
        fields.get("message_definition", b"").decode(errors="replace"),
        "latched" if fields.get("latching") == b"1" else "",
    )
    return record.header.get_uint32("conn"), topic
