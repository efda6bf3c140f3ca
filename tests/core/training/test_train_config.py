"""Settings of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import CONFIGS

from video_knet_core.config_io import ConfigError, from_dict, load_yaml
from video_knet_core.data.pairs import CropRange
from video_knet_core.training.optimization import set_rate
from video_knet_core.training.train_config import (
    DataConfig,
    TrainConfig,
)

CUSTOM = {"dataset": "custom", "path": "mine", "split": "val"}


def data(*clips: dict, **settings) -> DataConfig:
    return from_dict(DataConfig, {"clips": list(clips), **settings})


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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ema_decay", 1.0),
        ("schedule", "linear"),
        ("precision", "half"),
        ("targets", "all"),
        ("seed", 2**31),
        ("accumulate", 0),
        ("height", 100),
    ],
)
def test_a_run_that_cannot_be(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: expected .*, got {value!r}"):
        TrainConfig("model.yaml", **{key: value})


@pytest.mark.parametrize(
    ("key", "value"), [("frames", 3), ("train", "temporal"), ("memory_drop", 0.1), ("spoilt", 0.5)]
)
def test_single_images_have_no_settings_of_clips(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: expected .* without video, got {value!r}"):
        TrainConfig("model.yaml", video=False, **{key: value})
    assert getattr(TrainConfig("model.yaml", **{key: value}), key) == value


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "train").glob("*.yaml")))
def test_the_shipped_runs_can_draw_their_crops(name):
    path = CONFIGS / "train" / f"{name}.yaml"
    config = load_yaml(TrainConfig, path)
    assert len(config.load_model_config(path).classes) > 1
    rng = np.random.default_rng(0)
    for clip in config.data.clips:
        crop = CropRange(clip.scale, clip.aspect)
        for _ in range(50):
            matrix = crop.draw(rng, (375, 1242), config.height, config.width)
            assert np.isfinite(matrix).all()


def test_a_smaller_source_keeps_its_shape_in_the_crops_corner():
    crop = CropRange((0.5, 0.5), (1.0, 1.0))
    for seed in range(4):
        matrix = crop.draw(np.random.default_rng(seed), (100, 400), 120, 400)
        assert abs(matrix[0, 0]) == pytest.approx(0.5)
        assert matrix[1, 1] == pytest.approx(0.5)
        assert (matrix[0, 2], matrix[1, 2]) in ((0, 0), (399, 0))


@pytest.mark.parametrize(
    ("step", "schedule", "rate"),
    [(0, "step", 0.25), (4, "step", 1.0), (6, "step", 0.1), (9, "step", 0.01), (0, "cosine", 0.25)],
)
def test_the_rate_over_a_run(step, schedule, rate):
    config = TrainConfig(
        "model.yaml", steps=10, warmup_steps=4, schedule=schedule, milestones=(0.6, 0.9)
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    optimizer.param_groups[0]["base_lr"] = 2.0
    set_rate(optimizer, config, step)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * rate)
