"""Ground truth of frames in the form that the losses need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import small_config
from training_runs import (
    PERSON,
    POLE,
    ROAD,
    SKY,
    VEHICLE,
    VOID,
    instance_targets,
    overlapping,
    small_model,
    street_labels,
)

from video_knet_core.training.targets import IGNORE, class_targets, frame_targets, stack_targets


@pytest.fixture(scope="module")
def classes():
    return small_config().classes


def test_targets_hold_the_share_of_each_cell(classes):
    targets = frame_targets(*street_labels(), classes, stride=4)
    assert targets.masks.shape == (1, 4, 8)
    assert targets.classes.tolist() == [2]  # things come first: person, cyclist, vehicle
    assert targets.ids.tolist() == [5]
    assert targets.masks[0, 1].tolist() == [0, 1, 1, 0.5, 0, 0, 0, 0]
    assert targets.stuff_present.tolist() == [True] + [False] * 6 + [True]
    assert targets.valid[0].tolist() == [1] * 7 + [0]
    assert targets.owners[0].tolist() == [7] * 7 + [IGNORE]
    assert targets.owners[1, 1] == targets.stuff == 8


def test_masks_may_be_finer_than_owners(classes):
    targets = frame_targets(*street_labels(), classes, stride=2, rank_stride=4)
    coarse = frame_targets(*street_labels(), classes, stride=4)
    assert targets.masks.shape == (1, 8, 16)
    assert targets.valid.shape == targets.segments.shape[1:] == (8, 16)
    assert torch.equal(targets.owners, coarse.owners)
    assert torch.equal(targets.semantic, coarse.semantic)


def test_things_without_identity_and_tiny_ones_are_ignored(classes):
    semantic, instance = street_labels()
    instance[4:12, 4:14] = 0
    semantic[0, 20:24], instance[0, 20:24] = PERSON, 9
    targets = frame_targets(semantic, instance, classes, stride=4)
    assert len(targets.masks) == 0
    assert targets.valid[1, 1] == 0
    assert targets.valid[0, 5] == 0.75


def test_class_targets_ignore_what_is_void():
    semantic = np.full((8, 12), ROAD, np.uint8)
    semantic[:, 4:6], semantic[:, 6:] = SKY, VOID
    goals = class_targets(semantic, small_model("semantic").classes, 4).semantic
    assert goals.tolist() == [[ROAD, SKY, IGNORE]] * 2
    nowhere = class_targets(np.full((8, 8), VOID, np.uint8), small_config().classes, 4)
    assert (nowhere.semantic == IGNORE).all()


def test_masks_that_overlap_are_learned_whole():
    targets, front = instance_targets(), instance_targets(whole=None)
    assert targets.ids.tolist() == front.ids.tolist() == [1, 2]
    assert targets.masks[0, 3, 3] == 1 and front.masks[0, 3, 3] == 0, "hidden behind the other"
    assert torch.equal(targets.owners, front.owners), "a cell goes to the one in front"
    assert targets.owners[3, 3] == 1


def test_unlabelled_pixels_are_background_and_crowds_are_not():
    targets = instance_targets()
    assert targets.valid[0, 0] == 1 and targets.masks[:, 0, 0].tolist() == [0, 0]
    assert targets.valid[7, 0] == 0, "a crowd has no owner"
    assert instance_targets(background=False).valid[0, 0] == 0, "as in task panoptic"


def test_an_instance_that_is_quite_hidden_is_learned_too():
    semantic, instance, whole = overlapping()
    semantic[whole.masks[0]], instance[whole.masks[0]] = 2, 2
    targets = frame_targets(
        semantic, instance, small_model("instance").classes, 4, whole=whole, background=True
    )
    assert targets.ids.tolist() == [1, 2]
    assert not (targets.owners == 0).any()


def test_the_centre_of_an_instance_is_the_middle_of_its_visible_part():
    semantic, instance = np.zeros((32, 64), np.uint8), np.zeros((32, 64), np.int32)
    semantic[8:16, 32:64], instance[8:16, 32:64] = 10, 3
    y, x = frame_targets(semantic, instance, small_config().classes, stride=4).centers
    assert (y.item(), x.item()) == pytest.approx((12 / 32, 48 / 64))


def test_heat_is_one_on_the_instance_even_if_its_middle_is_hidden():
    semantic, instance = np.full((32, 64), ROAD, np.uint8), np.zeros((32, 64), np.int32)
    semantic[8:24, 8:40], instance[8:24, 8:40] = VEHICLE, 3
    semantic[:, 20:28], instance[:, 20:28] = POLE, 0
    heat = frame_targets(semantic, instance, small_config().classes, stride=4).heat(8, 16)
    rows, columns = torch.nonzero(heat == 1).T.tolist()
    assert rows in ([3], [4])
    assert columns in ([4], [7])
    assert 0 < heat[rows[0], columns[0] + 1] < 1
    assert heat[0, 15] < 0.01


def test_heat_may_be_of_another_grid_than_the_masks():
    semantic, instance = np.full((32, 64), ROAD, np.uint8), np.zeros((32, 64), np.int32)
    semantic[8:16, 32:40], instance[8:16, 32:40] = VEHICLE, 3
    targets = frame_targets(semantic, instance, small_config().classes, stride=2)
    assert torch.nonzero(targets.heat(4, 8) == 1).tolist() == [[1, 4]]


def test_a_batch_pads_frames_with_fewer_instances(classes):
    semantic, instance = street_labels()
    two = frame_targets(semantic, instance, classes, stride=4)
    semantic[4:12, 4:14], instance[:] = ROAD, 0
    none = frame_targets(semantic, instance, classes, stride=4)
    batch = stack_targets([two, none])
    assert batch.present.tolist() == [[True], [False]]
    assert torch.equal(batch.masks[0], two.masks) and not batch.masks[1].any()
    assert torch.equal(batch.owners, torch.stack((two.owners, none.owners)))
    assert torch.equal(batch.stuff_present[0], two.stuff_present)
    for padded, alone in zip(batch.centers, two.centers, strict=True):
        assert torch.equal(padded[0], alone)
    heat = batch.heat(4, 8)
    assert torch.equal(heat[0], two.heat(4, 8)) and not heat[1].any()


def test_depth_of_a_cell_is_that_of_a_pixel_at_its_middle():
    """A mean over an edge would be the depth of nothing; without depth all of it is unknown."""
    classes, labels = small_config().classes, street_labels()
    height, width = labels[0].shape
    depth = np.full((height, width), 50, np.float32)
    depth[:, : width // 2 + 1] = 5
    with_depth = frame_targets(*labels, classes, 4, depth=depth)
    assert with_depth.depth.shape == with_depth.valid.shape
    assert with_depth.depth.unique().tolist() == [5, 50]
    without = frame_targets(*labels, classes, 4)
    assert not without.depth.any()
    assert stack_targets([with_depth, without]).depth.shape == (2, height // 4, width // 4)
