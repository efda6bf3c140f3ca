"""The weights that a run starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import CONFIGS, small_network
from training_runs import (
    small_model,
)

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import ConfigError, load_yaml
from video_knet_core.model.checkpoint import load_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training.initial_weights import (
    start_from,
    with_classes_of,
)
from video_knet_core.types import ClassInfo, ClassTable


def test_weights_of_other_classes_are_taken_by_name():
    table = ClassTable(
        tuple(
            ClassInfo(i, name, False, (0, 0, 0)) for i, name in enumerate(("Sky", "river", "road"))
        )
    )
    start = small_network()
    model = VideoKNet(replace(small_model("instance"), classes=small_model("instance").classes))
    state = with_classes_of(model, start)
    rows = start.head.classifier.weight[:3]
    assert torch.equal(state["head.classifier.weight"], rows), "things are the first rows"
    semantic = VideoKNet(replace(small_model("semantic"), classes=table))
    from_street = with_classes_of(semantic, VideoKNet(small_model("semantic")))
    weight, own = from_street["head.classifier.weight"], semantic.head.classifier.weight
    assert torch.equal(weight[1], own[1]), "no street has a river"
    assert not torch.equal(weight[0], own[0]) and not torch.equal(weight[2], own[2])


@pytest.mark.parametrize(
    "names",
    [("汽车", "行人", "天空", "树"), ("машина", "человек", "небо", "дерево"), tuple("abcd")],
)
def test_names_of_any_script_take_their_own_rows(names):
    """The first two change places, and the last is new."""

    def network(*rows: str) -> VideoKNet:
        classes = (ClassInfo(i, name, False, (0, 0, 0)) for i, name in enumerate(rows))
        return VideoKNet(replace(small_model("semantic"), classes=ClassTable(tuple(classes))))

    start, model = network(*names[:3]), network(names[1], names[0], names[2], names[3])
    taken = with_classes_of(model, start)["head.classifier.weight"]
    old, fresh = start.head.classifier.weight, model.head.classifier.weight
    assert torch.equal(taken[:3], old[[1, 0, 2]]) and torch.equal(taken[3], fresh[3])


def test_an_instance_model_starts_from_the_shipped_one():
    shipped = load_model(CONFIGS.parent / "models" / "street_lite0.safetensors")
    config = load_yaml(ModelConfig, CONFIGS / "models" / "street_instances_lite0.yaml")
    model = VideoKNet(config)
    start_from(model, with_classes_of(model, shipped))
    own, theirs = model.stages[-1].class_head[-1], shipped.stages[-1].class_head[-1]
    assert torch.equal(own.weight, theirs.weight[:3])


def test_parts_that_see_time_may_be_left_out(caplog):
    start = small_network()
    config = start.config
    kernels = replace(config.kernels, fusion="none", linking="none", embedding=False)
    model = VideoKNet(replace(config, kernels=kernels))
    start_from(model, start.state_dict())
    own = start.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    last = config.kernels.stages - 1
    parts = f"embedding, stages.{last}.fusion, stages.{last}.linking"
    assert f"init: the model has no {parts}; their weights" in caplog.text
    with pytest.raises(ConfigError, match="no place for novelty"):
        start_from(model, start.state_dict() | {"novelty": torch.zeros(1)})
