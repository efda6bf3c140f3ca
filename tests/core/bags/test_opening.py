"""Files of all kinds that are met: every image that is in them is read, damage is named."""

from __future__ import annotations

import errno
import re
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
from bag_cases import (
    CASES,
    LZ4,
    NO_SUMMARY,
    NONE,
    TEN,
    ZSTD,
    db3,
    half,
    mcap,
    ros1_chunks,
    split,
    zstd_file,
)
from bag_fixtures import (
    FIRST,
    PERIOD,
    TOPIC,
    bag_of,
    image_row,
    image_rows,
    images_in,
    read_all,
    storage_file,
    write_db3,
    write_mcap,
)

from video_knet_core.bags.bag import BagDamage, BagError, RecordedTopic
from video_knet_core.bags.compression import decompress, zstd
from video_knet_core.bags.definitions import IDL, UNKNOWN_HASH, Embedded
from video_knet_core.bags.making import BagFormat
from video_knet_core.bags.opening import open_bag


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_image_is_read_and_damage_is_named(case, tmp_path):
    path = case.make(tmp_path)
    numbers, damage = images_in(path)
    assert numbers == list(case.images)
    assert bool(damage) == bool(case.damage) and case.damage in damage
    assert not damage or str(tmp_path) in damage
    assert images_in(path) == (numbers, damage)  # no name of a temporary file


WHOLE = {name: case for name, case in CASES.items() if not case.damage}


@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_contents_count_what_is_read(case, tmp_path):
    bag = open_bag(case.make(tmp_path))
    contents = bag.contents()
    found = [message for topic in contents.counts for message in bag.messages({topic})]
    counts = Counter(message.topic.name for message in found)
    assert {name: count for name, count in contents.counts.items() if count} == counts
    times = [message.time for message in found]
    assert (contents.start, contents.end) == (min(times, default=None), max(times, default=None))
    assert contents.damage == ""
    assert set(contents.topics) >= {message.topic for message in found if message.topic.definition}


def test_a_compressed_file_that_is_cut_off_is_read_up_to_there(tmp_path):
    path = zstd_file(write_mcap(tmp_path / "a.mcap", image_rows(80), compression=NONE))
    numbers, damage = images_in(half(path))
    assert numbers == list(range(len(numbers))) and 0 < len(numbers) < 80
    assert damage.startswith(str(path)) and images_in(path) == (numbers, damage)
    contents = open_bag(path).contents()
    assert contents.counts == {TOPIC: len(numbers)} and str(path) in contents.damage


@pytest.mark.parametrize("form", ["mcap", "sqlite3", "ros1"])
@pytest.mark.parametrize("fraction", [0.97, 0.6, 0.3])
def test_a_truncated_file_is_read_up_to_its_end(form, fraction, tmp_path):
    path = bag_of(tmp_path, 400, BagFormat(form))
    whole = [(m.time, bytes(m.data)) for m in read_all(path)]
    file = storage_file(path)
    with file.open("r+b") as stream:
        stream.truncate(int(file.stat().st_size * fraction))
    bag, found = open_bag(path), []
    with pytest.raises(BagDamage) as error:
        for message in bag.messages({TOPIC}):
            found.append((message.time, bytes(message.data)))
    damage = str(error.value)
    assert found == whole[: len(found)] and len(found) < 400
    assert len(found) >= int(400 * fraction) - 110  # a chunk of 1 MiB holds 99
    assert str(file) in damage
    contents = open_bag(path).contents()
    assert contents.counts == {TOPIC: len(found)} and contents.damage == damage


@pytest.mark.parametrize("compression", [NONE, LZ4, ZSTD])
def test_a_chunk_that_expands_without_end_is_damage(compression, tmp_path, monkeypatch):
    path = write_mcap(tmp_path / "a.mcap", image_rows(80), compression=compression)
    monkeypatch.setattr("video_knet_core.bags.compression.LARGEST", 1000)
    _, damage = images_in(path)
    assert bool(damage) == (compression is not NONE) and damage.endswith(damage and "got more")


@pytest.mark.parametrize("called", ["view", "table"])
def test_a_view_in_place_of_the_messages_is_no_bag(tmp_path, called):
    endless = "WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n)"
    view = (
        f"CREATE VIEW messages AS {endless} SELECT x id, 1 topic_id, x timestamp, x'' data FROM n"
    )
    change = f"UPDATE sqlite_master SET type = '{called}' WHERE name = 'messages'"
    sql = f"DROP TABLE messages; {view}; PRAGMA writable_schema = ON; {change}"
    path = db3(sql=sql)(tmp_path)
    if called == "view":
        with pytest.raises(BagError, match="got the view messages"):
            open_bag(path)
    else:
        assert re.search("not authorized|prohibited", open_bag(path).contents().damage)


EMPTY = "=" * 80 + "\nMSG: std_msgs/Empty\n"


@pytest.mark.parametrize(
    ("encoding", "definition"),
    [
        ("ros1", f"std_msgs/Empty[] x\n{EMPTY}"),
        ("ros1", f"std_msgs/Empty[4000000000] x\n{EMPTY}"),
        ("ros1", "p/A[] x\n" + "=" * 80 + f"\nMSG: p/A\nstd_msgs/Empty e\n{EMPTY}"),
        ("ros1", "p/A a\n" + "=" * 80 + "\nMSG: p/A\np/A a\n"),
        ("ros1", "p/A[] a\n" + "=" * 80 + "\nMSG: p/A\nuint8[0] b\n"),
        ("ros1", "float64 X=1e999\nfloat64 y"),
    ],
)
def test_a_definition_that_costs_or_is_none_is_not_used(encoding, definition):
    with pytest.raises(BagError, match="no usable definition"):
        Embedded(RecordedTopic("/a", "p/msg/T", encoding, definition))


COSTLY = "((((1))))", "(/**/(/**/(1)))", "-(-(-(1)))", "(1+(1+(1)))", "1 << 99999999999", "9*9"


def idl_of(value: str, field: str = "int32 y;") -> RecordedTopic:
    idl = f"module p {{ module msg {{ module T_Constants {{ const int32 X = {value}; }};\n"
    idl += f"struct T {{ {field} }}; }}; }};"
    return RecordedTopic("/a", "p/msg/T", "cdr", f"{IDL}p/msg/T\n{idl}")


@pytest.mark.parametrize(
    "value", [*COSTLY, '1; // "\nconst int32 Y = ((1)); // "\nconst int32 Z = 1']
)
def test_a_constant_that_costs_leaves_a_topic_as_it_is(value):
    embedded = Embedded(idl_of(value))
    assert embedded.hash == UNKNOWN_HASH and embedded.to_cdr(b"data") == b"data"


def test_sequences_of_sequences_are_not_parsed_and_comments_do_not_matter():
    many = "sequence<" * 19 + "int32" + ">" * 19
    assert Embedded(idl_of("1", f"{many} y;")).hash == UNKNOWN_HASH
    field = "sequence<int32, 10> y; // as ((this)) 1 << 2"
    assert Embedded(idl_of("1", f"{field}\n")).hash != UNKNOWN_HASH


def test_a_message_that_expands_without_end_is_damage(tmp_path, monkeypatch):
    *row, data = TEN[0]
    path = write_db3(tmp_path / "a.db3", [(*row, zstd.compress(data))])
    monkeypatch.setattr("video_knet_core.bags.opening.LARGEST_MESSAGE", 1000)
    assert images_in(path)[1].endswith("got more")


def test_merges_in_metadata_are_not_read(tmp_path, caplog):
    path = bag_of(tmp_path, 2)
    with (path / "metadata.yaml").open("a") as file:
        file.write("a: &a {}\nb: {!!merge x: [*a, *a]}\n")
    assert len(read_all(path)) == 2
    assert "all files beside it are read" in caplog.text and "merge" in caplog.text


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch):
    path = zstd_file(write_mcap(tmp_path / "a.mcap", TEN))

    (tmp_path / "bag").symlink_to("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", lambda: nullcontext(tmp_path))
    with pytest.raises(OSError) as error:
        images_in(path)
    assert error.value.errno == errno.ENOSPC


def test_an_unreadable_file_is_no_damage(tmp_path, monkeypatch):
    path = write_mcap(tmp_path / "a.mcap", TEN)
    bag = open_bag(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        list(bag.messages({TOPIC}))


@pytest.mark.parametrize(
    "text", ["", "#ROSBAG V1.2\n", "\x89MCAP1\r\n", "This is no bag.", "SQLite"], ids=repr
)
@pytest.mark.parametrize("name", ["a.mcap", "a.bag", "a.db3", "a.mcap.zstd", "a"])
def test_what_is_no_bag_is_named(name, text, tmp_path):
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BagError, match=re.escape(str(tmp_path / name))):
        open_bag(tmp_path / name)


@pytest.mark.parametrize("listed", ["", "a_0.mcap"])
def test_a_folder_without_files_is_no_bag(listed, tmp_path):
    path = split("", listed=listed)(tmp_path)
    with pytest.raises(BagError, match=listed or str(path)):
        open_bag(path)
    with pytest.raises(BagError, match="none"):
        open_bag(path / "none")


def test_a_bag_in_the_home_folder_may_be_named_by_a_tilde(tmp_path, monkeypatch):
    write_mcap(tmp_path / "a.mcap", TEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert images_in(Path("~/a.mcap")) == (list(range(10)), "")


# --- ranges of time ------------------------------------------------------------------------------

RANGES = {
    "MCAP": mcap(),
    "MCAP, no chunks": mcap(use_chunking=False),
    "MCAP, no summary": mcap(**NO_SUMMARY),
    "MCAP, channels not repeated": mcap(repeat_channels=False),
    "SQLite": db3(),
    "ROS 1": ros1_chunks,
    "split": split("a_0.mcap a_1.mcap a_2.mcap a_3.mcap a_4.mcap"),
}


@pytest.mark.parametrize("make", RANGES.values(), ids=RANGES)
def test_a_range_of_time_begins_and_ends_as_given(make, tmp_path):
    path = make(tmp_path)
    since, until = FIRST + 3 * PERIOD, FIRST + 6 * PERIOD
    assert images_in(path, since=since) == (list(range(3, 10)), "")
    assert images_in(path, until=until) == (list(range(6)), "")
    assert images_in(path, since=since, until=until) == ([3, 4, 5], "")
    assert images_in(path, since=1 << 70) == images_in(path, until=-(1 << 70)) == ([], "")


@pytest.mark.parametrize("make", [mcap(), ros1_chunks], ids=["MCAP", "ROS 1"])
def test_chunks_outside_a_range_are_not_decompressed(make, tmp_path, monkeypatch):
    path, sizes = make(tmp_path), []

    def counted(*arguments):
        sizes.append(1)
        return decompress(*arguments)

    monkeypatch.setattr("video_knet_core.bags.chunked.decompress", counted)
    assert images_in(path, since=FIRST + 8 * PERIOD) == ([8, 9], "")
    assert len(sizes) <= 3


def test_times_that_go_back_stay_in_the_order_of_the_file(tmp_path):
    rows = [image_row(n, FIRST + (n if n < 5 else n - 4) * PERIOD) for n in range(10)]
    path = write_mcap(tmp_path / "a.mcap", rows)
    assert images_in(path) == (list(range(10)), "")
    assert images_in(path, since=FIRST + 2 * PERIOD, until=FIRST + 4 * PERIOD) == ([2, 3, 6, 7], "")
