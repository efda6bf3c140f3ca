"""Class tables: how many classes fit, what a name may be, and when two tables are the same.

And the rows of frames: tracks and detections.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from video_knet_core.types import (
    TRACK_DTYPE,
    ClassTable,
    Detections,
    Track,
    TrackState,
    TrackTable,
    first_difference,
    plain_name,
)


def table(*names: str, things: tuple[str, ...] = ()) -> ClassTable:
    return ClassTable.from_rows(
        [{"name": name, "is_thing": name in things, "color": [1, 2, 3]} for name in names]
    )


# --- how many ------------------------------------------------------------------------------------


def test_class_ids_of_8_bits_are_enough_for_255_classes():
    names = [f"part {i}" for i in range(256)]
    assert table(*names[:255])[254].id == 254
    with pytest.raises(ValueError, match="at most 255 classes .*, got 256: 'part 255'"):
        table(*names)


# --- names ---------------------------------------------------------------------------------------

SCRIPTS = {
    "Chinese": ("汽车", "行人", "道路", "天空", "树"),
    "Cyrillic": ("дорога", "человек", "машина"),
    "Arabic": ("سيارة", "طريق", "شخص"),
    "Devanagari": ("कार", "कोर", "सड़क"),
    "accents": ("Bär", "Bar", "Bor"),
    "half and full width": ("カメラ", "ｶﾒﾗ"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_of_any_script_keep_their_letters(script):
    names = SCRIPTS[script]
    assert len({plain_name(name) for name in names}) == len(names)
    assert [info.name for info in table(*names)] == list(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tennis racket", "tennis_racket"),
        ("Traffic-Light", "traffic light"),
        ("wall\u2011tile", "wall-tile"),
        ("a\u00a0b", "a  b"),
        ("Bär", unicodedata.normalize("NFD", "bär")),
        ("МАШИНА", "машина"),
        (" car ", "car"),
    ],
)
def test_names_that_differ_in_case_and_separators_alone_are_one(one, other):
    assert plain_name(one) == plain_name(other)
    with pytest.raises(ValueError, match=r"class names must differ .*\(class 0\) .*\(class 1\)"):
        table(one, other)


@given(st.text())
def test_plain_names_are_plain(name):
    assert plain_name(plain_name(name)) == plain_name(name)


def test_decomposed_names_are_composed():
    assert table(unicodedata.normalize("NFD", "Bär"))[0].name == unicodedata.normalize("NFC", "Bär")


@pytest.mark.parametrize("name", ["", " ", "-_ ", "two\nlines", "nul\0", "\ud800"])
def test_names_without_letters_or_with_control_characters_are_rejected(name):
    with pytest.raises(ValueError, match="class 0: expected a name of letters, got"):
        table(name)


@pytest.mark.parametrize(
    "scalar", ["1", "no", "on", "null", "~", "2026-01-02", "1:30", "1.5", "[a]"]
)
def test_yaml_scalars_that_are_no_text_must_be_quoted(scalar):
    rows = yaml.safe_load(f"- {{name: {scalar}, is_thing: true, color: [1, 2, 3]}}")
    with pytest.raises(ValueError, match="class 0: name: expected text, got .* in quotes"):
        ClassTable.from_rows(rows)
    quoted = yaml.safe_load(f"- {{name: '{scalar}', is_thing: true, color: [1, 2, 3]}}")
    if plain_name(scalar):
        assert ClassTable.from_rows(quoted)[0].name == scalar


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("road", "class 0: expected the keys .*, got 'road'"),
        (None, "class 0: expected the keys .*, got None"),
        ({"name": "road", False: 1}, "class 0: expected the keys .*'False', 'name'"),
        ({"is_thing": 1}, "is_thing: expected true or false, got 1"),
        ({"color": 5}, "color: expected three values .*, got 5"),
        *(
            ({"color": [1, 2, value]}, "color: expected three values 0..255")
            for value in (256, True, 0.5)
        ),
    ],
)
def test_unusable_rows_are_named(row, message):
    if isinstance(row, dict) and "name" not in row:
        row = {"name": "road", "is_thing": True, "color": [1, 2, 3]} | row
    with pytest.raises(ValueError, match=message):
        ClassTable.from_rows([row])


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.booleans(), inner),
    max_leaves=6,
)
ROWS = st.fixed_dictionaries({"name": YAML, "is_thing": YAML, "color": YAML})


@given(st.lists(ROWS | YAML, max_size=4))
def test_whatever_the_rows_hold_a_table_is_made_or_they_are_rejected(rows):
    try:
        classes = ClassTable.from_rows(rows)
    except ValueError as error:
        assert str(error)
    else:
        assert len({plain_name(info.name) for info in classes}) == len(rows)


# --- two tables ----------------------------------------------------------------------------------


def test_tables_are_compared_by_name_and_kind():
    classes = table("road", "tennis racket", things=("tennis racket",))
    assert first_difference(classes.kinds, classes.kinds) == ""
    assert first_difference(classes.kinds, [("Road", False), ("tennis_racket", True)]) == ""


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ([("car", True), ("road", False)], "class 0: expected 'road' (stuff), got 'car' (thing)"),
        ([("road", False), ("car", False)], "class 1: expected 'car' (thing), got 'car' (stuff)"),
        ([("road", False)], "class 1: expected 'car' (thing), got none"),
        (
            [("road", False), ("car", True), ("sky", False)],
            "class 2: expected none, got 'sky' (stuff)",
        ),
    ],
)
def test_the_first_difference_is_named(got, message):
    assert first_difference([("road", False), ("car", True)], got) == message


def test_ids_are_looked_up_by_plain_names():
    assert table("road", "tennis_racket").id_of("Tennis racket") == 1
    with pytest.raises(KeyError, match="no class 'sky'"):
        table("road").id_of("sky")


# --- tracks --------------------------------------------------------------------------------------


def track(track_id: int, **changes: Any) -> Track:
    known = Track(
        *(track_id, track_id, 2, True, TrackState.CONFIRMED, 0.75, 0.5, 3, 2**62, 2**62 + 1),
        *((1, 2, 3, 4), (2.5, 3.5), (-1.0, 0.25), 9, True),
    )
    return replace(known, **changes)


UNKNOWN = (math.nan, math.nan)


def test_a_track_table_is_a_sequence_of_its_tracks():
    tracks = [track(1), track(2, state=TrackState.COASTED, label=0), track(3, truncated=False)]
    tracks_table = TrackTable.of(tracks)
    assert len(tracks_table) == 3 and list(tracks_table) == tracks
    assert tracks_table[1] == tracks[1] and tracks_table[-1] == tracks[2]
    assert tracks_table[1:] == tuple(tracks[1:])
    assert tracks[0] in tracks_table and track(4) not in tracks_table
    with pytest.raises(IndexError):
        tracks_table[3]
    assert not TrackTable.of([]) and list(TrackTable.of([])) == []


def test_the_fields_of_a_track_are_plain_values():
    (got,) = TrackTable.of([track(1, velocity=UNKNOWN)])
    for field in fields(Track):
        assert type(getattr(got, field.name)) is type(getattr(track(1), field.name)), field.name
    assert {type(value) for value in (*got.box, *got.centroid, *got.velocity)} == {int, float}
    assert TRACK_DTYPE.names == tuple(field.name for field in fields(Track))


def test_track_tables_are_equal_if_their_tracks_are():
    one, same = (TrackTable.of([track(1), track(2)]) for _ in range(2))
    assert one == same
    assert one == (track(1), track(2)) and one == [track(1), track(2)]
    assert one != TrackTable.of([track(1)]) and one != TrackTable.of([track(1), track(3)])
    assert one != 5


def test_tracks_with_unknown_velocities_can_be_equal():
    one, same = (TrackTable.of([track(1, velocity=(math.nan, math.nan))]) for _ in range(2))
    assert one == same and one != TrackTable.of([track(1)])
    assert all(map(math.isnan, one[0].velocity))


# --- detections ----------------------------------------------------------------------------------


def detections(**changes: Any) -> Detections:
    segment_map = np.array([[0, 1, 1], [3, 3, 2]], np.uint8)
    given = Detections(
        segment_map=segment_map,
        class_ids=np.array([5, 6, 7], np.int64),
        scores=np.array([0.1, 0.2, 0.3], np.float32),
        areas=np.array([2, 1, 2], np.int64),
        embeddings=np.eye(3, dtype=np.float32),
    )
    return replace(given, **changes)


def test_taken_rows_keep_all_that_is_theirs():
    whole = detections(boxes=np.arange(12).reshape(3, 4), kernels=np.ones((3, 8), np.float32))
    taken = whole.take(np.array([2, 0, 1])).take(np.array([0, 2]))
    assert taken.slots.tolist() == [2, 1] and len(taken) == 2
    for name in ("class_ids", "scores", "areas", "embeddings", "boxes", "kernels"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(whole, name)[[2, 1]])
    assert taken.segment_map.shape == (2, 3)
    plain = detections().take(np.array([1]))
    assert plain.boxes is None and plain.kernels is None


def test_the_masks_of_rows_come_from_the_map_or_are_whole_where_masks_overlap():
    whole = detections()
    assert whole.row_masks.sum(axis=(1, 2)).tolist() == whole.areas.tolist()
    assert np.argwhere(whole.row_masks[1]).tolist() == [[1, 2]]
    np.testing.assert_array_equal(whole.take(np.array([2, 1])).row_masks, whole.row_masks[[2, 1]])
    masks = np.zeros((3, 2, 3), np.uint8)
    masks[0, 0], masks[2] = 1, 1
    taken = detections(masks=masks).take(np.array([2, 0]))
    assert taken.row_masks.dtype == np.bool_
    assert taken.row_masks.sum(axis=(1, 2)).tolist() == [6, 3]


def outputs() -> dict[str, np.ndarray]:
    whole = detections(kernels=np.ones((3, 8), np.float32))
    names = ("segment_map", "class_ids", "scores", "areas", "embeddings", "kernels")
    return {name: getattr(whole, name).copy() for name in names}


@pytest.mark.parametrize("name", ["kernels", "embeddings"])
def test_outputs_that_are_not_finite_are_rejected(name):
    good = outputs()
    assert len(Detections.from_outputs(good, "small")) == 3
    good[name][1, 1] = np.inf
    with pytest.raises(FloatingPointError, match="small"):
        Detections.from_outputs(good, "small")


def test_outputs_without_embeddings_have_empty_ones():
    rest = {name: value for name, value in outputs().items() if name != "embeddings"}
    assert Detections.from_outputs(rest, "small").embeddings.shape == (3, 0)
