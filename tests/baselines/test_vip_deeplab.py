"""ViP-DeepLab: what it learns of the frame before and of depth, and how it groups pixels to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from deeplab_cases import (
    assert_engines_agree,
    silent_parameters,
    small_config,
    street,
    with_contrast,
)

from baselines.baseline_config import coarsest_channels
from baselines.vip_deeplab import (
    MAX_DEPTH,
    VipDeepLab,
    depth_loss,
    next_offset_loss,
    overlaps_with,
    previous_slots,
)
from synthetic_street import SyntheticStreet
from video_knet_core.config import LITE0_BLOCKS, BackboneConfig
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.backbone import build_backbone
from video_knet_core.training.targets import frame_targets, stack_targets

PERSON, VEHICLE = 8, 10
BLOCKS = (1, 1, 1, 1, 1, 1)


def network(seed: int = 0, **settings) -> VipDeepLab:
    torch.manual_seed(seed)
    return VipDeepLab(small_config("vip_deeplab", **settings))


def seeing(model: VipDeepLab) -> VipDeepLab:
    """With last layers that see something, and no segment dropped."""
    return with_contrast(model)


def with_depth(targets):
    return targets._replace(depth=1 + 50 * torch.rand_like(targets.valid))


# --- training


def test_losses_are_finite_and_reach_every_parameter_on_a_frozen_backbone():
    model = network().train()
    model.backbone.requires_grad_(False)
    images, targets = street(model.config, [1, 0])
    losses = model.losses(model.frames(images), with_depth(targets), 2)
    assert set(losses) == {"semantic", "center", "offset", "depth", "next_offset"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert silent_parameters(model) == []


def test_images_alone_have_no_next_frame():
    model = network().train()
    images, targets = street(model.config, [1, 0])
    assert "next_offset" not in model.losses(model.frames(images), targets, 1)


@torch.no_grad()
def test_each_frame_of_a_clip_is_the_next_of_the_one_before(monkeypatch):
    """Of two clips of three frames, newest first, the branch gets the four newer ones, each with
    the coarsest map of the frame one step older."""
    model = network().eval()
    images, targets = street(model.config, [2, 12, 1, 11, 0, 10])
    frames = model.frames(images)
    given = []

    def next_offsets(pyramid, previous):
        given.append((pyramid[-1], previous))
        return torch.zeros(4, 2, *targets.valid.shape[1:])

    monkeypatch.setattr(model, "next_offsets", next_offsets)
    model.losses(frames, targets, 3)
    ((current, previous),) = given
    assert torch.equal(current, frames.pyramid[-1][:4])
    assert torch.equal(previous, frames.pyramid[-1][2:])


def one_frame(*things):
    """Targets of 8 x 16 cells; things are (id, class, first row, first column), of 2 x 2 cells."""
    semantic, instance = np.zeros((32, 64), np.uint8), np.zeros((32, 64), np.int32)
    for number, class_id, row, column in things:
        box = slice(4 * row, 4 * row + 8), slice(4 * column, 4 * column + 8)
        semantic[box], instance[box] = class_id, number
    classes = small_config("vip_deeplab").classes
    return stack_targets([frame_targets(semantic, instance, classes, 4)])


def test_offsets_point_to_the_centre_in_the_frame_before_worked_out_by_hand():
    """Vehicle 5 moves from column 6 to column 2. Its cells are rows 2, 3 and columns 2, 3, and its
    centre was in row 3, column 7: absolute offsets 6, 5, 5 and 4. What is new counts nothing."""
    newer = one_frame((5, VEHICLE, 2, 2), (6, PERSON, 5, 12))
    older = one_frame((7, VEHICLE, 5, 1), (5, VEHICLE, 2, 6))
    per_cell = 0.01 * 4 * 384 / 32  # the published weight, in cells of an image of 32 rows
    loss = next_offset_loss(torch.zeros(1, 2, 8, 16), newer, older)
    assert loss.item() == pytest.approx(5 * per_cell)
    right = torch.full((1, 2, 8, 16), 99.0)
    right[0, 0, 2:4, 2:4] = torch.tensor([[1.0, 1], [0, 0]])
    right[0, 1, 2:4, 2:4] = torch.tensor([[5.0, 4], [5, 4]])
    assert next_offset_loss(right, newer, older).item() == pytest.approx(0, abs=1e-6)


def test_the_depth_loss_worked_out_by_hand():
    """2 m for 1 m and 8 m for 8 m: log errors ln 2 and 0, relative errors 1 and 0."""
    depth, goals = torch.tensor([[[2.0, 8, 5]]]), torch.tensor([[[1.0, 8, 0]]])
    invariant = math.log(2) ** 2 / 2 - (math.log(2) / 2) ** 2
    assert depth_loss(depth, goals).item() == pytest.approx(invariant + math.sqrt(1 / 2))


def test_a_common_factor_costs_its_relative_error_only():
    goals = torch.tensor([[[1.0, 4, 30]]])
    assert depth_loss(1.5 * goals, goals).item() == pytest.approx(0.5, abs=1e-5)


def test_what_is_too_far_is_learned_as_the_largest_depth():
    far = torch.full((1, 2, 2), 500.0)
    assert depth_loss(torch.full_like(far, MAX_DEPTH), far).item() == pytest.approx(0, abs=1e-5)


def test_without_known_depth_there_is_no_loss_and_a_finite_gradient():
    depth = torch.full((1, 2, 2), 3.0, requires_grad=True)
    loss = depth_loss(depth, torch.zeros(1, 2, 2)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and not depth.grad.any()


# --- one frame after the other


def test_pixels_are_grouped_to_the_slots_of_the_last_frame():
    """Slots 0 and 2 had centres in columns 1 and 6; slot 1, in between, had no segment."""
    centers = torch.tensor([[1.0, 1], [1, 4], [1, 6]])
    offsets = torch.zeros(2, 2, 8)
    offsets[1, :, 7] = -6  # of the last column, that was at the left
    groups = previous_slots(offsets, centers, torch.tensor([1.0, 0, 1]))
    assert groups.tolist() == [[0, 0, 0, 0, 2, 2, 2, 0]] * 2
    assert (previous_slots(offsets, centers, torch.zeros(3)) == -1).all()


def test_overlaps_worked_out_by_hand():
    """Slot 0 has columns 0 to 2 and slot 1 columns 3 and 4; the rest is stuff. Group 1 has columns
    0 and 1, group 0 columns 2 to 4 and what is no thing."""
    segment_map = torch.tensor([[1, 1, 1, 2, 2, 4], [1, 1, 1, 2, 2, 0]])
    groups = torch.tensor([[1, 1, 0, 0, 0, 0]] * 2)
    expected = torch.tensor([[1 / 5, 2 / 3, 0], [2 / 3, 0, 0], [0, 0, 0]])
    torch.testing.assert_close(overlaps_with(segment_map, groups, 3), expected)
    finer = segment_map.repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(overlaps_with(finer, groups, 3), expected)


@torch.no_grad()
def test_a_first_frame_has_no_overlaps_and_a_still_one_those_with_itself(monkeypatch):
    """Where nothing moves, offsets to the centres of the frame before are those to one's own."""
    model = seeing(network(score_threshold=0.0))
    image, _ = street(model.config, [0])
    maps, _ = model.describe(model.frames(image).pyramid)
    monkeypatch.setattr(model, "next_offsets", lambda *_: maps.offsets)
    shapes = model.config.memory_shapes()
    memory = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
    first, memory = model.infer(image, memory, torch.zeros(1, dtype=torch.bool))
    assert not first.embeddings.any()
    second, _ = model.infer(image, memory, torch.ones(1, dtype=torch.bool))
    size = (second.segment_map.flatten()[:, None] == 1 + torch.arange(8)).sum(0)
    large = torch.nonzero(size > 80).flatten()
    assert len(large) > 0
    assert (second.embeddings.argmax(1) == torch.arange(8))[large].all()
    assert (second.embeddings.diagonal()[large] > 0.5).all()
    reset, _ = model.infer(image, memory, torch.zeros(1, dtype=torch.bool))
    assert not reset.embeddings.any(), "what is remembered of another stream"


@torch.no_grad()
def test_memory_survives_the_state_of_an_engine():
    model = network().eval()
    config = model.config
    image, _ = street(config, [0])
    shapes = config.memory_shapes()
    memory = {name: torch.rand(1, *shape) for name, shape in shapes.items()}
    _, memory = model.infer(image, memory, torch.ones(1, dtype=torch.bool))
    assert {name: tuple(part.shape[1:]) for name, part in memory.items()} == shapes
    assert shapes == {"features": (192, 2, 3), "centers": (8, 3)}
    kernels = model.segment_frame(image[0], None)["kernels"]
    assert kernels.shape == config.state_shape((config.height, config.width))
    again = model._unpacked(torch.cat((torch.zeros(16, 8), model._packed(memory)), 1)[None])
    for name, part in memory.items():
        torch.testing.assert_close(again[name], part)


@pytest.mark.parametrize(
    "backbone",
    [
        BackboneConfig(blocks=(*BLOCKS, 0)),
        BackboneConfig(blocks=(*BLOCKS, LITE0_BLOCKS[-1])),
        BackboneConfig("resnet50", width=8),
    ],
)
def test_the_channels_of_the_coarsest_map_are_known_without_torch(backbone):
    with torch.device("meta"):
        assert coarsest_channels(backbone) == build_backbone(backbone).channels[-1]


@torch.no_grad()
def test_the_maps_of_a_batch_are_those_of_its_frames():
    model = seeing(network())
    images, _ = street(model.config, [0, 3])
    pyramid = model.frames(images).pyramid
    maps, depth = model.describe(pyramid)
    offsets = model.next_offsets(pyramid, pyramid[-1].flip(0))
    for i in range(2):
        own = [level[i : i + 1] for level in pyramid]
        (alone, its_depth), other = model.describe(own), pyramid[-1][1 - i : 2 - i]
        parts = [*zip(maps, alone, strict=True), (depth, its_depth)]
        for got, expected in [*parts, (offsets, model.next_offsets(own, other))]:
            torch.testing.assert_close(got[i : i + 1], expected, rtol=1e-3, atol=1e-3)


def test_depth_is_up_to_the_largest_and_as_fine_as_the_segments():
    model = seeing(network())
    image, _ = street(model.config, [0])
    with torch.no_grad():
        outputs = model.segment_frame(image[0], None)
        plain = network(depth=False).eval().segment_frame(image[0], None)
    assert outputs["depth"].shape == outputs["segment_map"].shape
    assert (outputs["depth"] > 0).all() and (outputs["depth"] < MAX_DEPTH).all()
    assert outputs["depth"].std() > 1
    assert "depth" not in plain


@pytest.mark.slow
def test_onnx_runtime_agrees_with_torch(tmp_path):
    model, path = seeing(network()), tmp_path / "model.onnx"
    assert_engines_agree(model, path)
    image = SyntheticStreet(1, 64, 96).frame(0).image
    expected, got = (
        runtime.step(image, None)[0] for runtime in (TorchRuntime(model), OnnxRuntime(path))
    )
    np.testing.assert_allclose(got.depth, expected.depth, atol=1e-2)
