"""What a training run takes its pairs from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dataset_fixtures import FIXTURES
from networks import small_config

from synthetic_street.street_pairs import OFFSETS, StreetPairs
from video_knet_core.config_io import ConfigError, from_dict
from video_knet_core.data.clip_pairs import ClipPairs, ImagePairs
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.pairs import CropRange
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import DatasetError
from video_knet_core.training.batches import PairDataset
from video_knet_core.training.sources import open_sources
from video_knet_core.training.train_config import DataConfig, TrainConfig
from video_knet_core.types import ClassTable

CUSTOM = {"dataset": "custom", "path": "mine", "split": "val"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    FIXTURES["custom"].write(root / "mine")
    return root


def data(*clips: dict, **settings) -> DataConfig:
    return from_dict(DataConfig, {"clips": list(clips), **settings})


def test_a_data_set_alone(root, tmp_path):
    sources = open_sources(data(CUSTOM), small_config(), root, tmp_path)
    assert [(share, type(source)) for share, source in sources] == [(1.0, ClipPairs)]


def test_what_clips_leave_is_shared_by_stills_and_streets(root, tmp_path):
    config = data({**CUSTOM, "sampling_weight": 0.75}, copy_paste_weight=0.0)
    sources = open_sources(config, small_config(), root, tmp_path)
    assert [(share, type(source)) for share, source in sources] == [
        (0.75, ClipPairs),
        (0.25, StreetPairs),
    ]


def test_a_run_draws_labelled_samples_from_it(root, tmp_path):
    clips = data({**CUSTOM, "offsets": [-1], "scale": [1.0, 1.2]})
    settings = TrainConfig("model.yaml", steps=2, batch=1, height=64, width=96, data=clips)
    model = small_config()
    dataset = PairDataset(open_sources(clips, model, root, tmp_path), model, settings)
    images, (key, reference) = dataset[1]
    assert images.shape == (2, 3, 64, 96)
    assert key.masks.shape[1:] == reference.owners.shape == (16, 24)
    assert np.array_equal(images, dataset[1][0])


def test_pairs_may_be_asked_to_have_an_object_in_common(root):
    """Crops of a quarter of the width, of which some show no object in both frames."""
    dataset = open_dataset("custom", root / "mine", "val")
    crop = CropRange((4.0, 4.0))
    common = {True: 0, False: 0}
    for tracked in common:
        pairs = ClipPairs(dataset, (1, -1), crop, tracked)
        for seed in range(12):
            pair = pairs.sample(np.random.default_rng(seed), 64, 96)
            common[tracked] += bool(np.intersect1d(*pair.instance).any())
    assert common[False] < common[True] == 12


def test_stills_make_pairs_that_move_a_little(root, tmp_path):
    """A data set of pictures that have nothing to do with each other."""
    sources = open_sources(data({**CUSTOM, "pseudo_video": True}), small_config(), root, tmp_path)
    ((_, source),) = sources
    assert isinstance(source, ImagePairs)
    moved = 0
    for seed in range(6):
        pair = source.sample(np.random.default_rng(seed), 64, 96)
        again = source.sample(np.random.default_rng(seed), 64, 96)
        assert np.array_equal(pair.images, again.images)
        ids = [set(np.unique(instance)) for instance in pair.instance]
        assert ids[0] & ids[1] - {0}, "the same objects are in both"
        moved += not np.array_equal(pair.instance[0], pair.instance[1])
    assert moved


def test_causal_pairs_have_the_later_frame_first(tmp_path):
    """A running camera has seen only what was before."""
    pairs = StreetPairs(1, tmp_path, causal=True)
    clip = [
        StreetFrame(np.full((32, 48, 3), t, np.uint8), *np.zeros((2, 32, 48), np.uint8))
        for t in OFFSETS
    ]
    pairs._clip = lambda seed, moment: clip
    for seed in range(10):
        images = pairs.sample(np.random.default_rng(seed), 32, 48).images
        assert images[0].max() > images[1].max()


def test_runs_may_share_their_drawn_streets(tmp_path):
    config = data(copy_paste_weight=0.0, street_cache=str(tmp_path / "shared"))
    ((_, source),) = open_sources(config, small_config(), None, tmp_path / "out")
    assert source.cache == tmp_path / "shared"
    ((_, source),) = open_sources(
        data(copy_paste_weight=0.0), small_config(), None, tmp_path / "out"
    )
    assert source.cache == tmp_path / "out" / "streets"


@pytest.mark.parametrize(
    ("clips", "key", "got"),
    [
        ([{**CUSTOM, "sampling_weight": 0.0}], "clips.0.sampling_weight", "0.0"),
        ([{**CUSTOM, "sampling_weight": 0.7}] * 2, "clips", "[0.7, 0.7]"),
        ([{**CUSTOM, "offsets": [0]}], "clips.0.offsets", "(0,)"),
        ([{**CUSTOM, "offsets": []}], "clips.0.offsets", "[]"),
        ([{**CUSTOM, "scale": [2.0, 1.0]}], "clips.0.scale", "(2.0, 1.0)"),
        ([{**CUSTOM, "aspect": [0.0, 1.0]}], "clips.0.aspect", "(0.0, 1.0)"),
        ([{**CUSTOM, "aspect": [1.0]}], "clips.0.aspect", ""),
        ([CUSTOM, {"path": "mine"}], "clips.1", ""),
    ],
)
def test_settings_that_cannot_be(clips, key, got):
    with pytest.raises(ConfigError) as error:
        data(*clips)
    assert str(error.value).startswith(key) and str(error.value).endswith(got)


@pytest.mark.parametrize(("key", "value"), [("copy_paste_weight", 1.5), ("max_sprites", -1)])
def test_numbers_out_of_range(key, value):
    with pytest.raises(ConfigError, match=f"{key}: expected .*, got {value}"):
        DataConfig(**{key: value})


def test_a_data_set_with_other_classes_than_the_model(root, tmp_path):
    FIXTURES["kitti_step"].write(root / "kitti")
    clips = data({"dataset": "kitti_step", "path": "kitti", "split": "val"})
    message = r"kitti_step .*: class 3: expected 'fence' \(stuff\), got 'wall' \(stuff\)"
    with pytest.raises(ConfigError, match=message):
        open_sources(clips, small_config(), root, tmp_path)


def test_a_data_set_that_is_not_there(root, tmp_path):
    with pytest.raises(DatasetError, match="the split 'train'"):
        open_sources(data({**CUSTOM, "split": "train"}), small_config(), root, tmp_path)


def test_a_data_set_needs_a_root(tmp_path):
    with pytest.raises(ConfigError, match="data.clips: custom: a data root is needed"):
        open_sources(data(CUSTOM), small_config(), None, tmp_path)


def test_a_data_set_with_the_classes_in_another_order(root, tmp_path):
    """Stuff backwards: as many classes, and the same of them are things."""
    model = small_config()
    rows = model.classes.to_rows()
    model = replace(model, classes=ClassTable.from_rows([*rows[7::-1], *rows[8:]]))
    message = r"custom .*: class 0: expected 'sky' \(stuff\), got 'road' \(stuff\)"
    with pytest.raises(ConfigError, match=message):
        open_sources(data(CUSTOM), model, root, tmp_path)
