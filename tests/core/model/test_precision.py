"""Half precision: maps are float16, kernels float32, and nothing overflows by construction."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from golden import small_config as reference_config
from networks import shrink_swin, small_network, small_version
from onnx import TensorProto
from torch import Tensor, nn

from video_knet_core.model.kernels import assemble_group_features
from video_knet_core.model.precision import with_half_maps
from video_knet_core.model.video_knet import VideoKNet

HALF_UNIT = 2.0**-11
"""Largest relative error of rounding to float16."""


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_group_features_of_a_full_image_are_those_of_float64(pooling):
    """1024 x 2048 at stride 4, every pixel in the mask: 131072 numbers are added up.

    The features are rounded to float16 before either computation, so the error is that of the
    scale alone, which is one rounding.
    """
    generator = torch.Generator().manual_seed(0)
    features = (3 + torch.randn(1, 8, 256, 512, generator=generator)).half()
    masks = torch.full((1, 2, 256, 512), 5.0, dtype=torch.float16)
    masks[:, 1, :128] = -5
    group, weight = assemble_group_features(masks, features, pooling)
    true_group, true_weight = assemble_group_features(masks.double(), features.double(), pooling)
    assert group.dtype == weight.dtype == torch.float32
    assert group.isfinite().all() and weight.isfinite().all()
    for found, true in ((group, true_group), (weight, true_weight)):
        assert ((found - true).abs() <= 1.01 * HALF_UNIT * true.abs()).all()


def test_the_mean_of_a_full_image_of_large_features_does_not_overflow():
    features = torch.full((1, 2, 256, 512), 60000.0, dtype=torch.float16)
    masks = torch.ones(1, 1, 256, 512, dtype=torch.float16)
    group, _ = assemble_group_features(masks, features, "mean")
    torch.testing.assert_close(group, torch.full((1, 1, 2), 60000.0), rtol=1e-3, atol=0)


def build(kind: str) -> VideoKNet:
    torch.manual_seed(0)
    if kind == "reference":
        return VideoKNet(reference_config(fusion="link_atten")).eval()
    if kind == "small":
        return small_network()
    return small_version(kind)


@pytest.fixture(params=["small", "reference", "kitti_step_swin_b", "street"])
def network(request, monkeypatch) -> VideoKNet:
    shrink_swin(monkeypatch)
    return build(request.param)


def image() -> Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 255


@torch.no_grad()
def test_masks_are_half_and_all_that_is_about_kernels_is_not(network):
    half = with_half_maps(network)
    _, state = half(image())
    prediction, state = half(image().flip(3), state)
    assert prediction.mask_logits.dtype == prediction.head.features.dtype == torch.float16
    for tensor in (prediction.class_logits, prediction.embeddings, state.kernels):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()


@torch.no_grad()
def test_a_half_network_agrees_with_the_network(network):
    """On a first frame: classes within 0.05 of a logit, masks change sides in 1 % of the cells."""
    true, half = network(image())[0], with_half_maps(network)(image())[0]
    sides = (true.mask_logits > 0) != (half.mask_logits > 0)
    if network.head.seeds is None:  # else equal cells of random heat may change places
        torch.testing.assert_close(half.class_logits, true.class_logits, rtol=0, atol=0.05)
        assert sides.float().mean() < 0.01
    stuff = slice(network.thing_kernels, None)
    assert sides[:, stuff].float().mean() < 0.01


def test_the_network_itself_stays_as_it_is():
    network = small_network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with_half_maps(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@torch.no_grad()
def test_a_variance_that_no_float16_holds_is_folded_before_rounding():
    network = small_network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1e6)
            module.weight.fill_(1e3)
    half = with_half_maps(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in half.modules())
    true, found = network.backbone(image())[0], half.backbone(image().half())[0]
    assert true.abs().max() > 0.1
    torch.testing.assert_close(found.float(), true, rtol=0.02, atol=0.01 * float(true.abs().max()))


def test_the_mean_of_an_image_is_taken_in_float32():
    """65504 is the largest float16, and 2048 cells of 100 add up to more."""
    neck = with_half_maps(small_network()).neck
    seen = []
    neck.context.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    pyramid = [
        torch.full((1, c, 256 >> i, 512 >> i), 100.0, dtype=torch.float16)
        for i, c in enumerate((24, 40, 112, 320))
    ]
    neck(pyramid)
    mean, context = seen[0]
    assert mean.dtype == context.dtype == torch.float32
    assert (mean == 100).all()


NETWORKS = (
    *("street_lite0", "kitti_step_r50", "kitti_step_swin_b"),
    *("vspw_deeplabv3plus_r101", "youtube_vis_r50"),
)
GATHERING = {
    *("InstanceNormalization", "LayerNormalization", "GroupNormalization"),
    *("ReduceSum", "ReduceMean", "ReduceL2", "GlobalAveragePool", "ReduceProd"),
}
"""Operators that make one number of many."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_whatever_adds_up_many_numbers_of_an_fp16_graph_is_float32(name, exported):
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported(name, "fp16"))).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    found = [n for n in graph.node if n.op_type in GATHERING]
    assert found
    for node in found:
        assert types[node.input[0]] != TensorProto.FLOAT16, (node.op_type, node.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_convolution_of_an_fp16_graph_has_half_weights(name, exported):
    graph = onnx.load(exported(name, "fp16")).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [weights[n.input[1]] for n in graph.node if n.op_type == "Conv"]
    wide = [w for w in convolutions if w.data_type != TensorProto.FLOAT16]
    # that are the last one of the seeds' heat, and the merge's, which draws edges
    expected = [32, 16 * 9] if name == "street_lite0" else []
    assert [np.prod(w.dims[:2]) for w in wide] == expected
    assert len(convolutions) > 20
