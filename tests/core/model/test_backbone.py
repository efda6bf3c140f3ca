"""Dilated backbones, which decoders of semantic segmentation stand on, and the deep stem."""

from __future__ import annotations

import pytest
import torch

from video_knet_core.config import BackboneConfig
from video_knet_core.model.backbone import Backbone, build_backbone
from video_knet_core.model.official import translate

CONFIGS = {
    "resnet50": {"name": "resnet50", "width": 8},
    "efficientnet_lite0": {"name": "efficientnet_lite0"},
}


def build(name: str, **settings: object) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(BackboneConfig(**CONFIGS[name] | settings)).eval()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_dilated_backbone_equals_the_strided_one_where_that_has_cells(name):
    """With the same weights: its cells lie closer, but each has the same receptive field."""
    strided, dilated = build(name), build(name, output_stride=8)
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 64, 96)
    coarse, fine = strided(image), dilated(image)
    assert [tuple(x.shape[2:]) for x in fine] == [(16, 24), (8, 12), (8, 12), (8, 12)]
    for level, step in zip(range(4), (1, 1, 2, 4), strict=True):
        torch.testing.assert_close(fine[level][..., ::step, ::step], coarse[level])


def test_lite0_takes_its_imagenet_weights_whatever_its_output_stride():
    networks = [build("efficientnet_lite0", output_stride=stride) for stride in (8, 32)]
    for network in networks:
        network.load_imagenet()
    dilated, strided = (network.state_dict() for network in networks)
    assert all(torch.equal(dilated[key], strided[key]) for key in strided)


@torch.no_grad()
def test_a_deep_stem_is_three_convolutions_that_freeze_with_the_first_stage():
    backbone = build("resnet50", deep_stem=True)
    convolutions = [m for m in backbone.stem if isinstance(m, torch.nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convolutions] == [(4, 2), (4, 1), (8, 1)]
    assert [tuple(x.shape[2:]) for x in backbone(torch.zeros(1, 3, 64, 96))][0] == (16, 24)
    backbone.freeze(1)
    frozen = {n.split(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "layer1"}


def test_weights_of_a_resnet_with_a_deep_stem_have_their_places():
    """MMSegmentation's `ResNetV1c`, a classifier of images."""
    backbone = build("resnet50", deep_stem=True)
    state = dict(backbone.state_dict()) | {"fc.weight": torch.zeros(1000, 256)}
    ours, unused = translate(state)
    assert ours.keys() == {f"backbone.{key}" for key in backbone.state_dict()}
    assert unused == ["fc.weight"]


@torch.no_grad()
def test_lite0_with_fewer_blocks_takes_the_weights_of_those_that_it_has():
    whole, cut = (
        build("efficientnet_lite0"),
        build("efficientnet_lite0", blocks=(1, 1, 2, 3, 3, 4, 0)),
    )
    for network in (whole, cut):
        network.load_imagenet()
    assert cut.channels == (24, 40, 112, 192)
    inner = whole._blocks
    expected = torch.nn.Sequential(*(inner[i] for i in (0, 1, 3, 4)))
    stem = torch.nn.functional.relu6(
        whole._bn0(whole._conv_stem(image := torch.randn(1, 3, 64, 96)))
    )
    torch.testing.assert_close(cut(image)[1], expected(stem))
    cut.freeze(2)
    frozen = [i for i, block in enumerate(cut._blocks) if not block._bn1.training]
    assert len(cut._blocks) == 14 and not cut.training and frozen == list(range(14))
    cut.train()
    cut.freeze(2)
    assert [i for i, block in enumerate(cut._blocks) if not block._bn1.training] == [0, 1]
