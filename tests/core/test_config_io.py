"""Configurations from YAML: what cannot be used is a ConfigError that names the key."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import ConfigError, from_dict, load_yaml, to_dict
from video_knet_core.tracking.embedding import EmbeddingSettings
from video_knet_core.training.train_config import ClipConfig, TrainConfig

ROWS = [
    {"name": "road", "is_thing": False, "color": [1, 2, 3]},
    {"name": "car", "is_thing": True, "color": [4, 5, 6]},
]
COMPLETE = {
    ModelConfig: {"classes": ROWS},
    TrainConfig: {"model": "model.yaml"},
    ClipConfig: {"dataset": "custom", "path": "mine"},
    EmbeddingSettings: {},
}


@pytest.mark.parametrize("kind", COMPLETE)
def test_plain_data_and_back(kind):
    config = from_dict(kind, COMPLETE[kind])
    assert from_dict(kind, to_dict(config)) == config


# --- what cannot be used is named ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "change", "key"),
    [
        (ModelConfig, {"classes": 5}, "classes"),
        (ModelConfig, {"height": "high"}, "height"),
        (ModelConfig, {"kernels": []}, "kernels"),
        (ModelConfig, {"kernels": {"stages": -1}}, "kernels.stages"),
        (ModelConfig, {"kernels": {"feedforward": 10**400}}, "kernels.feedforward"),
        (ModelConfig, {"panoptic": {"upsample": True}}, "panoptic.upsample"),
        (TrainConfig, {"learning_rate": math.inf}, "learning_rate"),
        (TrainConfig, {"learning_rate": "1e-3"}, "learning_rate"),
        (TrainConfig, {"clip_norm": 0}, "clip_norm"),
        (TrainConfig, {"milestones": [math.nan]}, "milestones"),
        (TrainConfig, {"steps": 10**30}, "steps"),
        (TrainConfig, {"model": "a\0b"}, "model"),
        (TrainConfig, {"losses": {"balance": 1.5}}, "losses.balance"),
        (TrainConfig, {"data": {"synthetic_seeds": 2_000_000}}, "data.synthetic_seeds"),
        (TrainConfig, {"data": {"clips": [{"dataset": "custom"}]}}, "data.clips"),
        (TrainConfig, {"validation": {"every": -1}}, "validation.every"),
        (EmbeddingSettings, {"max_coast_s": math.inf}, "max_coast_s"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_key(kind, change, key):
    with pytest.raises(ConfigError) as error:
        from_dict(kind, COMPLETE[kind] | change)
    assert str(error.value).startswith((key, f"{key}:"))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("kind", "change", "nearest"),
    [
        (ModelConfig, {"heights": 64}, "'heights'; did you mean 'height'?"),
        (ModelConfig, {"kernels": {"stage": 2}}, "'kernels.stage'; did you mean 'stages'?"),
        (TrainConfig, {"step": 2}, "'step'; did you mean 'steps'?"),
        (TrainConfig, {"validation": {"clip": 2}}, "'validation.clip'; did you mean 'clips'?"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(kind, change, nearest):
    with pytest.raises(ConfigError) as error:
        from_dict(kind, COMPLETE[kind] | change)
    assert nearest in str(error.value)


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, ClipConfig])
def test_a_missing_key_is_named(kind):
    for key in COMPLETE[kind]:
        rest = {k: v for k, v in COMPLETE[kind].items() if k != key}
        with pytest.raises(ConfigError, match=f"expected the key '{key}'"):
            from_dict(kind, rest)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: 2020-13-01", "a: !!int x", "a: !!bool x", "a: !!float x", "a: !!timestamp x"]
    + ["a: !!python/object:os.system {}", "\x00", "{[a]: b}", "[" * 5000, "&a [*a]", "", "5"],
    ids=repr,
)
def test_a_file_that_is_no_configuration_is_named(text, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_yaml(TrainConfig, path)
    assert str(path) in str(error.value)


def test_a_key_that_is_there_twice_is_named(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("model: a.yaml\nlosses:\n  rank: 1.0\n  track: 2.0\n  rank: 3.0\n")
    with pytest.raises(ConfigError, match="train.yaml: .*line 3.*'rank'"):
        load_yaml(TrainConfig, path)


def test_a_merged_key_may_be_given_anew(tmp_path):
    path = tmp_path / "tracking.yaml"
    path.write_text("<<: {birth_score: 0.1}\nbirth_score: 0.2\n")
    assert load_yaml(EmbeddingSettings, path).birth_score == 0.2


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("model: Straße.yaml".encode("latin-1"))
    others = (tmp_path / name for name in ("none.yaml", "a\0b", "n" * 300))
    for path in (tmp_path, latin, *others):
        with pytest.raises(ConfigError) as error:
            load_yaml(TrainConfig, path)
        assert str(path) in str(error.value) or repr(str(path)) in str(error.value)


# --- anything at all -----------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(), st.integers(), st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, -0.0])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5) | NUMBERS, inner)
    ),
    max_leaves=6,
)


def keys_of(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def changed(data: dict, path: list[str], value: object) -> dict:
    """A copy of `data` with `value` at the end of a path of keys."""
    key, *rest = path
    inner = data.get(key)
    return data | {key: changed(inner, rest, value) if rest and isinstance(inner, dict) else value}


@st.composite
def configurations(draw: st.DrawFn) -> tuple[type, dict]:
    """A complete configuration in which some values, at any depth, are something else."""
    kind = draw(st.sampled_from(list(COMPLETE)))
    data = to_dict(from_dict(kind, COMPLETE[kind]))
    for _ in range(draw(st.integers(1, 3))):
        path, inner = [], data
        while isinstance(inner, dict) and inner and (not path or draw(st.booleans())):
            path.append(draw(st.sampled_from([*inner, *keys_of(kind)])))
            inner = inner.get(path[-1])
        data = changed(data, path, draw(VALUES))
    return kind, data


@settings(max_examples=300)
@given(configurations())
def test_any_change_gives_a_configuration_or_a_config_error(changed_one):
    kind, data = changed_one
    try:
        config = from_dict(kind, data)
    except ConfigError as error:
        assert len(str(error)) < 2000
    else:
        assert from_dict(kind, to_dict(config)) == config


@settings(max_examples=300)
@given(VALUES, st.sampled_from(list(COMPLETE)))
def test_any_plain_data_gives_a_configuration_or_a_config_error(data, kind):
    with suppress(ConfigError):
        from_dict(kind, data)


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=60), VALUES.map(yaml.safe_dump), st.binary(max_size=60)))
def test_any_file_gives_a_configuration_or_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with suppress(ConfigError):
        load_yaml(EmbeddingSettings, path)
