"""Targets, matching, losses and the loop itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from networks import CONFIGS, small_config, small_network
from safetensors.torch import load_file

from video_knet_core.config_io import ConfigError, load_yaml, to_dict
from video_knet_core.model.checkpoint import CheckpointError, save_model
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training import losses
from video_knet_core.training.batches import batches
from video_knet_core.training.criterion import Criterion
from video_knet_core.training.matching import match_instances
from video_knet_core.training.sources import open_sources
from video_knet_core.training.targets import IGNORE, frame_targets
from video_knet_core.training.train_config import LossWeights, TrainConfig
from video_knet_core.training.trainer import Trainer, train_from_config
from video_knet_core.types import ClassTable

PERSON, CYCLIST, VEHICLE, ROAD, SKY, VOID = 8, 9, 10, 0, 7, 255


@pytest.fixture(scope="module")
def classes():
    return small_config().classes


def street_labels() -> tuple[np.ndarray, np.ndarray]:
    """Sky over road, 16 x 32 pixels, with one vehicle and an unlabelled strip."""
    semantic = np.full((16, 32), SKY, np.uint8)
    semantic[8:] = ROAD
    semantic[4:12, 4:14] = VEHICLE
    semantic[:, 28:] = VOID
    instance = np.zeros((16, 32), np.int32)
    instance[4:12, 4:14] = 5
    return semantic, instance


def test_targets_hold_the_share_of_each_cell(classes):
    targets = frame_targets(*street_labels(), classes, stride=4)
    assert targets.masks.shape == (1, 4, 8)
    assert targets.classes.tolist() == [2]  # things come first: person, cyclist, vehicle
    assert targets.ids.tolist() == [5]
    assert targets.masks[0, 1].tolist() == [0, 1, 1, 0.5, 0, 0, 0, 0]
    assert targets.stuff_present.tolist() == [True] + [False] * 6 + [True]
    assert targets.valid[0].tolist() == [1] * 7 + [0]
    assert targets.owners[0].tolist() == [1 + 7] * 7 + [IGNORE]
    assert targets.owners[1, 1] == 0


def test_a_frame_without_any_segment_of_a_network_without_stuff(classes):
    """As in video instance segmentation: only things are labelled, and there may be none."""
    rows = [{**row, "is_thing": True} for row in classes.to_rows()]
    config = replace(small_config(), classes=ClassTable.from_rows(rows))
    empty = np.full((64, 96), VOID, np.uint8), np.zeros((64, 96), np.int32)
    targets = [frame_targets(*empty, config.classes, stride=2, rank_stride=4)]
    assert targets[0].masks.shape == targets[0].stuff_masks.shape == (0, 32, 48)
    assert (targets[0].owners == IGNORE).all()
    prediction, _ = VideoKNet(config).train()(torch.rand(1, 3, 64, 96) * 255)
    found, _ = Criterion(LossWeights(), len(rows)).frames(prediction, targets)
    assert all(value.isfinite() for value in found.values())


def test_masks_may_be_finer_than_owners(classes):
    targets = frame_targets(*street_labels(), classes, stride=2, rank_stride=4)
    coarse = frame_targets(*street_labels(), classes, stride=4)
    assert targets.masks.shape == (1, 8, 16)
    assert targets.valid.shape == targets.stuff_masks.shape[1:] == (8, 16)
    assert torch.equal(targets.owners, coarse.owners)
    assert torch.equal(targets.semantic, coarse.semantic)


def test_masks_that_are_right_at_a_finer_grid_cost_nothing_there(classes):
    """The network's masks are stretched to the grid of the targets, and no further."""
    semantic, instance = street_labels()
    semantic[:], instance[:] = ROAD, 0
    semantic[:, :16], instance[:, :16] = VEHICLE, 5
    targets = [frame_targets(semantic, instance, classes, stride=2, rank_stride=4)]
    masks = torch.where(torch.arange(8) < 4, 30.0, -30.0).expand(1, 1, 4, 8)
    criterion = Criterion(LossWeights(), thing_classes=3)
    matches = criterion._match(masks, None, targets)
    found = criterion._mask_losses(masks[0], [targets[0].masks], targets)
    assert [m.instances.tolist() for m in matches] == [[0]]
    assert found["mask"] < 1e-3 and found["dice"] < 1e-3
    assert targets[0].masks.shape[-2:] == (8, 16)


def test_things_without_identity_and_tiny_ones_are_ignored(classes):
    semantic, instance = street_labels()
    instance[4:12, 4:14] = 0
    semantic[0, 20:24], instance[0, 20:24] = PERSON, 9
    targets = frame_targets(semantic, instance, classes, stride=4)
    assert len(targets.masks) == 0
    assert targets.valid[1, 1] == 0
    assert targets.valid[0, 5] == 0.75


def test_matching_finds_the_kernel_of_each_instance():
    masks = torch.zeros(2, 6, 6)
    masks[0, :3], masks[1, 3:] = 1, 1
    logits = torch.full((4, 6, 6), -6.0)
    logits[3, :3], logits[1, 3:] = 6, 6
    match = match_instances(logits, None, masks, torch.tensor([0, 1]), torch.ones(6, 6))
    assert dict(zip(match.kernels.tolist(), match.instances.tolist(), strict=True)) == {1: 1, 3: 0}


def test_matching_prefers_the_right_class_between_equal_masks():
    masks = torch.zeros(1, 4, 4)
    masks[0, :2] = 1
    logits = torch.where(masks > 0, 3.0, -3.0).repeat(2, 1, 1)
    class_logits = torch.tensor([[-3.0, 3.0], [3.0, -3.0]])
    match = match_instances(logits, class_logits, masks, torch.tensor([0]), torch.ones(4, 4))
    assert match.kernels.tolist() == [1]


def test_a_frame_without_instances_matches_nothing():
    nothing = torch.zeros(0, 4, 4)
    match = match_instances(torch.zeros(3, 4, 4), None, nothing, torch.zeros(0), torch.ones(4, 4))
    assert len(match.kernels) == len(match.instances) == 0


def test_mask_and_dice_losses_by_hand():
    logits, goals = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0], [0, 0]]])
    everywhere = torch.ones(1, 2, 2)
    assert losses.mask_loss(logits, goals, everywhere).item() == pytest.approx(math.log(2))
    dice = 1 - 2 * 0.5 / (4 * 0.25 + 1 + 2e-3)
    assert losses.dice_loss(logits, goals, everywhere).item() == pytest.approx(dice)
    nowhere = torch.zeros(0, 2, 2)
    assert losses.mask_loss(nowhere, nowhere, nowhere) == 0
    assert losses.dice_loss(nowhere, nowhere, nowhere) == 0


def test_unlabelled_cells_give_no_mask_gradient():
    logits = torch.randn(1, 3, 3, requires_grad=True)
    valid = torch.ones(1, 3, 3)
    valid[0, 0] = 0
    goals = torch.zeros(1, 3, 3)
    (losses.mask_loss(logits, goals, valid) + losses.dice_loss(logits, goals, valid)).backward()
    assert (logits.grad[0, 0] == 0).all()
    assert (logits.grad[0, 1:] != 0).all()


def test_rank_loss_counts_ignored_cells_in_its_mean():
    logits = torch.zeros(1, 4, 2, 2)
    owners = torch.full((1, 2, 2), IGNORE)
    owners[0, 0, 0] = 2
    assert losses.rank_loss(logits, owners).item() == pytest.approx(math.log(4) / 4)


def test_focal_loss_by_hand():
    logits, goal = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    weights = torch.ones(1, 1, 2)
    expected = (0.25 + 0.75) * 0.25 * math.log(2)
    assert losses.class_loss(logits, goal, weights, 1).item() == pytest.approx(expected)
    assert losses.class_loss(logits, goal, weights * 0, 0) == 0


def test_track_losses_without_common_instances_are_zero_and_finite():
    key, reference = torch.randn(2, 4, requires_grad=True), torch.randn(0, 4)
    none = torch.zeros(2, 0, dtype=torch.bool)
    total = losses.track_loss(key, reference, none) + losses.track_aux_loss(key, reference, none)
    total.backward()
    assert total == 0
    assert torch.isfinite(key.grad).all()


@pytest.fixture
def run(tmp_path):
    """A tiny run on the synthetic street alone, starting from a small random network."""
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(to_dict(small_config())))
    save_model(small_network(), tmp_path / "start.safetensors")
    settings = {
        "model": "model.yaml",
        "init": "start.safetensors",
        "steps": 4,
        "batch": 2,
        "height": 64,
        "width": 96,
        "warmup_steps": 2,
        "workers": 0,
        "threads": 1,
        "checkpoint_every": 2,
        "data": {"copy_paste_weight": 0.0, "synthetic_seeds": 1},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def take_steps(trainer: Trainer, count: int) -> dict[str, torch.Tensor]:
    """The losses of the last of `count` steps."""
    ahead = batches(trainer.dataset, trainer.progress.step)
    for _ in range(count):
        values = trainer.train_step(next(ahead))
        trainer.progress.step += 1
    return values


@pytest.mark.parametrize("frozen_groups", [0, 2])
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(run, tmp_path, frozen_groups):
    run.write_text(run.read_text() + f"frozen_groups: {frozen_groups}\n")
    train_from_config(run, tmp_path / "whole", device="cpu")
    broken = Trainer(run, tmp_path / "broken", device="cpu")
    take_steps(broken, 2)
    broken.save()
    train_from_config(run, tmp_path / "broken", resume=True, device="cpu")
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    resumed = load_file(tmp_path / "broken" / "last.safetensors")
    start = load_file(tmp_path / "start.safetensors")
    key = "head.seeds.kernel.weight"
    assert not torch.equal(whole[key], start[key])
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=1e-6, msg=key)


def test_runs_are_not_mixed_up(run, tmp_path):
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    take_steps(trainer, 1)
    trainer.save()
    with pytest.raises(ConfigError, match="holds a run already"):
        train_from_config(run, tmp_path / "out", device="cpu")
    run.write_text(run.read_text() + "seed: 9\n")
    with pytest.raises(CheckpointError, match="of another run"):
        train_from_config(run, tmp_path / "out", resume=True, device="cpu")


def test_a_training_step_reaches_every_unfrozen_parameter(run, tmp_path):
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    values = take_steps(trainer, 1)
    assert {"total", "track", "track_aux", "key_head_semantic", "reference_stage2_dice"} <= set(
        values
    )
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    assert not trainer.model.backbone._conv_stem.weight.requires_grad


def test_real_data_without_a_root_is_a_clear_error(classes, tmp_path):
    config = load_yaml(TrainConfig, CONFIGS / "train" / "street_lite0.yaml")
    with pytest.raises(ConfigError, match="a data root is needed"):
        open_sources(config.data, small_config(), None, tmp_path)


def test_training_learns_one_clip(run, tmp_path):
    """The loss falls within a few steps on a fixed batch: gradients point the right way."""
    trainer = Trainer(run, tmp_path / "out", device="cpu")
    batch = next(batches(trainer.dataset, 0))
    first = trainer.train_step(batch)["total"].item()
    trainer.progress.step = 2  # past the warm-up
    for _ in range(12):
        last = trainer.train_step(batch)["total"].item()
    assert last < 0.9 * first


def test_balance_lets_a_small_segment_weigh_as_much_as_a_large_one():
    logits = torch.randn(1, 2, 1, 10, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([[[1] + [0] * 9]])
    cells = torch.nn.functional.cross_entropy(logits, owners, reduction="none")
    small, large = cells[0, 0, 0], cells[0, 0, 1:].mean()
    assert losses.rank_loss(logits, owners).item() == pytest.approx(cells.mean().item())
    balanced = losses.rank_loss(logits, owners, balance=1.0).item()
    assert balanced == pytest.approx(((small + large) / 2).item())
