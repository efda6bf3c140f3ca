"""Damaged bags of every kind end in messages and a BagError, never in anything else."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from bag_cases import LZ4, NO_SUMMARY, NONE, bag1, json_beside, mcap, ros1_chunks
from bag_fixtures import FIRST, PERIOD, TOPIC, image_row, write_db3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.data_stream import RecordBuilder
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    Schema,
    Statistics,
)
from mcap.records import Message as McapMessage

from video_knet_core.bags.bag import BagError
from video_knet_core.bags.definitions import Embedded, MessageError, decode
from video_knet_core.bags.mcap import MAGIC
from video_knet_core.bags.opening import open_bag
from video_knet_core.bags.writing import recorded_qos

FEW = [image_row(number) for number in range(4)]
BAGS = {
    "mcap": mcap(FEW, compression=NONE),
    "mcap-zstd": mcap(FEW),
    "mcap-lz4": mcap(FEW, compression=LZ4, chunk_size=1 << 20),
    "mcap-plain": mcap(FEW, use_chunking=False, before_end=json_beside),
    "mcap-no-summary": mcap(FEW, **NO_SUMMARY),
    "db3": lambda folder: write_db3(folder / "a.db3", FEW),
    "bag": bag1(),
    "bag-bz2": bag1("bz2"),
    "bag-lz4": ros1_chunks,
}
IN_EVERY_RUN = ("mcap-zstd", "db3", "bag-lz4")
"""The other forms are slow tests."""
MANY = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Edits = st.lists(
    st.tuples(
        st.sampled_from(("flip", "cut", "insert", "copy", "number")),
        st.floats(0, 1, exclude_max=True),
        st.binary(max_size=9),
    ),
    min_size=1,
    max_size=4,
)


@cache
def bytes_of(name: str) -> bytes:
    """A good bag."""
    with TemporaryDirectory() as folder:
        return BAGS[name](Path(folder)).read_bytes()


def places(data: bytes) -> list[int]:
    """Bytes that are no plain pixels, which are most of a bag and of which none is checked."""
    return [at for at in range(len(data)) if data[max(at - 2, 0) : at + 3].count(data[at]) < 5]


def edited(data: bytes, edits: list[tuple[str, float, bytes]], targets: list[int]) -> bytes:
    """The bag with some changes."""
    for kind, place, new in edits:
        at = min(targets[int(place * len(targets))], max(len(data) - 1, 0))
        if kind == "flip":
            data = data[:at] + bytes(b ^ 0xFF for b in data[at : at + 1]) + data[at + 1 :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "copy":
            data = data[:at] + data[at : at + 64] + data[at:]
        else:
            data = data[:at] + b"\xff" * 4 + data[at + 4 :]
    return data


def read_in_every_way(path: Path) -> None:
    """All that a replay does with a bag; only a BagError may come out of it."""
    try:
        bag = open_bag(path)
        contents = bag.contents()
    except BagError as error:
        assert str(path) in str(error)
        return
    assert all(count >= 0 for count in contents.counts.values())
    for topic in contents.topics:
        recorded_qos(topic.qos)
        read_definition(topic)
    names = {topic.name for topic in contents.topics}
    for limits in ({}, {"since": FIRST + PERIOD}, {"until": FIRST + PERIOD}):
        read_messages(bag, names, limits)


def read_definition(topic) -> None:
    try:
        Embedded(topic)
    except BagError as error:
        assert topic.name in str(error)


def read_messages(bag, names, limits) -> None:
    try:
        for message in bag.messages(names, **limits):
            assert isinstance(message.data, bytes)
            if message.topic.name == TOPIC and message.topic.type == "sensor_msgs/msg/Image":
                read_message(message)
    except BagError as error:
        assert str(bag.files[0]) in str(error)


def read_message(message) -> None:
    try:
        decode(message)
    except MessageError as error:
        assert message.topic.type in str(error)


@pytest.mark.parametrize(
    "name",
    [n if n in IN_EVERY_RUN else pytest.param(n, marks=pytest.mark.slow) for n in BAGS],
)
def test_changed_bytes_end_in_a_bag_error_or_in_none(name, tmp_path):
    good = bytes_of(name)
    targets, path = places(good), tmp_path / "bag"

    @MANY
    @given(Edits)
    def check(edits):
        path.write_bytes(edited(good, edits, targets))
        read_in_every_way(path)

    check()


# --- records in any order ------------------------------------------------------------------------

Id = st.integers(0, 3)
Time = st.sampled_from((0, 1, FIRST, FIRST + PERIOD, (1 << 64) - 1))
Text = st.sampled_from(("", "cdr", TOPIC, "sensor_msgs/Image", "sensor_msgs/msg/Image", "ros2idl"))
Size = st.sampled_from((0, 1, 30, 1 << 20, 1 << 40, (1 << 64) - 1))
TEXTS = ("encoding", "name", "topic", "message_encoding", "compression")
NAMED = {
    "data": st.sampled_from((b"", b"\0\1\0\0", b"uint8 a", b"\xff\xfe", FEW[0][3])),
    "metadata": st.dictionaries(Text, Text, max_size=2),
    "channel_message_counts": st.dictionaries(Id, Id, max_size=3),
    "message_index_offsets": st.dictionaries(Id, Size),
    "records": st.lists(st.tuples(Time, Time), max_size=2),
    **dict.fromkeys(TEXTS, Text),
}


def values_of(field: str) -> st.SearchStrategy:
    """Values of a field of a record."""
    if field in NAMED:
        return NAMED[field]
    if field.endswith("_time"):
        return Time
    return Size if field.endswith(("_size", "_length", "_offset")) else Id


def any_of(*kinds: type[McapRecord]) -> st.SearchStrategy:
    """Records of some kinds."""
    return st.one_of(
        *(st.builds(kind, **{f.name: values_of(f.name) for f in fields(kind)}) for kind in kinds)
    )


def written(records: list[McapRecord]) -> bytes:
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return builder.end()


def chunk_of(records: list[McapRecord], size: int | None, kind: str, crc: int) -> Chunk:
    data = written(records)
    return Chunk(
        compression=kind,
        data=data,
        message_end_time=FIRST,
        message_start_time=0,
        uncompressed_crc=crc,
        uncompressed_size=len(data) if size is None else size,
    )


Inner = any_of(Schema, Channel, McapMessage)
Chunks = st.builds(
    chunk_of,
    st.lists(Inner, max_size=4),
    st.one_of(st.none(), Size),
    st.sampled_from(("", "", "zstd", "lz4", "none", "x")),
    st.sampled_from((0, 0, 1)),
)
Outer = st.one_of(Inner, Chunks, any_of(Metadata, MessageIndex))
Summary = st.one_of(Inner, any_of(Statistics, ChunkIndex))


@pytest.mark.slow
@settings(MANY, max_examples=2000)
@given(
    st.lists(Outer, max_size=8),
    st.booleans(),
    st.lists(Summary, max_size=6),
    st.one_of(st.none(), Size),
)
def test_records_in_any_order_end_in_a_bag_error_or_in_none(
    tmp_path_factory, data, has_end, summary, start
):
    before = MAGIC + written([Header("ros2", "test"), *data, *([DataEnd(0)] if has_end else [])])
    footer = Footer(len(before) if start is None else start, 0, 0)
    path = tmp_path_factory.getbasetemp() / "records.mcap"
    path.write_bytes(before + written([*summary, footer]) + MAGIC)
    read_in_every_way(path)


@settings(MANY, max_examples=500)
@given(st.binary(max_size=200), st.sampled_from((MAGIC, b"#ROSBAG V2.0\n", b"SQLite format 3\0")))
def test_any_bytes_behind_the_first_ones_end_in_a_bag_error_or_in_none(
    tmp_path_factory, data, magic
):
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(magic + data)
    read_in_every_way(path)


Value = st.sampled_from((None, 0, 7, -(1 << 63), 1.5, "x", b"\0\1\0\0", FEW[0][3]))


@settings(MANY, max_examples=300)
@given(st.lists(st.tuples(Value, Value, Value), max_size=4), st.tuples(Value, Value, Value, Value))
def test_any_values_in_the_tables_end_in_a_bag_error_or_in_none(tmp_path_factory, messages, topic):
    path = tmp_path_factory.getbasetemp() / "values.db3"
    path.unlink(missing_ok=True)
    write_db3(path, FEW[:1])
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.executemany(
        "INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", messages
    )
    database.execute("INSERT INTO topics VALUES(NULL, ?, ?, ?, ?)", topic)
    database.commit()
    database.close()
    read_in_every_way(path)
