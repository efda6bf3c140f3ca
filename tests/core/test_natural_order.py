from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from video_knet_core.natural_order import is_hidden, natural_order

ORDERS = [
    ["1.png", "2.png", "10.png", "11.png"],
    ["frame1.png", "frame2.jpg", "frame10.png"],
    ["1.png", "02.png", "3.png", "010.png", "100.png"],
    ["IMG_1.PNG", "img_2.png", "IMG_10.PNG"],
    ["a.png", "b.png", "c.PNG"],
    ["1305031102.175304.png", "1305031102.211214.png", "1305031103.011129.png"],
    ["drive_2_1.mcap", "drive_2_12.mcap", "drive_10_1.mcap"],
    ["a/2/9.png", "a/2/10.png", "a/11/1.png"],
    ["01.png", "1.png", "2.png"],
    ["0001_0001_frankfurt_000000_000294", "0001_0001_frankfurt_000000_000299", "0002_0001_x"],
    ["第1回.png", "第2回.png", "第10回.png"],
]


@pytest.mark.parametrize("names", ORDERS, ids=lambda names: names[0])
def test_numbers_are_ordered_by_value(names):
    for seed in range(5):
        mixed = random.Random(seed).sample(names, len(names))
        assert natural_order(mixed) == names
        assert natural_order(map(Path, mixed)) == list(map(Path, names))


@given(st.lists(st.text(st.characters(exclude_characters="/\0", codec="utf-8")), unique=True))
def test_the_order_depends_on_the_names_alone(names):
    assert natural_order(names) == natural_order(reversed(names))
    assert sorted(natural_order(names)) == sorted(names)


def test_what_systems_add_is_hidden():
    names = ["._1.png", ".DS_Store", "Thumbs.db", "__MACOSX", "1.png", "_1.png", "a.b"]
    assert [name for name in names if not is_hidden(name)] == ["1.png", "_1.png", "a.b"]
