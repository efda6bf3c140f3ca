"""Writes bags with rosbags: one for ROS 1 or ROS 2, or a ROS 2 recording in parts."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.rosbag2.metadata import parse_qos

from ..output_files import write_text
from .bag import BagError, load_plain

COMPRESSIONS = ("none", "chunk", "message", "file")
"""How a ROS 2 bag is compressed: MCAP by its own chunks, any storage by message or by file."""
METADATA_VERSION = 8
"""Of metadata.yaml: that of Iron, which later distributions read."""
LATEST = (1 << 63) - 1
"""Receive time [ns] that every storage can hold; MCAP holds none below 0."""
NOT_QOS = (yaml.YAMLError, ValueError, AttributeError, RecursionError, KeyError, TypeError)
_log = logging.getLogger(__name__)
_MODES = {
    "none": CompressionMode.NONE,
    "chunk": CompressionMode.STORAGE,
    "message": CompressionMode.MESSAGE,
    "file": CompressionMode.FILE,
}
_UNLIMITED = QosTime(0x7FFFFFFF, 0xFFFFFFFF)
"""What ROS 2 records for no deadline, lifespan or lease."""


def offered(latched: bool = False) -> list[Qos]:
    """QoS of a per-frame output of the node (reliable, depth 2), or of its class map (latched)."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    qos = Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 2,
        QosReliability.RELIABLE,
        durability,
        _UNLIMITED,
        _UNLIMITED,
        QosLiveliness.AUTOMATIC,
        _UNLIMITED,
        False,
    )
    return [qos]


def recorded_qos(text: str) -> list[Qos]:
    """QoS as a bag of ROS 2 has it, or "latched" of one of ROS 1.

    None, which means the default, if a profile lacks a field or cannot be understood.
    """
    if text == "latched":
        return offered(latched=True)
    try:
        profiles = parse_qos(load_plain(text))
    except NOT_QOS as error:
        _log.debug("QoS profiles %r are not copied: %r", text, error)
        return []
    return profiles if all(map(_is_whole, profiles)) else []


def _is_whole(qos: Qos) -> bool:
    """Whether the numbers of a profile are such; rosbags takes anything."""
    times = (qos.deadline, qos.lifespan, qos.liveliness_lease_duration)
    numbers = [qos.depth, *(part for time in times for part in (time.sec, time.nsec))]
    return all(isinstance(number, int) for number in numbers)


@contextmanager
def _sqlite_errors() -> Iterator[None]:
    """Turn what SQLite calls a full disk, or a failed write, into an OSError."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"cannot write the bag: {error}") from None


class NewTopic(NamedTuple):
    """A topic of a new bag."""

    name: str
    type: str
    definition: str
    type_hash: str
    """Of ROS 2; of ROS 1, its MD5 sum."""
    qos: Sequence[Qos] = ()
    """Of ROS 2."""


class BagWriter:
    """One bag that is written by rosbags. Messages are given as bytes.

    All methods raise OSError if a file cannot be written, and the constructor a BagError if the
    path is there already, or the form has no such compression.

    Args:
        path: a new folder for one file and its metadata.yaml; of ROS 1, a new .bag file.
        topics: of all messages.
        form: mcap, sqlite3 or ros1.
        compression: one of `COMPRESSIONS`; of ROS 1, by chunk with lz4, as `rosbag record --lz4`.
    """

    def __init__(
        self, path: Path, topics: Iterable[NewTopic], form: str = "mcap", compression: str = "none"
    ) -> None:
        try:
            with _sqlite_errors():
                self._writer = _open(path, form, compression)
                self._connections = {topic.name: _connect(self._writer, topic) for topic in topics}
        except (rosbag1.WriterError, rosbag2.WriterError) as error:
            raise BagError(str(error)) from None

    def write(self, topic: str, time: int, data: bytes | memoryview) -> None:
        """Append a message received at `time` (ns), or at the nearest time that can be stored."""
        time = min(max(time, 0), LATEST)
        with _sqlite_errors():
            self._writer.write(self._connections[topic], time, bytes(data))

    def close(self) -> None:
        """Finish the files."""
        with _sqlite_errors():
            self._writer.close()

    def abort(self) -> None:
        """Close the files, which are not used any more: errors do not matter."""
        with suppress(OSError, sqlite3.Error, ValueError, struct.error, rosbag2.WriterError):
            self._writer.close()


def _open(path: Path, form: str, compression: str) -> rosbag1.Writer | rosbag2.Writer:
    writer: rosbag1.Writer | rosbag2.Writer
    if form == "ros1":
        writer = rosbag1.Writer(path)
        if compression == "chunk":
            writer.set_compression(rosbag1.Writer.CompressionFormat.LZ4)
    else:
        plugin = rosbag2.StoragePlugin[form.upper()]
        writer = rosbag2.Writer(path, version=METADATA_VERSION, storage_plugin=plugin)
        writer.set_compression(_MODES[compression], CompressionFormat.ZSTD)
    writer.open()
    return writer


def _connect(writer: rosbag1.Writer | rosbag2.Writer, topic: NewTopic) -> Connection:
    name, kind, definition, digest, qos = topic
    if isinstance(writer, rosbag1.Writer):
        return writer.add_connection(name, kind, msgdef=definition, md5sum=digest)
    return writer.add_connection(
        name, kind, msgdef=definition, rihs01=digest, offered_qos_profiles=qos
    )


class SplitWriter:
    """A ROS 2 recording in several files, each with all topics, or they would not fit together.

    All methods raise OSError if a file cannot be written.

    Args:
        folder: a new one, for NAME_NNNN.mcap or .db3 and metadata.yaml, which lists the files that
            are finished. The one that is being written is in a folder beside it.
        storage: mcap, which is compressed by chunks, or sqlite3.
        topics: of all messages.
    """

    def __init__(self, folder: Path, storage: str, topics: Sequence[NewTopic]) -> None:
        self._folder, self._storage, self._topics = folder, storage, topics
        # Named as the recording, because rosbags writes that name into each file.
        self._partial = folder.with_name(f"{folder.name}_partial") / folder.name
        self._writer: BagWriter | None = None
        self._parts: dict[str, dict[str, Any]] = {}

    def write(self, topic: str, time: int, data: bytes | memoryview) -> None:
        """As `BagWriter.write`, into the file under way or a new one."""
        if self._writer is None:
            compression = "chunk" if self._storage == "mcap" else "none"
            self._writer = BagWriter(self._partial, self._topics, self._storage, compression)
        self._writer.write(topic, time, data)

    def finish_part(self) -> None:
        """Finish the file under way, if there is one."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        (file,) = (path for path in self._partial.iterdir() if path.name != "metadata.yaml")
        name = f"{self._folder.name}_{len(self._parts):04d}{file.suffix}"
        text = (self._partial / "metadata.yaml").read_text()
        self._parts[name] = yaml.safe_load(text)["rosbag2_bagfile_information"]
        self._folder.mkdir(exist_ok=True)
        file.replace(self._folder / name)
        shutil.rmtree(self._partial.parent)
        whole = yaml.safe_dump(
            {"rosbag2_bagfile_information": _joined(self._parts)}, sort_keys=False
        )
        write_text(self._folder / "metadata.yaml", whole)

    def abort(self) -> None:
        """As `BagWriter.abort`."""
        if self._writer is not None:
            self._writer.abort()


def _joined(parts: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Metadata of a recording in parts.

    `parts` has the metadata of each when it was a bag of its own, by file name; all have the same
    topics in the same order.
    """
    keys = "starting_time", "duration", "message_count"
    starts = [part["starting_time"]["nanoseconds_since_epoch"] for part in parts.values()]
    lengths = [part["duration"]["nanoseconds"] for part in parts.values()]
    end = max(start + length for start, length in zip(starts, lengths, strict=True))
    topics = [part["topics_with_message_count"] for part in parts.values()]
    return next(iter(parts.values())) | {
        "relative_file_paths": list(parts),
        "starting_time": {"nanoseconds_since_epoch": min(starts)},
        "duration": {"nanoseconds": end - min(starts)},
        "message_count": sum(part["message_count"] for part in parts.values()),
        "topics_with_message_count": [
            {**same[0], "message_count": sum(topic["message_count"] for topic in same)}
            for same in zip(*topics, strict=True)
        ],
        "files": [
            {"path": name, **{key: part[key] for key in keys}} for name, part in parts.items()
        ],
    }
