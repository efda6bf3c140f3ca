"""Bags of a red block that moves over the lower half of the image, which the tiny model finds."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import Writer as McapWriter

from video_knet_core.bags.bag import BagDamage, Message
from video_knet_core.bags.definitions import IMAGE, conversions, decode, ros2_types
from video_knet_core.bags.making import BagFormat, make_bag, make_depth_bag
from video_knet_core.bags.mcap import MAGIC
from video_knet_core.bags.opening import open_bag
from video_knet_core.data.frame_source import Frame, FrameSource, Intrinsics, View

TOPIC = "/camera/image_raw"
PERIOD = 100_000_000
FIRST = 1_700_000_000_000_000_000
Row = tuple[str, str, int, bytes]
"""Topic, type, receive time and bytes of a message."""


def block(number: int, height: int = 50, width: int = 70) -> np.ndarray:
    """Image of frame `number`; no two of a hundred are the same."""
    image = np.zeros((height, width, 3), np.uint8)
    left = 5 + number % 20
    image[30:45, left : left + 20, 0] = 255
    image[..., 1] = number % 100
    return image


def drive(frames: int) -> list[tuple[np.ndarray, int]]:
    return [(block(number), number * PERIOD) for number in range(frames)]


def bag_of(folder: Path, frames: int = 10, form: BagFormat | None = None, topics=(TOPIC,)) -> Path:
    """A new bag in `folder`."""
    form = form or BagFormat()
    path = folder / ("in.bag" if form.format == "ros1" else "in")
    make_bag({topic: drive(frames) for topic in topics}, path, form)
    return path


class DepthDrive(FrameSource):
    """The block, 10 m away from a camera that drives 1 m along x with each frame."""

    fps = 10.0
    intrinsics = Intrinsics(fx=200.0, fy=200.0, cx=34.5, cy=24.5)

    def __init__(self, frames: int) -> None:
        self._frames = drive(frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def views(self, with_depth: Callable[[], bool] = lambda: True) -> Iterator[View]:
        for number, (image, stamp) in enumerate(self):
            pose = np.array([[0, 0, 1, number], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]], float)
            yield View(image, stamp, np.full(image.shape[:2], 10.0, np.float32), pose)


def depth_bag_of(folder: Path, frames: int) -> Path:
    """A new bag with depth, camera info and odometry."""
    path = folder / "in"
    make_depth_bag(DepthDrive(frames), TOPIC, path)
    return path


def read_all(path: Path) -> list[Message]:
    """All messages of a bag."""
    bag = open_bag(path)
    return list(bag.messages({topic.name for topic in bag.contents().topics}))


def storage_file(path: Path) -> Path:
    """The file with the messages of a bag."""
    return path if path.is_file() else next(p for p in path.iterdir() if p.suffix != ".yaml")


# --- files as other programs write them ----------------------------------------------------------


def image_row(
    number: int, time: int | None = None, topic: str = TOPIC, stamp: int | None = None
) -> Row:
    """Image `number`, received `number` periods after `FIRST`, or at `time`, which is its stamp."""
    time = FIRST + number * PERIOD if time is None else time
    convert, types = conversions(), ros2_types().types
    header = types["std_msgs/msg/Header"](
        stamp=convert.time_message(max(time, 0) if stamp is None else stamp), frame_id="camera"
    )
    message = convert.image_message(header, "rgb8", block(number))
    return topic, IMAGE, time, bytes(ros2_types().serialize_cdr(message, IMAGE))


def image_rows(frames: int, start: int = 0) -> list[Row]:
    return [image_row(number) for number in range(start, start + frames)]


def changed_bag(folder: Path, frames: int, change: Callable[[list[Row]], Iterable[Row]]) -> Path:
    """A bag of images with `change(rows)` for its messages."""
    return write_mcap(folder / "changed.mcap", change(image_rows(frames)))


def definition_of(kind: str) -> str:
    return ros2_types().generate_msgdef(kind, ros_version=2)[0]


def write_mcap(
    path: Path,
    rows: Iterable[Row],
    *,
    encodings: tuple[str, str] = ("cdr", "ros2msg"),
    definitions: dict[str, str] | None = None,
    qos: str = "",
    before_end: Callable[[McapWriter], Any] = lambda writer: None,
    **options: Any,
) -> Path:
    """An MCAP file by the MCAP project; each channel is defined before its first message.

    Args:
        path: of the file.
        rows: the messages.
        encodings: of messages, and of definitions.
        definitions: type -> text; the others have those of rosbags.
        qos: of all topics.
        before_end: writes more before the file is finished.
        options: of the writer.
    """
    with path.open("wb") as stream:
        writer = McapWriter(stream, **({"chunk_size": 1} | options))
        writer.start(profile="ros2", library="test")
        channels: dict[tuple[str, str], int] = {}
        for topic, kind, time, data in rows:
            if (topic, kind) not in channels:
                text = (definitions or {}).get(kind) or definition_of(kind)
                schema = writer.register_schema(kind, encodings[1], text.encode())
                channels[topic, kind] = writer.register_channel(
                    topic, encodings[0], schema, {"offered_qos_profiles": qos}
                )
            writer.add_message(channels[topic, kind], time, data, time)
        before_end(writer)
        writer.finish()
    return path


def write_db3(path: Path, rows: Sequence[Row], qos: str | None = "") -> Path:
    """An SQLite file as the first versions of ROS 2 recorded it, without definitions."""
    database = sqlite3.connect(path)
    database.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT,"
        " serialization_format TEXT, offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER,"
        " data BLOB);"
        "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    )
    topics: dict[tuple[str, str], int] = {}
    for topic, kind, time, data in rows:
        if (topic, kind) not in topics:
            topics[topic, kind] = len(topics) + 1
            values = (len(topics), topic, kind, "cdr", qos)
            database.execute("INSERT INTO topics VALUES(?, ?, ?, ?, ?)", values)
        values = (topics[topic, kind], time, data)
        database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", values)
    database.commit()
    database.close()
    return path


def truncated(path: Path, size: int) -> Path:
    """The file, cut off after `size` bytes, or before the last `-size`."""
    data = path.read_bytes()
    path.write_bytes(data[:size])
    return path


def images_in(path: Path, **limits: int) -> tuple[list[int], str]:
    """Numbers of the images of a bag in the order they are read, and its damage."""
    bag = open_bag(path)
    numbers: list[int] = []
    try:
        for message in bag.messages({TOPIC}, **limits):
            if message.topic.type == IMAGE:
                numbers.append(int(decode(message).data[1]))
    except BagDamage as error:
        return numbers, str(error)
    return numbers, ""


# --- bytes of MCAP files -------------------------------------------------------------------------

CHUNK, STATISTICS, DATA_END, FOOTER = 0x06, 0x0B, 0x0F, 0x02


def record(code: int, content: bytes) -> bytes:
    return struct.pack("<BQ", code, len(content)) + content


def records(data: bytes) -> list[tuple[int, int, int]]:
    """Code, beginning and end of each record of an MCAP file."""
    found, at = [], len(MAGIC)
    while at < len(data) - len(MAGIC):
        code, size = struct.unpack_from("<BQ", data, at)
        found.append((code, at, at + 9 + size))
        at = found[-1][2]
    return found


def cut_at(code: int, number: int, offset: int) -> Callable[[bytes], bytes]:
    """Cuts a file off some bytes behind the beginning of a record."""
    return lambda data: data[: [at for c, at, _ in records(data) if c == code][number] + offset]


def put_before(code: int, more: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = next(at for c, at, _ in records(data) if c == code)
        return data[:at] + more + data[at:]

    return change


def in_chunk(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Changes the content of the first chunk, whose checksum is taken away."""

    def changed_file(data: bytes) -> bytes:
        at, end = next((at, end) for code, at, end in records(data) if code == CHUNK)
        content = change(data[at + 9 + 40 : end])
        times = data[at + 9 : at + 25]
        head = times + struct.pack("<QIIQ", len(content), 0, 0, len(content))
        return data[:at] + record(CHUNK, head + content) + data[end:]

    return changed_file


def flip(code: int, offset: int) -> Callable[[bytes], bytes]:
    """Changes a byte behind the beginning of the last record of a kind."""

    def change(data: bytes) -> bytes:
        at = [at for c, at, _ in records(data) if c == code][-1] + offset
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]

    return change
