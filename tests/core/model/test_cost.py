"""What a network costs, against numbers measured on the authors' own code and published ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from golden import official_config, official_shapes
from networks import small_config, small_network
from torch import nn

from video_knet_core.config import BackboneConfig, KernelConfig, ModelConfig, NeckConfig
from video_knet_core.model.cost import model_cost
from video_knet_core.model.kernels import PreviousKernels
from video_knet_core.model.official import translate
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.types import ClassTable

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def official():
    """Part -> cost of the published KITTI-STEP model at 384 x 1248."""
    return {row.part: row for row in model_cost(official_config(), 384, 1248)}


def test_the_rows_are_the_parts_in_order_and_their_sum(official):
    assert list(official) == [
        *("backbone", "neck (feature pyramid)", "neck (towers)", "kernel head"),
        *("stage 0", "stage 1", "stage 2", "embedding", "total"),
    ]
    *parts, total = official.values()
    assert total.parameters == sum(row.parameters for row in parts)
    assert total.gflops == pytest.approx(sum(row.gflops for row in parts))


def test_the_map_that_refines_masks_is_a_part():
    config = small_config()
    kernels = replace(config.kernels, detail=8)
    config = replace(config, kernels=kernels, neck=NeckConfig("lean", 32, stride=8))
    *parts, total = model_cost(config, 64, 96)
    assert "detail" in [row.part for row in parts]
    assert total.parameters == sum(row.parameters for row in parts)


def test_parameters_are_the_authors_without_what_they_never_use(official):
    parameters = {k: s for k, s in official_shapes().items() if not k.endswith(BUFFERS)}
    theirs = sum(map(math.prod, parameters.values()))
    assert theirs / 1e6 == pytest.approx(41.694, abs=5e-4)
    _, unused = translate({k: torch.empty(s, device="meta") for k, s in parameters.items()})
    assert official["total"].parameters + sum(math.prod(parameters[k]) for k in unused) == theirs


@pytest.mark.parametrize(
    ("parts", "multiply_adds"),
    [
        (["backbone"], 39.0),
        (["neck (feature pyramid)"], 27.1),
        (["neck (towers)", "kernel head"], 22.5),
    ],
)
def test_operations_are_those_of_the_authors(official, parts, multiply_adds):
    gflops = sum(official[part].gflops for part in parts)
    assert gflops / 2 == pytest.approx(multiply_adds, rel=0.01)


def test_stages_cost_less_than_the_authors_because_the_features_stay_as_they_are(official):
    """Theirs are 3.5e9 multiply-adds, and that without linking."""
    assert sum(official[f"stage {i}"].gflops for i in range(3)) / 2 < 0.7 * 3.5


def test_linking_costs_in_the_last_stage_alone(official):
    without = {row.part: row for row in model_cost(official_config(linking="none"), 384, 1248)}
    dearer = [p for p in official if official[p].gflops > without[p].gflops]
    assert dearer == ["stage 2", "total"]


def test_a_lean_network_has_one_row_for_its_neck_and_one_for_its_stages():
    rows = model_cost(small_config(), 64, 96)
    names = [row.part for row in rows]
    assert names == ["backbone", "neck", "kernel head", "stages", "embedding", "total"]
    assert rows[-1].gflops == pytest.approx(sum(row.gflops for row in rows[:-1]))


def test_a_network_counts_as_its_configuration_and_stays_as_it_is():
    network = small_network(centers=False, seeds=False).train()
    rows = model_cost(network, 64, 96)
    assert rows == model_cost(network.config, 64, 96)
    assert rows[-1].parameters == sum(p.numel() for p in network.parameters())
    assert network.training and all(p.device.type == "cpu" for p in network.parameters())


def test_what_only_losses_read_is_left_out():
    assert model_cost(small_config(centers=True, seeds=False), 64, 96) == model_cost(
        small_config(centers=False, seeds=False), 64, 96
    )


def test_a_model_without_embedding_pays_nothing_for_it():
    row = model_cost(small_config(embedding=False), 64, 96)[-2]
    assert (row.part, row.parameters, row.gflops) == ("embedding", 0, 0)


def test_an_image_costs_what_its_padded_size_costs():
    assert model_cost(small_config(), 50, 70) == model_cost(small_config(), 64, 96)


def test_two_operations_per_multiply_add_in_a_convolution():
    """Counted by hand from the shapes of a real forward pass."""
    network, operations = small_network(centers=False, seeds=False), []

    def count(layer, inputs, output):
        kernel = math.prod(layer.weight.shape[1:])  # inputs per group x height x width
        operations.append(2 * kernel * output.numel())

    for layer in network.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    previous = PreviousKernels(torch.zeros(1, 14, 32), torch.ones(1, dtype=torch.bool))
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 96), previous)
    assert model_cost(network, 64, 96)[0].gflops == pytest.approx(sum(operations) / 1e9)


# --- the decoders of semantic segmentation


def decoder(neck: str, backbone: str, classes: int) -> ModelConfig:
    """PSPNet or DeepLabv3+ as published: 512 channels, deep stem, no kernels but the classifier."""
    rows = [{"name": f"{i}", "is_thing": False, "color": [i, i, i]} for i in range(classes)]
    return ModelConfig(
        ClassTable.from_rows(rows),
        task="semantic",
        backbone=BackboneConfig(backbone, output_stride=8, deep_stem=True),
        neck=NeckConfig(neck, channels=512),
        kernels=KernelConfig(things=0, stages=0, pooling="softmax", embedding=False),
    )


@pytest.mark.parametrize(
    ("neck", "classes", "size", "parameters", "multiply_adds"),
    [
        ("pyramid_pooling", 150, (512, 512), 68.1, 256.4),
        ("pyramid_pooling", 19, (1024, 2048), 68.0, 2048.9),
        ("atrous_pyramid", 150, (512, 512), 62.7, 255.1),
        ("atrous_pyramid", 19, (1024, 2048), 62.6, 2032.3),
    ],
)
def test_decoders_on_a_resnet_101_cost_what_is_published(
    neck, classes, size, parameters, multiply_adds
):
    """Xie et al., "SegFormer", 2021, table 2, which gives the parameters for ADE20K (150 classes)
    alone. They count those of the auxiliary head, and 1e9 multiply-adds as a GFLOP."""
    config = decoder(neck, "resnet101", classes)
    total = model_cost(config, *size)[-1]
    with torch.device("meta"):
        auxiliary = VideoKNet(config).auxiliary
    learning = total.parameters + sum(p.numel() for p in auxiliary.parameters())
    assert round(learning / 1e6, 1) == parameters
    assert total.gflops / 2 == pytest.approx(multiply_adds, rel=0.002)


def test_pspnet_on_a_resnet_50_costs_what_openvino_counts():
    """`pspnet-pytorch` of the Open Model Zoo, MMSegmentation's for Pascal VOC at 512 x 512: 46.5827
    M numbers where a batch norm is one bias for each channel, 357.1719 GFLOPs with activations."""
    config = decoder("pyramid_pooling", "resnet50", 21)
    total = model_cost(config, 512, 512)[-1]
    with torch.device("meta"):
        network = VideoKNet(config)
    network.auxiliary = None
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    scales = sum(norm.num_features for norm in norms)
    assert (total.parameters - scales) / 1e6 == pytest.approx(46.5827, abs=1e-4)
    assert total.gflops == pytest.approx(357.1719, rel=0.001)


def test_a_plain_decoder_pays_for_its_classifier_but_for_no_stages():
    rows = {row.part: row for row in model_cost(decoder("pyramid_pooling", "resnet50", 21), 64, 64)}
    assert rows["kernel head"].parameters == 21 * 513
    assert rows["kernel head"].gflops == pytest.approx(2 * 21 * 512 * 8 * 8 / 1e9)
    assert rows["stages"].parameters == rows["stages"].gflops == 0
