"""What MCAP and ROS 1 files have in common: records, some of them compressed chunks, and an index.

The record formats are parsed by `mcap` and `rosbags`. Ours is the way through the file, which their
readers do not have: from front to back with one chunk in memory, up to damage, which is named; the
complete records of a chunk whose end is missing are read too. Their readers hold the index of all
messages in memory, give messages in the order of their times, and open no file without its end.
"""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

from .bag import BagDamage, Contents, Message, RecordedTopic, counted, survey
from .compression import decompress

LARGEST_CUT = 1 << 30
"""Bytes behind damage up to which they may be a chunk that is cut off."""


class EndOfData(ValueError):
    """There are fewer bytes than the `expected` ones."""

    def __init__(self, expected: int, at: int, size: int) -> None:
        super().__init__(f"expected {expected} bytes at byte {at}, got {size - at} up to the end")
        self.expected = expected


class ExactReader:
    """A file whose `read` gives exactly the requested bytes, or raises `EndOfData`.

    Libraries request as many bytes as a damaged file declares: a plain file would give them fewer,
    or all the rest for a negative number, or memory would be allocated for bytes that do not exist.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._at = file.seek(0)

    def tell(self) -> int:
        """Position of the next byte."""
        return self._at

    def seek(self, at: int) -> None:
        """Go to a byte of the file, or to its end."""
        if not 0 <= at <= self.size:
            raise EndOfData(at - self._at, self._at, self.size)
        self._at = self._file.seek(at)

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if not 0 <= size <= self.size - self._at:
            raise EndOfData(size, self._at, self.size)
        self._at += size
        return self._file.read(size)


class PackedChunk(NamedTuple):
    """A chunk of records as it is in the file."""

    compression: str
    data: bytes
    size: int
    """Bytes of the records."""
    crc: int = 0
    """CRC-32 of the records; 0 if the recorder wrote none."""


class FileIndex(NamedTuple):
    """The index at the end of a file."""

    topics: dict[int, RecordedTopic]
    """By number of the channel or connection."""
    counts: dict[int, int]
    """Messages by the same number."""
    start: int | None
    """Receive time of the earliest message [ns]."""
    end: int | None
    chunks: list[tuple[int, int, int]]
    """Place of each, and receive times of its earliest and latest message [ns]."""


class ChunkedFile(ABC):
    """One file; errors call it `name`. Subclasses parse its records."""

    errors: ClassVar[tuple[type[Exception], ...]]
    """What the library raises for damaged records; EndOfData is among the ValueErrors."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._topics: dict[int, RecordedTopic] = {}
        """Those met so far, by number of the channel or connection."""

    def contents(self) -> Contents:
        """From the index at the end of the file if it is complete, else from all messages."""
        with self._path.open("rb") as file:
            index = self._complete_index(ExactReader(file))
        if index is None:
            return survey(self._messages())
        counts = [(topic, index.counts.get(number, 0)) for number, topic in index.topics.items()]
        return counted(counts, index.start, index.end)

    def messages(
        self, names: Collection[str], since: int | None = None, until: int | None = None
    ) -> Iterator[Message]:
        """See `Bag.messages`."""
        for message in self._messages(since, until):
            if (
                message.topic.name in names
                and (since is None or message.time >= since)
                and (until is None or message.time < until)
            ):
                yield message

    # --- what a format has of its own

    @abstractmethod
    def _outer_records(self, file: ExactReader, whole: bool) -> Iterator[Any]:
        """The records up to the end of the data, chunks among them; `whole` if none is skipped."""

    @abstractmethod
    def _inner_records(self, chunk: ExactReader) -> Iterator[Any]:
        """The records of a decompressed chunk."""

    @abstractmethod
    def _parse(self, record: Any) -> PackedChunk | Message | None:
        """The chunk or message that a record is; a topic is remembered.

        Raises one of `errors` for a message whose topic is unknown.
        """

    @abstractmethod
    def _skip(self, file: ExactReader) -> None:
        """Pass over a record."""

    @abstractmethod
    def _cut_chunk(self, rest: BytesIO) -> Any:
        """The record of a chunk of which only `rest` is there; None if that is no chunk."""

    @abstractmethod
    def _index(self, file: ExactReader) -> FileIndex | None:
        """The index; None, or one of `errors`, if it is missing, damaged or not complete."""

    # --- records

    def _messages(self, since: int | None = None, until: int | None = None) -> Iterator[Message]:
        """All messages, but for chunks without any in a time range."""
        with self._path.open("rb") as stream:
            file = ExactReader(stream)
            skipped = self._chunks_outside(file, since, until)
            records = self._outer_records(file, whole=not skipped)
            while True:
                at = file.tell()
                try:
                    if at in skipped:
                        self._skip(file)
                        continue
                    found = self._parse(next(records))
                except StopIteration:
                    return
                except self.errors as error:
                    yield from self._messages_of_cut_chunk(file, at)
                    raise self._damage("record", at, error) from None
                if isinstance(found, PackedChunk):
                    yield from self._messages_of(found, at)
                elif found is not None:
                    yield found

    def _messages_of(self, chunk: PackedChunk, at: int, cut: bool = False) -> Iterator[Message]:
        """The messages of a chunk at byte `at`; of one that is `cut` off, the complete ones."""
        try:
            data = decompress(chunk.compression, chunk.data, chunk.size, cut)
            if chunk.crc and not cut and (got := zlib.crc32(data)) != chunk.crc:
                raise ValueError(f"expected the checksum {chunk.crc}, got {got}")
            for record in self._inner_records(ExactReader(BytesIO(data))):
                found = self._parse(record)
                if isinstance(found, Message):
                    yield found
        except self.errors as error:
            raise self._damage("chunk", at, error) from None

    def _messages_of_cut_chunk(self, file: ExactReader, at: int) -> Iterator[Message]:
        file.seek(at)
        if file.size - at < LARGEST_CUT:
            # OverflowError: a size beyond all memory. The caller reports the damage.
            with suppress(BagDamage, OverflowError, *self.errors):
                chunk = self._parse(self._cut_chunk(BytesIO(file.read(file.size - at))))
                if isinstance(chunk, PackedChunk):
                    yield from self._messages_of(chunk, at, cut=True)

    def _damage(self, kind: str, at: int, error: Exception) -> BagDamage:
        reason = str(error) or type(error).__name__
        return BagDamage(f"{self._name}: the {kind} at byte {at} is damaged: {reason}")

    # --- the index

    def _complete_index(self, file: ExactReader) -> FileIndex | None:
        """The index, whose topics are remembered, if it has the topic of every message."""
        try:
            index = self._index(file)
        except self.errors:
            return None
        if index is None or not index.counts.keys() <= index.topics.keys():
            return None
        self._topics |= index.topics
        return index

    def _chunks_outside(
        self, file: ExactReader, since: int | None, until: int | None
    ) -> Collection[int]:
        """Places of the chunks that hold no message of a time range.

        None of them without a complete index: topics may be defined in them.
        """
        if since is None and until is None or (index := self._complete_index(file)) is None:
            return ()
        return {
            place
            for place, start, end in index.chunks
            if (since is not None and end < since) or (until is not None and start >= until)
        }
