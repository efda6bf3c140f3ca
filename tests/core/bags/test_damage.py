"""Bags are read to the last good byte."""

from __future__ import annotations

import random

import pytest
from bag_fixtures import TOPIC, bag_of, read_all, storage_file

from video_knet_core.bags.bag import BagDamage, BagError
from video_knet_core.bags.making import BagFormat
from video_knet_core.bags.opening import open_bag

PLAIN = [BagFormat(form) for form in ("mcap", "sqlite3", "ros1")]


def name_of(form: BagFormat) -> str:
    return f"{form.format}-{form.compression}"


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
