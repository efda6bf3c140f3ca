"""What a training run takes its pairs from."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_fixtures import FIXTURES
from networks import small_config

from video_knet_core.config import ConfigError, from_dict
from video_knet_core.data.clip_pairs import ClipPairs
from video_knet_core.data.street_pairs import StreetPairs
from video_knet_core.data.video import DatasetError
from video_knet_core.training.batches import PairDataset
from video_knet_core.training.settings import DataConfig, TrainConfig, open_sources

OWN = {"dataset": "own", "path": "mine", "split": "val"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    FIXTURES["own"].write(root / "mine")
    return root


def data(*clips: dict, **settings) -> DataConfig:
    return from_dict(DataConfig, {"clips": list(clips), **settings})


def test_a_data_set_alone(root, tmp_path):
    sources = open_sources(data(OWN), small_config(), root, tmp_path)
    assert [(share, type(source)) for share, source in sources] == [(1.0, ClipPairs)]


def test_what_clips_leave_is_shared_by_stills_and_streets(root, tmp_path):
    config = data({**OWN, "share": 0.75}, copy_paste_share=0.0)
    sources = open_sources(config, small_config(), root, tmp_path)
    assert [(share, type(source)) for share, source in sources] == [
        (0.75, ClipPairs),
        (0.25, StreetPairs),
    ]


def test_a_run_draws_labelled_samples_from_it(root, tmp_path):
    clips = data({**OWN, "offsets": [-1], "scale": [1.0, 1.2]})
    settings = TrainConfig("model.yaml", steps=2, batch=1, height=64, width=96, data=clips)
    model = small_config()
    dataset = PairDataset(open_sources(clips, model, root, tmp_path), model.classes, settings)
    images, (key, reference) = dataset[1]
    assert images.shape == (2, 3, 64, 96)
    assert key.masks.shape[1:] == reference.owners.shape == (16, 24)
    assert np.array_equal(images, dataset[1][0])


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([{**OWN, "share": 0.0}], "share must be above 0, up to 1, found 0.0"),
        ([{**OWN, "share": 0.7}] * 2, r"must sum up to at most 1, found \[0.7, 0.7\]"),
        ([{**OWN, "offsets": [0]}], r"offsets must be numbers other than 0, found \[0\]"),
        ([{**OWN, "scale": [2.0, 1.0]}], r"scale must be two rising numbers, found \[2.0, 1.0\]"),
        ([{"path": "mine"}], "dataset"),
    ],
)
def test_settings_that_cannot_be(clips, message):
    with pytest.raises(ConfigError, match=message):
        data(*clips)


def test_a_share_of_stills_that_cannot_be():
    with pytest.raises(ConfigError, match=r"copy_paste_share must lie in 0..1, found 1.5"):
        DataConfig(copy_paste_share=1.5)


def test_a_data_set_with_other_classes_than_the_model(root, tmp_path):
    FIXTURES["kitti_step"].write(root / "kitti")
    clips = data({"dataset": "kitti_step", "path": "kitti", "split": "val"})
    message = r"has 19 classes with things \[11, 13\], the model has 11 with \[8, 9, 10\]"
    with pytest.raises(ConfigError, match=message):
        open_sources(clips, small_config(), root, tmp_path)


def test_a_data_set_that_is_not_there(root, tmp_path):
    with pytest.raises(DatasetError, match="has no split 'train'"):
        open_sources(data({**OWN, "split": "train"}), small_config(), root, tmp_path)


def test_a_data_set_needs_a_root(tmp_path):
    with pytest.raises(ConfigError, match="data.clips: own: a data root is needed"):
        open_sources(data(OWN), small_config(), None, tmp_path)
