"""Motion-DeepLab: what it sees of the frame before, and what it learns of it."""

from __future__ import annotations

import pytest
import torch
from deeplab_cases import (
    HEIGHT,
    WIDTH,
    assert_engines_agree,
    silent_parameters,
    small_config,
    street,
    with_contrast,
)

from baselines import motion_deeplab
from baselines.centers import center_cells, render_heat, with_identity
from baselines.motion_deeplab import (
    MotionDeepLab,
    Previous,
    disturbed_centers,
    extents,
    first_convolution,
    motion_loss,
    values_at,
)
from video_knet_core.config import BackboneConfig
from video_knet_core.config_io import ConfigError
from video_knet_core.model.backbone import build_backbone
from video_knet_core.model.network import Frames

CELLS = HEIGHT // 4, WIDTH // 4


def network(seed: int = 0) -> MotionDeepLab:
    torch.manual_seed(seed)
    return MotionDeepLab(small_config("motion_deeplab"))


def seeing(model: MotionDeepLab) -> MotionDeepLab:
    """As after some training: the further channels have weights."""
    torch.nn.init.normal_(model.previous_stem.weight, std=0.1)
    return with_contrast(model)


def before(images, valid: bool = True) -> Previous:
    count = len(images)
    return Previous(images, torch.rand(count, *CELLS), torch.full((count,), valid))


# --- the further channels


@torch.no_grad()
def test_a_new_network_sees_what_its_backbone_sees():
    model = network().eval()
    images, _ = street(model.config, [1])
    got = model.pyramid(images, before(images.flip(0)))
    torch.testing.assert_close(got, model.frames(images).pyramid)


@torch.no_grad()
def test_the_stem_is_the_convolution_of_all_7_channels():
    model = seeing(network())
    images, _ = street(model.config, [1, 0])
    stem, seven = first_convolution(model.backbone), torch.nn.Conv2d(7, 32, 3, 2, 1, bias=False)
    seven.weight.copy_(torch.cat((stem.weight, model.previous_stem.weight), 1))
    heat = torch.rand(1, *CELLS)
    enlarged = torch.nn.functional.interpolate(heat[None], size=(HEIGHT, WIDTH), mode="bilinear")
    every = torch.cat((model.normalized(images), enlarged.expand(2, -1, -1, -1)), 1)
    expected = seven(torch.cat((every[:1, :3], every[1:, :3], every[:1, 3:]), 1))
    found = []
    hook = model.backbone._bn0.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    model.pyramid(images[:1], Previous(images[1:], heat, torch.ones(1, dtype=torch.bool)))
    hook.remove()
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_first_frame_is_a_frame_without_previous():
    model = seeing(network())
    images, _ = street(model.config, [1, 0])
    alone = model.frames(images[:1]).pyramid
    first = model.pyramid(images[:1], before(images[1:], valid=False))
    later = model.pyramid(images[:1], before(images[1:]))
    torch.testing.assert_close(first, alone)
    assert (later[0] - alone[0]).abs().max() > 0.1


@torch.no_grad()
def test_the_backbone_is_as_before_after_a_frame():
    model = seeing(network())
    images, _ = street(model.config, [1, 0])
    alone = model.frames(images).pyramid
    model.pyramid(images, before(images))
    torch.testing.assert_close(model.frames(images).pyramid, alone)


def test_a_resnet_of_either_stem_has_a_first_convolution():
    for deep, kernel in ((False, 7), (True, 3)):
        backbone = build_backbone(BackboneConfig(name="resnet50", deep_stem=deep, width=8))
        assert first_convolution(backbone).kernel_size == (kernel, kernel)


def test_a_backbone_without_one_is_rejected():
    with pytest.raises(ConfigError):
        first_convolution(torch.nn.Linear(3, 3))


# --- the memory


@torch.no_grad()
def test_the_memory_is_the_image_and_the_heat_of_its_segments():
    model = seeing(network())
    images, _ = street(model.config, [0])
    shapes = model.config.memory_shapes()
    empty = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
    segments, memory = model.infer(images, empty, torch.zeros(1, dtype=torch.bool))
    assert {name: tuple(m.shape[1:]) for name, m in memory.items()} == shapes
    torch.testing.assert_close(memory["image"], images)
    assert memory["heat"].max() == pytest.approx(1, abs=0.3)  # a middle lies between cells
    slot = int(segments.segment_map[segments.segment_map <= model.config.instances].max()) - 1
    x, y = segments.embeddings[slot, :2].tolist()
    assert memory["heat"][0, 0, int(y * CELLS[0]), int(x * CELLS[1])] > 0.6


def test_values_are_read_at_the_nearest_cell():
    maps = torch.arange(24.0).view(2, 3, 4)
    places = torch.tensor([[0.0, 0.0], [1.4, 2.6]])
    assert values_at(maps, places).tolist() == [[0, 12], [7, 19]]


# --- the losses


def test_the_motion_loss_is_zero_where_offsets_lead_to_the_previous_centres():
    _, targets = street(network().config, [4, 0])
    current, older = (type(targets)(*(part[k : k + 1] for part in targets)) for k in (0, 1))
    shared = set(current.ids.flatten().tolist()) & set(older.ids.flatten().tolist()) - {0}
    assert shared, "the street moved out of view"
    centers = center_cells(older)
    motion = torch.zeros(1, 2, *CELLS)
    for n, identity in enumerate(current.ids[0].tolist()):
        if identity in shared:
            row, column = centers[0, older.ids[0].tolist().index(identity)].tolist()
            rows, columns = torch.where(current.owners[0] == current.stuff + n)
            motion[0, 0, rows, columns] = row - rows.float()
            motion[0, 1, rows, columns] = column - columns.float()
    assert motion_loss(motion, current, older, centers) < 1e-6
    assert motion_loss(motion + 1, current, older, centers) > 0.1


def test_instances_that_were_not_there_have_no_motion_loss():
    _, targets = street(network().config, [4, 0])
    current, older = (type(targets)(*(part[k : k + 1] for part in targets)) for k in (0, 1))
    older = older._replace(ids=older.ids + 1000)
    motion = torch.randn(1, 2, *CELLS)
    assert motion_loss(motion, current, older, center_cells(older)) == 0


def test_undisturbed_previous_centres_are_those_of_the_labels(monkeypatch):
    for name in ("SHIFT", "FALSE_RATE", "MISS_RATE"):
        monkeypatch.setattr(motion_deeplab, name, 0.0)
    _, targets = street(network().config, [0])
    centers, heat = disturbed_centers(targets)
    torch.testing.assert_close(centers, center_cells(targets))
    torch.testing.assert_close(heat, render_heat(centers, with_identity(targets), *CELLS))


def test_previous_centres_can_be_missing_and_false_ones_can_be_there(monkeypatch):
    _, targets = street(network().config, [0])
    monkeypatch.setattr(motion_deeplab, "FALSE_RATE", 0.0)
    monkeypatch.setattr(motion_deeplab, "MISS_RATE", 1.0)
    assert disturbed_centers(targets)[1].max() == 0
    monkeypatch.setattr(motion_deeplab, "FALSE_RATE", 1.0)
    assert disturbed_centers(targets)[1].max() == 1


def test_extents_are_rows_and_columns():
    masks = torch.zeros(1, 2, 8, 12)
    masks[0, 0, 2:5, 3:10] = 0.5
    assert extents(masks).tolist() == [[[3, 7], [0, 0]]]


def test_losses_are_finite_and_reach_every_parameter_on_a_frozen_backbone():
    model = network().train()
    model.backbone.requires_grad_(False)
    images, targets = street(model.config, [2, 1, 0])
    losses = model.losses(model.frames(images), targets, 3)
    assert set(losses) == {"semantic", "center", "offset", "motion"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert silent_parameters(model) == []


@torch.no_grad()
def test_the_oldest_frames_take_the_pyramid_that_is_given():
    model = seeing(network())
    images, targets = street(model.config, [1, 0])
    frames = model.frames(images)
    given = Frames(images, tuple(torch.cat((0 * m[:1], m[1:])) for m in frames.pyramid))
    losses = []
    for each in (frames, given):
        torch.manual_seed(1)
        losses.append(model.losses(each, targets, 2))
    assert losses[0] == losses[1]  # that of the key frame is computed anew
    wrong = Frames(images, tuple(0 * m for m in frames.pyramid))
    torch.manual_seed(1)
    assert model.losses(wrong, targets, 2)["semantic"] != losses[0]["semantic"]


@torch.no_grad()
def test_single_frames_have_no_motion_loss():
    model = network()
    images, targets = street(model.config, [1, 0])
    assert model.losses(model.frames(images), targets, 1)["motion"] == 0


@pytest.mark.slow  # exports
def test_onnx_runtime_agrees_with_torch(tmp_path):
    assert_engines_agree(seeing(network()), tmp_path / "model.onnx")
