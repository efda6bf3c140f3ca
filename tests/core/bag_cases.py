"""Bags of all kinds that are met, and what is in them."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bag_fixtures import (
    CHUNK,
    DATA_END,
    FIRST,
    FOOTER,
    PERIOD,
    STATISTICS,
    TOPIC,
    Row,
    bag_of,
    cut_at,
    flip,
    image_row,
    image_rows,
    in_chunk,
    put_before,
    record,
    storage_file,
    truncated,
    write_db3,
    write_mcap,
)
from mcap.writer import CompressionType, IndexType
from rosbags import rosbag1

from video_knet_core.bags.compression import zstd
from video_knet_core.bags.definitions import IMAGE, ros1_types
from video_knet_core.bags.making import BagFormat
from video_knet_core.bags.mcap import MAGIC
from video_knet_core.bags.opening import open_bag

TEN = image_rows(10)
NONE = CompressionType.NONE
NO_INDEX = {"index_types": IndexType.NONE, "use_summary_offsets": False}
TEXT: Row = ("/status", "std_msgs/msg/String", FIRST, b"\0\1\0\0\3\0\0\0ok\0\0")


@dataclass(frozen=True)
class Case:
    """A bag, and what is in it."""

    make: Callable[[Path], Path]
    """Writes it into a folder; returns what a user names."""
    images: Sequence[int] = range(10)
    damage: str = ""
    """File that is named as damaged, below the folder; empty if none is."""


def changed(make: Callable[[Path], Path], change: Callable[[bytes], bytes]):
    """The file of `make` with other bytes."""

    def write(folder: Path) -> Path:
        path = make(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return write


def made(form: str, compression: str, pick: Callable[[Path], Path] = lambda path: path):
    """A bag of `make_bag`, of which `pick` changes or chooses something."""
    return lambda folder: pick(bag_of(folder, 10, BagFormat(form, compression)))


def without_metadata(path: Path) -> Path:
    (path / "metadata.yaml").unlink()
    return path


def alone(path: Path) -> Path:
    """The file of a recording, with nothing beside it."""
    return storage_file(without_metadata(path))


def with_metadata(text: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        (path / "metadata.yaml").write_text(text)
        return path

    return write


def half(path: Path) -> Path:
    return truncated(path, path.stat().st_size // 2)


def zstd_file(path: Path, keep: bool = False) -> Path:
    """The file compressed, in its place or beside it."""
    target = path.with_name(f"{path.name}.zstd")
    target.write_bytes(zstd.compress(path.read_bytes()))
    if not keep:
        path.unlink()
    return target


# --- MCAP ----------------------------------------------------------------------------------------


def mcap(rows: Sequence[Row] = TEN, **options) -> Callable[[Path], Path]:
    return lambda folder: write_mcap(folder / "a.mcap", rows, **options)


def two_publishers(writer) -> None:
    """Five more images by another channel of the same topic."""
    schema = writer.register_schema(IMAGE, "ros2msg", b"")
    channel = writer.register_channel(TOPIC, "cdr", schema, {"offered_qos_profiles": "x"})
    for _, _, time, data in image_rows(5, 5):
        writer.add_message(channel, time, data, time)


def json_beside(writer) -> None:
    channel = writer.register_channel("/notes", "json", 0)
    writer.add_message(channel, FIRST, b"{}", FIRST)


def attachments(writer) -> None:
    writer.add_attachment(FIRST, FIRST, "map.png", "image/png", b"picture")
    writer.add_metadata("car", {"name": "x"})


NO_SUMMARY = NO_INDEX | {
    "use_statistics": False,
    "repeat_channels": False,
    "repeat_schemas": False,
}
OLD_TYPE = "sensor_msgs/Image"
OLD = [(topic, OLD_TYPE, time, data) for topic, _, time, data in TEN]
AT_ZERO = [image_row(n, max(n - 4, 0) * PERIOD) for n in range(15)]
LARGE = {"chunk_size": 1 << 20}
LZ4, ZSTD = CompressionType.LZ4, CompressionType.ZSTD

MCAP = {
    "a chunk for each message": Case(mcap()),
    "chunks of lz4": Case(mcap(compression=LZ4, **LARGE)),
    "chunks of zstd": Case(mcap(compression=ZSTD, **LARGE)),
    "chunks without compression": Case(mcap(compression=NONE, **LARGE)),
    "no chunks": Case(mcap(use_chunking=False)),
    "no chunks but a checksum of all data": Case(mcap(use_chunking=False, enable_data_crcs=True)),
    "channels not repeated": Case(mcap(repeat_channels=False, repeat_schemas=False, **NO_INDEX)),
    "schemas not repeated": Case(mcap(repeat_schemas=False, **NO_INDEX)),
    "no statistics": Case(mcap(use_statistics=False)),
    "no summary": Case(mcap(**NO_SUMMARY)),
    "no index of messages": Case(mcap(index_types=IndexType.CHUNK)),
    "no index of chunks": Case(mcap(index_types=IndexType.MESSAGE)),
    "attachments and metadata": Case(mcap(before_end=attachments)),
    "a topic without a schema": Case(mcap(before_end=json_beside)),
    "two channels of one topic": Case(mcap(TEN[:5], before_end=two_publishers)),
    "two types on one topic": Case(mcap([(TOPIC, *TEXT[1:]), *TEN])),
    "old type name": Case(mcap(OLD, definitions={OLD_TYPE: "uint8 a"})),
    "time 0": Case(mcap(AT_ZERO), range(15)),
    "time 0 without a summary": Case(mcap(AT_ZERO, **NO_SUMMARY), range(15)),
    "no messages": Case(mcap([]), ()),
    "unknown record": Case(changed(mcap(), put_before(DATA_END, record(0x90, b"new")))),
    "unknown record at the end of a chunk": Case(
        changed(mcap(compression=NONE, **LARGE), in_chunk(lambda data: data + record(0x90, b"new")))
    ),
    "cut off in an uncompressed chunk": Case(
        changed(mcap(compression=NONE, **LARGE), cut_at(CHUNK, 0, 57_000)), range(5), "a.mcap"
    ),
    "cut off in a chunk of zstd": Case(changed(mcap(), cut_at(CHUNK, 5, 60)), range(5), "a.mcap"),
    "cut off in the head of a record": Case(
        changed(mcap(), cut_at(CHUNK, 5, 4)), range(5), "a.mcap"
    ),
    "cut off between records": Case(changed(mcap(), cut_at(CHUNK, 5, 0)), range(5), "a.mcap"),
    "no end of the data": Case(changed(mcap(), cut_at(DATA_END, 0, 0)), range(10), "a.mcap"),
    "no footer": Case(changed(mcap(), cut_at(FOOTER, 0, 0))),
    "no end mark": Case(changed(mcap(), lambda data: data[: -len(MAGIC)])),
    "unknown compression": Case(
        changed(mcap(compression=LZ4), lambda data: data.replace(b"lz4", b"br5")), (), "a.mcap"
    ),
    "wrong checksum of a chunk": Case(
        changed(mcap(compression=NONE), flip(CHUNK, 2000)), range(9), "a.mcap"
    ),
    "wrong byte in a compressed chunk": Case(changed(mcap(), flip(CHUNK, 60)), range(9), "a.mcap"),
    "wrong checksum of all data": Case(
        changed(
            mcap(use_chunking=False, enable_data_crcs=True),
            lambda data: data.replace(b"test", b"Test"),
        ),
        range(10),
        "a.mcap",
    ),
    "wrong summary": Case(changed(mcap(), flip(STATISTICS, 12))),
    "compressed file": Case(lambda folder: zstd_file(mcap()(folder))),
    "compressed messages": Case(made("mcap", "message")),
    "compressed messages without metadata": Case(made("mcap", "message", without_metadata)),
    "compressed messages, one file": Case(made("mcap", "message", alone)),
    "compressed file of a folder": Case(made("mcap", "file")),
    "compressed file without metadata": Case(made("mcap", "file", without_metadata)),
    "compressed file, named": Case(made("mcap", "file", alone)),
}

# --- SQLite --------------------------------------------------------------------------------------


def db3(rows: Sequence[Row] = TEN, qos: str | None = "", sql: str = "") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = write_db3(folder / "a.db3", rows, qos)
        with sqlite3.connect(path) as database:
            database.executescript(sql)
        database.close()
        return path

    return write


SQLITE = {
    "as first recorded": Case(db3()),
    "old type name": Case(db3(OLD)),
    "QoS is NULL": Case(db3(qos=None)),
    "no column of QoS": Case(db3(sql="ALTER TABLE topics DROP COLUMN offered_qos_profiles")),
    "a message of no topic": Case(
        db3(sql="UPDATE messages SET topic_id = 9 WHERE id = 10"), range(9)
    ),
    "a message without data": Case(
        db3(sql="UPDATE messages SET data = NULL WHERE id = 6"), range(5), "a.db3"
    ),
    "a time that is none": Case(
        db3(sql="UPDATE messages SET timestamp = 'x' WHERE id = 6"), range(5), "a.db3"
    ),
    "no table of messages": Case(db3(sql="DROP TABLE messages"), (), "a.db3"),
    "times before and at 0": Case(db3([image_row(n, (n - 5) * PERIOD) for n in range(10)])),
    "cut off": Case(lambda folder: half(db3()(folder)), range(3), "a.db3"),
    "name that is no URI": Case(lambda folder: db3()(folder).rename(folder / "a#1?b%20.db3")),
    "compressed messages": Case(made("sqlite3", "message")),
    "compressed messages without metadata": Case(made("sqlite3", "message", without_metadata)),
    "compressed messages, one file": Case(made("sqlite3", "message", alone)),
    "compressed file": Case(made("sqlite3", "file")),
    "compressed file without metadata": Case(made("sqlite3", "file", without_metadata)),
    "compressed file, named": Case(made("sqlite3", "file", alone)),
}

# --- folders -------------------------------------------------------------------------------------


def split(
    names: str, change: Callable[[Path], object] = lambda folder: None, listed: str = ""
) -> Callable[[Path], Path]:
    """A recording of two images in each file, and a metadata.yaml if there are `listed` files."""

    def write(parent: Path) -> Path:
        (folder := parent / "in").mkdir()
        for number, name in enumerate(names.split()):
            write_mcap(folder / name, image_rows(2, 2 * number))
        if listed:
            text = "".join(f"\n  - {name}" for name in listed.split())
            text = f"rosbag2_bagfile_information:\n relative_file_paths:{text}\n"
            (folder / "metadata.yaml").write_text(text)
        change(folder)
        return folder

    return write


def emptied(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"")


def removed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def shadow(folder: Path) -> None:
    """Companions of files as a Mac leaves them on other disks."""
    (folder / "._a_0.mcap").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"")


THREE = "a_0.mcap a_1.mcap a_2.mcap"
FOLDERS = {
    "three files": Case(split(THREE, listed=THREE), range(6)),
    "order of metadata.yaml": Case(
        split(THREE, listed="a_1.mcap a_0.mcap a_2.mcap"), (2, 3, 0, 1, 4, 5)
    ),
    "no metadata.yaml, 9 before 10": Case(split("a_9.mcap a_10.mcap a_11.mcap"), range(6)),
    "last file empty": Case(split(THREE, emptied("a_2.mcap")), range(4), "in/a_2.mcap"),
    "last file empty, as listed": Case(
        split(THREE, emptied("a_2.mcap"), THREE), range(4), "in/a_2.mcap"
    ),
    "first file empty": Case(split(THREE, emptied("a_0.mcap")), range(2, 6), "in/a_0.mcap"),
    "middle file cut off": Case(
        split(THREE, lambda folder: changed(lambda f: f / "a_1.mcap", cut_at(CHUNK, 1, 9))(folder)),
        (0, 1, 2, 4, 5),
        "in/a_1.mcap",
    ),
    "one is missing": Case(split(THREE, removed("a_1.mcap"), THREE), (0, 1, 4, 5), "a_1.mcap"),
    "renamed after metadata.yaml": Case(split(THREE, listed="b_0.mcap b_1.mcap"), range(6)),
    "metadata.yaml of before the last file": Case(
        split(THREE, listed="a_0.mcap a_1.mcap"), range(6)
    ),
    "another file beside those listed": Case(split("a_0.mcap b.mcap", listed="a_0.mcap"), range(2)),
    "paths in metadata.yaml": Case(split("a_0.mcap", listed="/home/x/in/a_0.mcap"), range(2)),
    "decompressed by hand": Case(split("a_0.mcap", listed="a_0.mcap.zstd"), range(2)),
    "compressed and not": Case(
        split("a_0.mcap", lambda folder: zstd_file(folder / "a_0.mcap", keep=True)), range(2)
    ),
    "files of a Mac": Case(split(THREE, shadow), range(6)),
    "other files beside": Case(
        split(THREE, lambda folder: (folder / "notes.txt").write_text("x")), range(6)
    ),
    **{
        f"metadata.yaml is {name}": Case(
            lambda folder, text=text: made("mcap", "message", with_metadata(text))(folder)
        )
        for name, text in {
            "empty": "",
            "no mapping": "[1, 2]",
            "no YAML": "a: [",
            "cut off": "rosbag2_bagfile_information:\n  version: 8\n  storage_id",
            "without files": "rosbag2_bagfile_information: {relative_file_paths: null}",
            "with no names": "rosbag2_bagfile_information: {relative_file_paths: [1, {}]}",
            "with no file": "rosbag2_bagfile_information: {relative_file_paths: []}",
        }.items()
    },
}

# --- ROS 1 ---------------------------------------------------------------------------------------


def bag1(compression: str = "none", kind: str = IMAGE, chunk_size: int | None = None):
    """A bag of ten images."""

    def write(folder: Path) -> Path:
        source = list(open_bag(made("ros1", "none")(folder)).messages({TOPIC}))
        writer = rosbag1.Writer(folder / "a.bag")
        if compression != "none":
            writer.set_compression(rosbag1.Writer.CompressionFormat[compression.upper()])
        writer.chunk_threshold = chunk_size or writer.chunk_threshold
        with writer:
            text, md5 = ros1_types().generate_msgdef(IMAGE)
            connection = writer.add_connection(TOPIC, kind, msgdef=text, md5sum=md5)
            for message in source:
                writer.write(connection, message.time, message.data)
        return folder / "a.bag"

    return write


ros1_chunks = bag1("lz4", chunk_size=1)
"""With a chunk for each message."""


def index_of(data: bytes) -> int:
    return struct.unpack_from("<Q", data, data.index(b"index_pos=") + 10)[0]


def unindexed(data: bytes) -> bytes:
    """As a recording that was killed."""
    at = data.index(b"index_pos=") + 10
    return data[:at] + bytes(8) + data[at + 8 : index_of(data)]


def wrong_index(data: bytes) -> bytes:
    at = index_of(data) + 6
    return data[:at] + b"\xff\xff" + data[at + 2 :]


ROS1 = {
    "uncompressed": Case(bag1()),
    "lz4": Case(bag1("lz4")),
    "bz2": Case(bag1("bz2")),
    "type with its middle part": Case(bag1(kind="sensor_msgs/msg/Image")),
    "under way": Case(changed(bag1(), unindexed), range(10), "a.bag"),
    "wrong index": Case(changed(bag1(), wrong_index)),
    "chunk cut off": Case(changed(bag1(), lambda data: data[:60_000]), range(5), "a.bag"),
    "chunk without its size": Case(
        changed(bag1(), lambda data: data.replace(b"size=", b"sire=", 1)), (), "a.bag"
    ),
    "compressed chunk cut off": Case(changed(bag1("lz4"), lambda data: data[:-5000]), (), "a.bag"),
    "unknown compression": Case(
        changed(bag1("lz4"), lambda data: data.replace(b"=lz4", b"=xyz")), (), "a.bag"
    ),
}

CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "MCAP": MCAP,
        "SQLite": SQLITE,
        "folder": FOLDERS,
        "ROS 1": ROS1,
    }.items()
    for name, case in cases.items()
}
