"""Bags are read to the last good byte, and as rosbags reads them."""

from __future__ import annotations

import random
import struct
import zlib

import lz4.frame
import numpy as np
import pytest
from bag_fixtures import TOPIC, bag_of, block, drive, read_all, storage_file
from rosbags import rosbag1
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from video_knet_core.bags.bag import BagDamage, BagError, RecordedTopic
from video_knet_core.bags.definitions import Embedded, decode, ros1_types, ros2_types
from video_knet_core.bags.making import DELAY, FIRST_STAMP, BagFormat, make_bag
from video_knet_core.bags.mcap import MAGIC
from video_knet_core.bags.opening import open_bag
from video_knet_core.messages.image_messages import to_rgb

FORMS = [
    BagFormat(form, compression)
    for form, compressions in {
        "mcap": ("none", "chunk", "message", "file"),
        "sqlite3": ("none", "message", "file"),
        "ros1": ("none", "chunk"),
    }.items()
    for compression in compressions
]
PLAIN = [BagFormat(form) for form in ("mcap", "sqlite3", "ros1")]


def name_of(form: BagFormat) -> str:
    return f"{form.format}-{form.compression}"


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_every_message_comes_as_rosbags_reads_it(form, tmp_path):
    path = bag_of(tmp_path, 30, form, ("/a/image_raw", "/b/image_raw"))
    found = [(m.topic.name, m.topic.type, m.time, bytes(m.data)) for m in read_all(path)]
    with AnyReader([path]) as reader:
        expected = [(c.topic, c.msgtype, t, bytes(data)) for c, t, data in reader.messages()]
    assert len(found) == 60 and sorted(found) == sorted(expected)
    contents = open_bag(path).contents()
    assert contents.counts == {"/a/image_raw": 30, "/b/image_raw": 30} and not contents.damage
    assert (contents.start, contents.end) == (expected[0][2], expected[-1][2])
    assert all(topic.definition for topic in contents.topics)


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_a_made_bag_holds_the_images_and_their_stamps(form, tmp_path):
    for number, message in enumerate(read_all(bag_of(tmp_path, 5, form))):
        decoded = decode(message)
        assert np.array_equal(to_rgb(decoded), block(number))
        assert message.time == FIRST_STAMP + number * 100_000_000 + DELAY
        assert decoded.header.frame_id == "camera_image_raw"


@pytest.mark.parametrize("form", ["mcap", "sqlite3", "ros1"])
def test_a_made_bag_of_jpeg_has_compressed_images(form, tmp_path):
    (message,) = read_all(bag_of(tmp_path, 1, BagFormat(form, jpeg=95)))
    assert message.topic.name == f"{TOPIC}/compressed"
    assert message.topic.type == "sensor_msgs/msg/CompressedImage"
    assert np.abs(to_rgb(decode(message)).astype(int) - block(0)).mean() < 3


def test_an_mcap_file_with_lz4_and_without_a_summary(tmp_path):
    path = bag_of(tmp_path, 3)
    data, (start, size) = storage_file(path).read_bytes(), first_chunk(storage_file(path))
    records = data[start + 9 + 40 : start + 9 + size]
    packed = lz4.frame.compress(records)
    chunk = data[start + 9 : start + 9 + 28] + struct.pack("<I3sQ", 3, b"lz4", len(packed)) + packed
    end = b"\x0f" + struct.pack("<QI", 4, 0) + b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC
    other = tmp_path / "other.mcap"
    other.write_bytes(data[:start] + b"\x06" + struct.pack("<Q", len(chunk)) + chunk + end)
    assert [bytes(m.data) for m in read_all(other)] == [bytes(m.data) for m in read_all(path)]
    assert open_bag(other).contents() == open_bag(path).contents()


def first_chunk(file) -> tuple[int, int]:
    """Where the first chunk of an MCAP file begins, and the size of its content."""
    data = file.read_bytes()
    start = len(MAGIC) + 9 + struct.unpack_from("<Q", data, len(MAGIC) + 1)[0]  # after the header
    assert data[start] == 0x06
    return start, struct.unpack_from("<Q", data, start + 1)[0]


def test_a_bag_of_ros_1_with_bz2(tmp_path):
    rows = read_all(bag_of(tmp_path, 3, BagFormat("ros1")))
    writer = rosbag1.Writer(tmp_path / "other.bag")
    writer.set_compression(rosbag1.Writer.CompressionFormat.BZ2)
    with writer:
        connection = writer.add_connection(TOPIC, rows[0].topic.type, typestore=ros1_types())
        for message in rows:
            writer.write(connection, message.time, message.data)
    assert [bytes(m.data) for m in read_all(tmp_path / "other.bag")] == [
        bytes(m.data) for m in rows
    ]


def test_making_a_bag_twice_gives_the_same_bytes(tmp_path):
    for form in PLAIN:
        files = []
        for name in ("first", "second"):
            folder = tmp_path / form.format / name
            files.append(storage_file(bag_of(folder, 5, form)).read_bytes())
        assert files[0] == files[1]


def test_a_bag_is_never_overwritten(tmp_path):
    for form in PLAIN:
        bag_of(tmp_path / form.format, 1, form)
        with pytest.raises(BagError, match="exists already"):
            bag_of(tmp_path / form.format, 1, form)


def test_a_compression_that_the_format_has_not_is_refused():
    with pytest.raises(BagError, match="sqlite3 can be compressed by none, message, file"):
        BagFormat("sqlite3", "chunk")


# --- damage --------------------------------------------------------------------------------------


def read_up_to_damage(path) -> tuple[list, str]:
    bag, found = open_bag(path), []
    try:
        for message in bag.messages({TOPIC}):
            found.append((message.time, bytes(message.data)))
    except BagDamage as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("form", PLAIN, ids=name_of)
@pytest.mark.parametrize("fraction", [0.97, 0.6, 0.3])
def test_a_truncated_file_is_read_up_to_its_end(form, fraction, tmp_path):
    path = bag_of(tmp_path, 400, form)
    whole = [(m.time, bytes(m.data)) for m in read_all(path)]
    file = storage_file(path)
    with file.open("r+b") as stream:
        stream.truncate(int(file.stat().st_size * fraction))
    found, damage = read_up_to_damage(path)
    assert found == whole[: len(found)] and len(found) < 400
    assert len(found) >= int(400 * fraction) - 110  # a chunk of 1 MiB holds 99
    assert str(file) in damage
    contents = open_bag(path).contents()
    assert contents.counts == {TOPIC: len(found)} and contents.damage == damage


@pytest.mark.parametrize(
    "form", [*PLAIN, BagFormat("mcap", "chunk"), BagFormat("ros1", "chunk")], ids=name_of
)
def test_flipped_bytes_never_crash_and_what_comes_before_them_is_whole(form, tmp_path):
    path = bag_of(tmp_path, 120, form)
    whole = [(m.time, bytes(m.data)) for m in read_all(path)]
    file = storage_file(path)
    good, rng = file.read_bytes(), random.Random(4)
    damaged = 0
    for _ in range(25):
        place = rng.randrange(len(good) // 4, len(good))
        file.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            open_bag(path).contents()
            found, damage = read_up_to_damage(path)
        except BagError as error:  # of SQLite, the table of topics
            assert str(file) in str(error)
            continue
        damaged += bool(damage)
        wrong = [n for n, (a, b) in enumerate(zip(found, whole, strict=False)) if a != b]
        # a pixel or a time, which nothing in the file protects; a compressed one may come again
        assert len(wrong) <= (1 if form.compression == "none" else 110)
        assert damage or len(found) == len(whole) or form.format == "sqlite3"
    assert damaged >= (10 if form.compression == "chunk" else 0)


def test_a_flipped_byte_in_a_compressed_chunk_is_named_with_its_place(tmp_path):
    path = bag_of(tmp_path, 120, BagFormat("mcap", "chunk"))
    file = storage_file(path)
    data = bytearray(file.read_bytes())
    data[300] ^= 0xFF
    file.write_bytes(data)
    found, damage = read_up_to_damage(path)
    assert found == [] and "the chunk at byte" in damage and str(file) in damage


def test_a_chunk_with_a_checksum_tells_of_a_flipped_pixel(tmp_path):
    """As rosbag2 records it; rosbags leaves the checksum out."""
    file = storage_file(bag_of(tmp_path, 3))
    data, (chunk, size) = bytearray(file.read_bytes()), first_chunk(file)
    records = bytes(data[chunk + 9 + 40 : chunk + 9 + size])
    struct.pack_into("<I", data, chunk + 9 + 24, zlib.crc32(records))
    file.write_bytes(data)
    assert read_up_to_damage(file) == (read_up_to_damage(file)[0], "")
    data[chunk + 9 + size - 100] ^= 1
    file.write_bytes(data)
    found, damage = read_up_to_damage(file)
    assert (
        found == [] and f"the chunk at byte {chunk} is damaged" in damage and "checksum" in damage
    )


def test_a_recording_that_was_cut_off_has_no_metadata_and_is_read(tmp_path):
    path = bag_of(tmp_path, 10)
    (path / "metadata.yaml").unlink()
    assert len(read_all(path)) == 10


def test_a_file_that_the_metadata_names_and_is_missing_is_named(tmp_path):
    path = bag_of(tmp_path, 1)
    (path / "in.mcap").unlink()
    with pytest.raises(BagError, match=r"in\.mcap"):
        open_bag(path)


@pytest.mark.parametrize("name", ["none", "text.txt", "text.mcap", "text.bag", "text.db3", "empty"])
def test_what_is_no_bag_is_named(name, tmp_path):
    (tmp_path / "empty").mkdir()
    for suffix in ("txt", "mcap", "bag", "db3"):
        (tmp_path / f"text.{suffix}").write_text("This is no bag, whatever its name says.")
    with pytest.raises(BagError, match=name):
        open_bag(tmp_path / name)


# --- other people's messages ---------------------------------------------------------------------


def test_ros_1_messages_become_those_of_ros_2(tmp_path):
    make_bag({TOPIC: drive(1)}, tmp_path / "in.bag", BagFormat("ros1"))
    make_bag({TOPIC: drive(1)}, tmp_path / "in", BagFormat())
    (old,), (new,) = read_all(tmp_path / "in.bag"), read_all(tmp_path / "in")
    embedded = Embedded(old.topic)
    assert bytes(embedded.to_cdr(old.data)) == bytes(new.data)
    assert embedded.hash == ros2_types().hash_rihs01("sensor_msgs/msg/Image")


def test_a_type_of_somebody_else_is_copied_by_its_own_definition(tmp_path):
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("float64[2] gains\nstring name", "other/msg/Gains"))
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/gains", "other/msg/Gains", typestore=store)
        message = store.types["other/msg/Gains"](gains=np.array([1.0, 2.0]), name="x")
        writer.write(connection, 1, store.serialize_cdr(message, "other/msg/Gains"))
    (found,) = read_all(tmp_path / "in")
    assert "float64[2] gains" in Embedded(found.topic).definition


def test_a_type_without_any_definition_is_named():
    with pytest.raises(BagError, match="/gains: .*other/msg/Gains"):
        Embedded(RecordedTopic("/gains", "other/msg/Gains"))
