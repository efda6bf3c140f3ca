"""VPSNet: its panoptic head and its track loss by hand, what it learns from, and its export."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from deeplab_cases import HEIGHT, MODELS, WIDTH, silent_parameters, small_config, street

from baselines.baseline_config import BaselineConfig
from baselines.vpsnet import (
    IGNORE,
    Objects,
    VpsNet,
    choose,
    labelled,
    merge_panoptic,
    of_class,
    track_loss,
    visible,
)
from synthetic_street import SyntheticStreet
from video_knet_core.engine.export import export_onnx
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.checkpoint import load_network_config
from video_knet_core.model.network import Frames

CONFIG = small_config("vpsnet", score_threshold=0.0)
THINGS, STUFF = len(CONFIG.classes.things), len(CONFIG.classes.stuff)
LOSSES = ("rpn_object", "rpn_box", "class", "box", "mask", "semantic", "panoptic", "track")


@pytest.fixture
def network() -> VpsNet:
    return built(CONFIG)


def built(config: BaselineConfig) -> VpsNet:
    """Random weights, with which boxes, masks and classes differ."""
    torch.manual_seed(0)
    network = VpsNet(config).eval()
    for layer in (network.proposals.logits, network.proposals.codes, network.box_head.logits):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return network


@pytest.fixture(scope="module")
def clip():
    """Images and targets of two pairs: two key frames, and the frames before these."""
    return street(CONFIG, [1, 5, 0, 4])


# --- the panoptic head


def merged(boxes, classes, scores, masks, semantic=None, threshold=0.3):
    """The label map on 8 x 8 cells of 4 pixels; without `semantic` the first stuff class wins."""
    if semantic is None:
        semantic = torch.zeros(THINGS + STUFF, 8, 8)
        semantic[THINGS] = 1
    config = replace(CONFIG, upsample=1, score_threshold=threshold, instances=len(boxes))
    masks = torch.tensor(masks)[:, None, None].expand(-1, 28, 28)
    boxes, scores = torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores)
    return merge_panoptic(semantic, boxes, torch.tensor(classes), scores, masks, config)


def test_of_overlapping_things_the_one_with_the_larger_logit_wins():
    boxes = [[0, 0, 16, 16], [8, 8, 32, 32]]  # they share 2 x 2 cells
    labels, kept = merged(boxes, [0, 1], [0.9, 0.8], [2.0, 3.0])
    expected = torch.full((8, 8), 3)  # the first stuff slot
    expected[:4, :4], expected[2:, 2:] = 1, 2
    assert torch.equal(labels, expected) and kept.all()


def test_the_semantic_logit_of_the_class_counts_in_the_box():
    semantic = torch.zeros(THINGS + STUFF, 8, 8)
    semantic[THINGS], semantic[1] = 4, 2  # mask and class together have 5
    labels, _ = merged([[0, 0, 16, 16]] * 2, [0, 1], [0.9, 0.8], [3.0, 3.0], semantic)
    assert (labels[:4, :4] == 2).all() and (labels[4:] == 3).all()


def test_stuff_wins_where_a_mask_has_none():
    labels, kept = merged([[0, 0, 32, 32]], [0], [0.9], [-2.0])
    assert (labels == 2).all() and kept.all()


def test_things_below_the_score_threshold_are_dropped():
    labels, kept = merged([[0, 0, 16, 16]], [0], [0.2], [5.0])
    assert (labels == 2).all() and not kept.any()


def test_a_thing_that_lies_under_one_of_its_class_is_dropped():
    """Of another class it stays, as do the pixels where it wins."""
    boxes = [[0, 0, 16, 16], [0, 0, 16, 20]]
    for classes, number in (([0, 0], 1), ([0, 1], 2)):
        _, kept = merged(boxes, classes, [0.9, 0.8], [2.0, 3.0])
        assert kept.sum() == number


def test_a_speck_of_stuff_has_the_next_best_class():
    """One of 64 cells is more than a thousandth of the image; one of 64 x 64 is not."""
    for size, label in ((8, 3), (64, 2)):
        semantic = torch.zeros(THINGS + STUFF, size, size)
        semantic[THINGS], semantic[THINGS + 1, 0, 0] = 1, 2
        labels, _ = merged([[0, 0, 4, 4]], [0], [0.0], [0.0], semantic)
        assert labels[0, 0] == label and (labels.flatten()[1:] == 2).all()


def test_only_masks_that_are_kept_hide_others():
    row = torch.zeros(3, 6)
    row[0, :4], row[1, 1:5], row[2, 3:6] = 1, 1, 1  # the second hides half of the third
    assert visible(row, torch.zeros(3, dtype=torch.int64)).tolist() == [1, 0, 1]


def test_each_item_has_the_values_of_its_class():
    values = torch.arange(6).view(3, 2)
    assert of_class(values, torch.tensor([1, 0, 1])).tolist() == [1, 2, 5]


# --- training


def test_the_track_loss_is_a_cross_entropy_with_a_zero_for_new():
    key = torch.tensor([[math.log(3), 0.0], [0.0, 1.0]])
    reference = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 2)
    ids = torch.tensor([[7, 8]] * 2)
    # the first is 7: e^products of 3, 1 and 1; the second is new: 1, e and 1
    expected = (math.log(5 / 3) + math.log(2 + math.e)) / 2
    loss = track_loss(key, torch.tensor([7, 9]), reference, ids)
    assert loss.item() == pytest.approx(expected)


def test_objects_without_identity_are_no_candidates():
    key, reference = torch.ones(1, 1), torch.tensor([[[1.0], [5.0]]])
    loss = track_loss(key, torch.tensor([7]), reference, torch.tensor([[7, -1]]))
    assert loss.item() == pytest.approx(math.log(1 + 1 / math.e))


def test_without_objects_the_track_loss_is_zero():
    nothing = torch.zeros(0, dtype=torch.int64)
    loss = track_loss(torch.zeros(0, 4), nothing, torch.zeros(0, 2, 4), torch.zeros(0, 2).long())
    assert loss.item() == 0


def test_a_choice_has_few_positives_and_is_filled_with_negatives():
    positive = torch.tensor([[True] * 6 + [False] * 14, [False] * 20])
    frames, places, is_positive = choose(positive, ~positive, 8, 4)
    assert frames.tolist() == [0] * 8 + [1] * 8
    assert is_positive.tolist() == [True] * 4 + [False] * 12
    assert torch.equal(positive[frames, places], is_positive)
    assert len(set(places[:8].tolist())) == len(set(places[8:].tolist())) == 8


def test_a_choice_takes_all_there_are():
    frames, places, is_positive = choose(torch.eye(1, 5).bool(), torch.zeros(1, 5).bool(), 4, 2)
    assert (frames.tolist(), places.tolist(), is_positive.tolist()) == ([0], [0], [True])


def test_boxes_are_labelled_where_their_centres_are():
    valid = torch.ones(1, 4, 4)
    valid[:, :, 2:] = 0
    boxes = torch.tensor([[0.0, 0, 8, 8], [6, 0, 12, 8], [0, 0, 99, 99]])
    assert labelled(valid, boxes).tolist() == [[True, False, False]]


def test_padding_is_no_object(clip):
    objects = Objects.of(clip[1])
    assert not objects.present[:, -1].any() and objects.present.any()
    whole = torch.tensor([[0.0, 0, WIDTH, HEIGHT]])
    assert (objects.overlaps(whole)[~objects.present[:, None]] == 0).all()


def test_the_losses_are_finite_and_reach_every_part_of_the_heads(network, clip):
    images, targets = clip
    losses = network.train().losses(network.frames(images), targets, 2)
    assert set(losses) == set(LOSSES)
    assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    first = {"flow.refine.0.weight", "flow.refine.0.bias"}  # before layers that start as zeros
    assert set(silent_parameters(network)) <= first


def test_frames_without_things_can_be_learnt_from(network, clip):
    images, targets = clip
    stuff = targets.stuff
    nothing = targets._replace(
        segments=targets.segments[:, :stuff],
        classes=targets.classes[:, :0],
        ids=targets.ids[:, :0],
        owners=torch.where(targets.owners >= stuff, IGNORE, targets.owners),
    )
    losses = network.train().losses(network.frames(images), nothing, 2)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["track"] == losses["mask"] == losses["box"] == 0


def test_single_frames_can_be_learnt_from(network, clip):
    images, targets = clip
    losses = network.train().losses(network.frames(images), targets, 1)
    assert losses["track"] == 0 and torch.isfinite(sum(losses.values()))


def test_the_oldest_frame_is_fused_with_itself_and_others_with_the_frame_before(network, clip):
    images, _ = clip
    seen = {}
    network.fusion.register_forward_pre_hook(lambda _, inputs: seen.update(maps=inputs[:2]))
    network.losses(network.frames(images), clip[1], 2)
    target, reference = seen["maps"]
    assert torch.equal(reference, target[[2, 3, 2, 3]])


# --- a video


@torch.no_grad()
def test_a_first_frame_is_fused_with_itself(network, clip):
    image = clip[0][:1]
    garbage = {k: torch.randn(1, *s) for k, s in CONFIG.memory_shapes().items()}
    first, memory = network.infer(image, garbage, torch.tensor([False]))
    second, _ = network.infer(image, memory, torch.tensor([True]))
    assert torch.equal(first.segment_map, second.segment_map)
    torch.testing.assert_close(first.embeddings, second.embeddings)


@torch.no_grad()
def test_the_frame_before_matters(network, clip):
    images = clip[0]
    zeros = {k: torch.zeros(1, *s) for k, s in CONFIG.memory_shapes().items()}
    _, memory = network.infer(images[2:3], zeros, torch.tensor([False]))
    alone, _ = network.infer(images[:1], zeros, torch.tensor([False]))
    after, _ = network.infer(images[:1], memory, torch.tensor([True]))
    assert not torch.allclose(alone.embeddings, after.embeddings)


@torch.no_grad()
def test_a_video_is_fused_as_in_training(network, clip):
    """Frame by frame with the memory, or all frames at once."""
    images = clip[0][[0, 2]]
    frames = network.frames(images)
    levels, own = network._gathered(frames)
    together = network._fused(levels, own, {k: x[[1, 1]] for k, x in own.items()})
    level, now = network._gathered(Frames(images[:1], tuple(x[:1] for x in frames.pyramid)))
    alone = network._fused(level, now, {k: x[1:] for k, x in own.items()})
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[:1], b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_an_exported_network_returns_the_same_over_a_video(network, tmp_path):
    export_onnx(network, tmp_path / "vpsnet.onnx", "vpsnet")
    engines = TorchRuntime(network), OnnxRuntime(tmp_path / "vpsnet.onnx")
    states, scene = [None, None], SyntheticStreet(1, HEIGHT, WIDTH)
    for t in range(3):
        results = []
        for k, engine in enumerate(engines):
            detections, states[k] = engine.step(scene.frame(t).image, states[k])
            results.append(detections)
        expected, got = results
        assert (expected.segment_map != got.segment_map).mean() < 0.01
        assert (expected.areas[: CONFIG.instances] > 0).any()
        np.testing.assert_allclose(got.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(got.embeddings, expected.embeddings, atol=1e-2)
        np.testing.assert_allclose(states[1], states[0], atol=1e-2)


@pytest.mark.parametrize("name", ["street_vpsnet", "vpsnet_r50"])
def test_its_configurations_can_be_read(name):
    config = load_network_config(MODELS / f"{name}.yaml")
    assert isinstance(config, BaselineConfig) and config.network == "vpsnet"
    shapes = config.memory_shapes()
    assert shapes["features"] == (config.channels, config.height // 4, config.width // 4)
    assert config.embedding_size == config.channels
