from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from golden import small_config as reference_config
from networks import small_config, small_network, small_version
from torch import Tensor
from torch.nn.functional import interpolate

from video_knet_core.config import BackboneConfig, NeckConfig
from video_knet_core.config_io import ConfigError
from video_knet_core.model.backbone import build_backbone
from video_knet_core.model.kernels import (
    PreviousKernels,
    apply_kernels,
    assemble_group_features,
)
from video_knet_core.model.precision import with_half_maps
from video_knet_core.model.video_knet import VideoKNet

THINGS, STUFF, CHANNELS = 6, 8, 32


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255


@torch.no_grad()
def test_outputs_have_the_shapes_of_the_contract(image):
    prediction, state = small_network()(image)
    assert prediction.class_logits.shape == (2, THINGS + STUFF, 11)
    assert prediction.mask_logits.shape == (2, THINGS + STUFF, 16, 24)
    assert prediction.embeddings.shape == (2, THINGS, CHANNELS)
    assert prediction.head.semantic_logits.shape == (2, 11, 16, 24)
    assert len(prediction.stages) == 3
    assert torch.equal(state.kernels, prediction.kernels)
    assert state.valid.all()


@torch.no_grad()
def test_detail_refines_the_last_masks_at_stride_4(image):
    """Before training it adds nothing: the masks are those of stride 8, enlarged."""
    config = small_config()
    kernels, neck = replace(config.kernels, detail=8), NeckConfig("lean", 32, stride=8)
    network = VideoKNet(replace(config, kernels=kernels, neck=neck)).eval()
    _, state = network(image)
    before, _ = network(image.flip(3), state)
    assert before.stages[-2].mask_logits.shape == (2, THINGS + STUFF, 8, 12)
    assert before.mask_logits.shape == (2, THINGS + STUFF, 16, 24)
    last = network.stages[-1]
    head, last.detail_head = last.detail_head, None
    coarse, _ = network(image.flip(3), state)
    enlarged = interpolate(coarse.mask_logits, size=(16, 24), mode="bilinear")
    torch.testing.assert_close(before.mask_logits, enlarged)
    last.detail_head = head
    torch.nn.init.ones_(head.weight)
    after, _ = network(image.flip(3), state)
    assert not torch.equal(after.mask_logits, before.mask_logits)
    assert torch.equal(after.kernels, before.kernels)


def test_detail_is_for_a_neck_of_stride_8():
    with pytest.raises(ConfigError, match=r"kernels\.detail"):
        small_config(detail=8)


@pytest.mark.parametrize(
    ("name", "classes"), [("street_instances_lite0", 3), ("youtube_vis_r50", 40)]
)
@torch.no_grad()
def test_a_network_of_instances_has_thing_kernels_alone(image, name, classes):
    network = small_version(name)
    _, state = network(image)
    for model in (network, with_half_maps(network)):
        prediction, _ = model(image.flip(3), state)
        stride = network.config.neck.map_stride
        assert prediction.class_logits.shape == (2, 10, classes)
        assert prediction.mask_logits.shape == (2, 10, 64 // stride, 96 // stride)
        assert prediction.embeddings.shape == (2, 10, CHANNELS)
        assert prediction.head.semantic_logits.shape[1] == classes
        assert prediction.class_logits.isfinite().all()
    assert state.kernels.shape == (2, 10, CHANNELS)


def built(kind: str) -> VideoKNet:
    """A small street model, with seeds or without, of another task, or of the authors' layers."""
    if kind in ("instances", "pspnet", "deeplabv3plus"):
        return small_version(f"street_{kind}_lite0")
    if kind != "reference":
        return small_network(seeds=kind == "street")
    torch.manual_seed(0)
    return VideoKNet(reference_config(fusion="link_atten")).eval()


@pytest.fixture(params=["street", "unseeded", "reference", "instances", "pspnet", "deeplabv3plus"])
def network(request) -> VideoKNet:
    """Of each kind, with random weights."""
    return built(request.param)


@torch.no_grad()
def test_a_batch_of_two_videos_equals_two_single_ones(image, network):
    _, state = network(image)
    both, _ = network(image.flip(3), state)
    for i in range(2):
        _, alone = network(image[i : i + 1])
        single, _ = network(image[i : i + 1].flip(3), alone)
        for name in ("kernels", "mask_logits", "embeddings"):
            close(getattr(both, name)[i], getattr(single, name)[0])


@torch.no_grad()
def test_a_first_frame_ignores_the_previous_kernels(image, network):
    first, state = network(image)
    rubbish = PreviousKernels(torch.full_like(state.kernels, 7.0), torch.tensor([False, False]))
    masked, _ = network(image, rubbish)
    close(first.mask_logits, masked.mask_logits)
    close(first.embeddings, masked.embeddings)


@pytest.mark.parametrize(
    ("switches", "masks_change", "embeddings_change"),
    [
        ({"fusion": "update_dynamic_cov", "linking": "ffn"}, True, True),
        ({"fusion": "none", "linking": "update"}, False, True),
        ({"fusion": "link_atten", "linking": "none"}, True, True),
        ({"fusion": "none", "linking": "none"}, False, False),
    ],
)
@torch.no_grad()
def test_fusion_changes_masks_and_linking_only_embeddings(
    image, switches, masks_change, embeddings_change
):
    network = small_network(seeds=False, **switches)
    first, state = network(image)
    second, _ = network(image, state)
    assert torch.equal(first.mask_logits, second.mask_logits) != masks_change
    assert torch.equal(first.embeddings, second.embeddings) != embeddings_change


@torch.no_grad()
def test_without_embedding_layers_the_kernels_are_the_embeddings(image):
    prediction, _ = small_network(embedding=False, linking="none")(image)
    assert torch.equal(prediction.embeddings, prediction.kernels[:, :THINGS])


@pytest.mark.parametrize("kind", ["unseeded", "reference"])
@torch.no_grad()
def test_permuting_thing_kernels_permutes_the_segments(image, kind):
    network = built(kind)
    before, _ = network(image)
    things = network.thing_kernels
    order = torch.randperm(things, generator=torch.Generator().manual_seed(2))
    network.head.thing_kernels.copy_(network.head.thing_kernels[order])
    if network.head.thing_places is not None:
        network.head.thing_places.copy_(network.head.thing_places[order])
    after, _ = network(image)
    close(after.mask_logits[:, :things], before.mask_logits[:, order])
    close(after.mask_logits[:, things:], before.mask_logits[:, things:])
    close(after.embeddings, before.embeddings[:, order])


@pytest.mark.parametrize("pooling", ["mean", "sum", "softmax"])
@torch.no_grad()
def test_the_folded_feature_transform_equals_the_plain_one(pooling):
    """The stage as the paper writes it: transform the features, then pool and multiply."""
    network = small_network(position=False, centers=False, seeds=False)
    stage, count = network.stages[0].double(), THINGS + STUFF
    stage.pooling = pooling
    features, masks = torch.randn(1, 32, 8, 8).double(), torch.randn(1, count, 8, 8).double()
    start = torch.randn(1, count, 32).double()
    out = stage(features, start, masks)
    transformed = stage.feature_transform(features.movedim(1, -1)).movedim(-1, 1)
    group, _ = assemble_group_features(masks, transformed, pooling)
    updated = stage.update(group.double(), start)
    updated = stage.interaction(updated, updated)
    close(out.kernels, updated)
    close(out.mask_logits, apply_kernels(stage.mask_head(updated), transformed))


@torch.no_grad()
def test_masks_of_an_image_that_32_does_not_divide_are_of_the_padded_size(network):
    image = torch.rand(1, 3, 50, 90) * 255
    stride = network.config.neck.map_stride
    assert network(image)[0].mask_logits.shape[-2:] == (64 // stride, 96 // stride)


def test_swin_b_gives_a_pyramid_as_the_others_do():
    with torch.device("meta"):  # 87 M parameters: shapes are enough
        backbone = build_backbone(BackboneConfig("swin_b"))
        pyramid = backbone(torch.zeros(1, 3, 64, 96))
        backbone.freeze(1)
    sizes = [(c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(level.shape[1:]) for level in pyramid] == sizes
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert not any("embeddings" in n or "layers.0" in n for n in trained)
    assert all(any(f"layers.{i}" in n for n in trained) for i in (1, 2, 3))


def test_a_missing_transformers_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"swin_b needs transformers: pip install"):
        build_backbone(BackboneConfig("swin_b"))


def test_a_frozen_resnet_keeps_its_stem_and_first_stage_and_every_running_mean():
    backbone = build_backbone(BackboneConfig("resnet50", width=8)).train()
    backbone.freeze(1)
    frozen = {n.split(".")[0] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    before = backbone.layer4[2].bn3.running_mean.clone()
    backbone(torch.rand(2, 3, 64, 64))
    assert torch.equal(backbone.layer4[2].bn3.running_mean, before)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_lean_neck_at_stride_8_gives_maps_half_as_large():
    config = small_config()
    coarse = VideoKNet(replace(config, neck=replace(config.neck, stride=8))).eval()
    assert coarse(torch.zeros(1, 3, 64, 96))[0].mask_logits.shape[-2:] == (8, 12)
    with pytest.raises(ConfigError, match="stride: expected 4 or 8, got 16"):
        replace(config.neck, stride=16)


@torch.no_grad()
def test_a_resnet_50_with_all_three_additions_has_temporal_context_in_masks_and_embeddings(image):
    network = small_version("kitti_step_fusion_r50")
    first, state = network(image)
    later, _ = network(image, state)
    assert not torch.equal(first.mask_logits, later.mask_logits), "fusion changes masks"
    assert not torch.equal(first.embeddings, later.embeddings), "linking changes embeddings"
    without = small_version("kitti_step_r50")
    assert torch.equal(without(image)[0].mask_logits, without(image, state)[0].mask_logits)
