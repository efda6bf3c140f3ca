"""The networks of task semantic: class kernels on PSPNet's and DeepLabv3+'s decoders, or others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small_version
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from video_knet_core.config import BackboneConfig, NeckConfig
from video_knet_core.model.kernels import assemble_group_features
from video_knet_core.model.neck import POOLS, adaptive_average
from video_knet_core.model.precision import with_half_maps
from video_knet_core.model.video_knet import VideoKNet

CLASSES, CHANNELS = 11, 32
STRIDES = {"pspnet": 8, "deeplabv3plus": 4, "lean": 4, "semantic_fpn": 8}


def build(kind: str = "pspnet", **kernels: object) -> VideoKNet:
    """A small network of the street with random weights."""
    if kind in ("pspnet", "deeplabv3plus"):
        return small_version(f"street_{kind}_lite0", **kernels)
    config = small_version("street_pspnet_lite0", **kernels).config
    torch.manual_seed(0)
    return VideoKNet(
        replace(config, backbone=BackboneConfig(), neck=NeckConfig(kind, CHANNELS))
    ).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255


@pytest.mark.parametrize(("kind", "stride"), STRIDES.items())
@torch.no_grad()
def test_each_class_is_a_kernel_and_nothing_else_is(kind, stride, image):
    network = build(kind)
    prediction, state = network(image)
    assert prediction.mask_logits.shape == (2, CLASSES, 64 // stride, 96 // stride)
    assert prediction.head.semantic_logits.shape == prediction.mask_logits.shape
    assert prediction.kernels.shape == state.kernels.shape == (2, CLASSES, CHANNELS)
    assert prediction.embeddings.shape == (2, 0, CHANNELS)
    assert [stage.class_logits for stage in prediction.stages] == [None, None]
    assert not [key for key in network.state_dict() if "class_head" in key]


@torch.no_grad()
def test_without_stages_the_network_is_its_head(image):
    whole, plain = build(stages=2), build(stages=0)
    plain.load_state_dict({k: v for k, v in whole.state_dict().items() if "stages" not in k})
    expected = whole(image)[0].head
    prediction, state = plain(image)
    assert prediction.stages == ()
    assert torch.equal(prediction.mask_logits, expected.mask_logits)
    rows = plain.head.classifier.weight[:, :, 0, 0]
    assert all(torch.equal(kernels, rows) for kernels in (*prediction.kernels, *state.kernels))


@torch.no_grad()
def test_a_plain_decoder_has_no_memory(image):
    network = build(stages=0)
    first, state = network(image)
    assert torch.equal(network(image, state)[0].mask_logits, first.mask_logits)


@pytest.mark.parametrize(
    ("switches", "masks_change", "kernels_change"),
    [
        ({"fusion": "update_dynamic_cov", "linking": "none"}, True, True),
        ({"fusion": "link_atten", "linking": "none"}, True, True),
        ({"fusion": "none", "linking": "ffn"}, True, False),
        ({"fusion": "none", "linking": "update"}, True, False),
        ({"fusion": "none", "linking": "none"}, False, False),
    ],
)
@torch.no_grad()
def test_fusion_and_linking_change_masks_from_the_second_frame_on(
    image, switches, masks_change, kernels_change
):
    """Linked kernels make masks; those that are passed to the next frame are not linked."""
    network = build(**switches)
    first, state = network(image)
    never, _ = network(image, state._replace(valid=torch.tensor([False, False])))
    assert torch.equal(first.mask_logits, never.mask_logits)
    second, _ = network(image, state)
    assert torch.equal(first.mask_logits, second.mask_logits) != masks_change
    assert torch.equal(first.kernels, second.kernels) != kernels_change


@pytest.mark.parametrize("kind", ["pspnet", "deeplabv3plus"])
def test_an_auxiliary_head_gets_the_third_map_in_training_alone(kind, image):
    network = build(kind)
    assert network(image)[0].auxiliary is None
    assert network.train()(image)[0].auxiliary.shape == (2, CLASSES, 8, 12)


def test_other_necks_have_no_auxiliary_head(image):
    network = build("lean").train()
    assert network.auxiliary is None and network(image)[0].auxiliary is None


@pytest.mark.parametrize("kind", ["pspnet", "deeplabv3plus"])
def test_every_parameter_learns(kind, image):
    network = build(kind).train()
    _, state = network(image)
    prediction, _ = network(image, state)
    masks = [stage.mask_logits for stage in prediction.stages]
    parts = [prediction.auxiliary, prediction.head.mask_logits, *masks]
    sum(part.square().mean() for part in parts).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", ["pspnet", "deeplabv3plus"])
def test_one_image_is_too_few_to_learn_from(kind, image):
    with pytest.raises(ValueError, match="more than 1 value"):
        build(kind).train()(image[:1])


# --- parts


@pytest.mark.parametrize("cells", POOLS)
@pytest.mark.parametrize("size", [(60, 107), (36, 60), (7, 5), (12, 6)])
def test_averages_by_matrices_are_adaptive_average_pooling(size, cells):
    maps = torch.randn(2, 3, *size).double()
    expected = adaptive_avg_pool2d(maps, cells)
    torch.testing.assert_close(adaptive_average(maps, cells), expected, rtol=1e-12, atol=1e-12)


def test_averages_of_half_precision_maps_are_added_up_in_float32():
    """65504 is the largest float16, and many numbers of 60000 add up to more."""
    maps = torch.full((1, 1, 128, 256), 60000.0, dtype=torch.float16)
    assert (adaptive_average(maps, 2) == 60000).all()


def test_soft_group_features_are_averages_weighted_by_probability():
    masks, features = torch.randn(2, 5, 6, 8).double() * 3, torch.randn(2, 4, 6, 8).double()
    weights = masks.softmax(1)
    sums = torch.einsum("bnhw,bchw->bnc", weights, features)
    group, weight = assemble_group_features(masks, features, "softmax")
    torch.testing.assert_close(group, sums / weights.sum((2, 3)).clamp(min=1)[..., None])
    torch.testing.assert_close(weight[..., 0], weights.sum((2, 3)).clamp(max=1))


def test_a_class_that_is_nowhere_has_no_group_feature_and_finite_gradients():
    masks = torch.zeros(1, 2, 4, 4)
    masks[:, 1] = -200.0  # its probability is 0 in float32
    masks.requires_grad_()
    features = torch.ones(1, 3, 4, 4, requires_grad=True)
    group, weight = assemble_group_features(masks, features, "softmax")
    assert group[0, 1].tolist() == [0, 0, 0] and weight.flatten().tolist() == [1, 0]
    group.sum().backward()
    assert masks.grad.isfinite().all() and features.grad.isfinite().all()


# --- half precision


@pytest.mark.parametrize("kind", ["pspnet", "deeplabv3plus"])
@torch.no_grad()
def test_a_half_decoder_gives_the_pixels_the_same_classes(kind, image):
    network = build(kind)
    half = with_half_maps(network)
    true, state = network(image)
    found, half_state = half(image)
    assert found.mask_logits.dtype == found.head.features.dtype == torch.float16
    assert half_state.kernels.dtype == torch.float32
    torch.testing.assert_close(half_state.kernels, state.kernels, rtol=0, atol=1e-3)
    same = found.mask_logits.argmax(1) == true.mask_logits.argmax(1)
    assert same.float().mean() > 0.99
    assert half(image, half_state)[0].mask_logits.isfinite().all()
