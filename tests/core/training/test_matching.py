"""One-to-one assignment of kernels to instances, over a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from video_knet_core.training.matching import Match, match_instances
from video_knet_core.training.targets import FrameTargets, stack_targets


def targets(masks: Tensor, classes: list[int]) -> FrameTargets:
    """A frame of instances alone."""
    cells = torch.zeros(masks.shape[1:], dtype=torch.int64)
    ids = 1 + torch.arange(len(masks))
    valid = torch.ones(masks.shape[1:])
    return FrameTargets(
        masks,
        torch.tensor(classes, dtype=torch.int64),
        ids,
        cells,
        cells,
        valid,
        0 * valid,
        0 * valid,
    )


def pairs(match: Match) -> list[tuple[int, int, int]]:
    return sorted(zip(*(column.tolist() for column in match), strict=True))


def test_matching_finds_the_kernel_of_each_instance_of_each_frame():
    """Two parts of the network, and frames with two instances, one and none."""
    upper, lower = torch.zeros(2, 6, 6)
    upper[:3], lower[3:] = 1, 1
    frames = [torch.stack((upper, lower)), lower[None], torch.zeros(0, 6, 6)]
    batch = stack_targets([targets(masks, [0] * len(masks)) for masks in frames])
    logits = torch.full((3, 4, 6, 6), -6.0)
    logits[:, 3, :3], logits[:, 1, 3:] = 6, 6
    first, second = match_instances([(logits, None), (logits.flip(1), None)], batch)
    assert pairs(first) == [(0, 1, 1), (0, 3, 0), (1, 1, 0)]
    assert pairs(second) == [(0, 0, 0), (0, 2, 1), (1, 2, 0)]


def test_matching_prefers_the_right_class_between_equal_masks():
    masks = torch.zeros(1, 4, 4)
    masks[0, :2] = 1
    logits = torch.where(masks > 0, 3.0, -3.0).repeat(1, 2, 1, 1)
    class_logits = torch.tensor([[[-3.0, 3.0], [3.0, -3.0]]])
    (match,) = match_instances([(logits, class_logits)], stack_targets([targets(masks, [0])]))
    assert match.kernels.tolist() == [1]


def test_a_batch_without_instances_matches_nothing():
    batch = stack_targets([targets(torch.zeros(0, 4, 4), [])])
    (match,) = match_instances([(torch.zeros(1, 3, 4, 4), None)], batch)
    assert [len(column) for column in match] == [0, 0, 0]


def test_masks_that_are_no_numbers_are_an_error():
    logits, batch = torch.zeros(1, 3, 4, 4), stack_targets([targets(torch.ones(1, 4, 4), [0])])
    logits[0, 1, 2, 2] = torch.nan
    with pytest.raises(FloatingPointError):
        match_instances([(logits, None)], batch)
