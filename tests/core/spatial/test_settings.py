"""Classes by name."""

from __future__ import annotations

import pytest

from video_knet_core.spatial.settings import GROUND, SpatialSettings, class_ids
from video_knet_core.types import ClassInfo, ClassTable

NAMES = ("Road", "side-walk", "person", "lane marking", "terrain")
CLASSES = ClassTable(ClassInfo(i, name, False, (i, i, i)) for i, name in enumerate(NAMES))


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ("", []),
        ("person", [2]),
        ("terrain,road", [0, 4]),
        (" ROAD , Lane_Marking ", [0, 3]),
        ("side walk", [1]),
        ("road,road", [0]),
        ("ocean,person", [2]),
        (",,person,", [2]),
    ],
)
def test_names_give_the_ids_in_order(names, ids):
    assert class_ids(CLASSES, names) == ids


def test_a_part_of_a_name_is_no_name():
    assert class_ids(CLASSES, "lane,walk,per") == []


def test_the_ground_is_what_data_sets_call_it():
    assert class_ids(CLASSES, GROUND) == [0, 3, 4]


@pytest.mark.parametrize(
    "values", [{"max_range_m": 0}, {"point_stride": 65}, {"camera_height_m": -1}]
)
def test_values_out_of_their_limits_are_rejected(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        SpatialSettings(**values)
