"""Class tables: how many classes fit, what a name may be, and when two tables are the same."""

from __future__ import annotations

import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from video_knet_core.types import ClassTable, first_difference, plain_name


def table(*names: str, things: tuple[str, ...] = ()) -> ClassTable:
    return ClassTable.from_rows(
        [{"name": name, "is_thing": name in things, "color": [1, 2, 3]} for name in names]
    )


# --- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [254, 255])
def test_class_ids_of_8_bits_are_enough_for_255_classes(count):
    classes = table(*(f"part {i}" for i in range(count)))
    assert len(classes) == count and classes[count - 1].id == count - 1


@pytest.mark.parametrize("count", [256, 300, 65535])
def test_more_classes_are_rejected_where_the_table_is_made(count):
    with pytest.raises(ValueError, match=f"at most 255 classes .*, got {count}: 'part 255'"):
        table(*(f"part {i}" for i in range(count)))


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
        (
            {"name": "road", "is_thing": 1, "color": [1, 2, 3]},
            "is_thing: expected true or false, got 1",
        ),
        ({"name": "road", "is_thing": True, "color": 5}, "color: expected three values .*, got 5"),
        ({"name": "road", "is_thing": True, "color": [1, 2, 256]}, "color: expected three values"),
        ({"name": "road", "is_thing": True, "color": [1, 2, True]}, "color: expected three values"),
        ({"name": "road", "is_thing": True, "color": [1, 2, 0.5]}, "color: expected three values"),
    ],
)
def test_unusable_rows_are_named(row, message):
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
