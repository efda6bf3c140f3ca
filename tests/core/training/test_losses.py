"""Each loss by hand, and over padded batches."""

from __future__ import annotations

import math

import pytest
import torch

from video_knet_core.training import losses
from video_knet_core.training.targets import ANY_STUFF, IGNORE


def test_mask_and_dice_losses_by_hand():
    logits, goals = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0], [0, 0]]])
    everywhere = torch.ones(1, 2, 2)
    assert losses.mask_loss(logits, goals, everywhere).item() == pytest.approx(math.log(2))
    dice = 1 - 2 * 0.5 / (4 * 0.25 + 1 + 2e-3)
    assert losses.dice_loss(logits, goals, everywhere).item() == pytest.approx(dice)
    nowhere = torch.zeros(0, 2, 2)
    assert len(losses.mask_loss(nowhere, nowhere, nowhere)) == 0
    assert len(losses.dice_loss(nowhere, nowhere, nowhere)) == 0


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
    assert losses.cell_loss(logits, owners).item() == pytest.approx(math.log(4) / 4)


def test_a_cell_of_some_stuff_is_won_by_any_class_of_stuff():
    logits = torch.tensor([1.0, 2.0, 0.5, 3.0]).log().reshape(1, 4, 1, 1).expand(-1, -1, 1, 3)
    goals = torch.tensor([[[ANY_STUFF, 1, IGNORE]]])
    some, second = math.log(6.5 / 3.5), math.log(6.5 / 2)
    assert losses.cell_loss(logits, goals, stuff=2).item() == pytest.approx((some + second) / 3)
    assert losses.cell_loss(logits, goals).item() == pytest.approx(second / 3), "no map is stuff"
    weights = torch.tensor([[0.0, 5.0, 0.0, 0.0, 7.0]])
    loss = losses.cell_loss(logits, goals, weights, 2).item()
    assert loss == pytest.approx((7 * some + 5 * second) / 3)


def test_focal_loss_by_hand():
    logits, goal = torch.zeros(1, 1, 2), torch.tensor([[[1.0, 0.0]]])
    weights = torch.ones(1, 1, 2)
    expected = (0.25 + 0.75) * 0.25 * math.log(2)
    assert losses.focal_loss(logits, goal, weights).item() == pytest.approx(expected)
    assert losses.focal_loss(logits, goal, weights * 0) == 0


def test_track_losses_without_common_instances_are_zero_and_finite():
    key = torch.randn(1, 2, 4, requires_grad=True)
    for others in (0, 3):
        reference, none = torch.randn(1, others, 4), torch.zeros(1, 2, others, dtype=torch.bool)
        pairs = key, reference, none, none
        total = losses.track_loss(*pairs) + losses.track_aux_loss(*pairs)
        total.sum().backward()
        assert total == 0
        assert torch.isfinite(key.grad).all()


def contrastive(key, reference, same):
    """The association losses of one pair, instance by instance: as in the paper."""
    track, rows = 0.0, 0
    for k, partners in zip(key, same, strict=True):
        if partners.any():
            dots = reference @ k
            track += torch.log1p((dots[~partners] - dots[partners]).exp().sum())
            rows += 1
    cosine = torch.nn.functional.cosine_similarity(key[:, None], reference[None], dim=2)
    positives = (cosine[same].clamp(0, 1) - 1).square()
    negatives = (cosine[~same] - 0.1).clamp(0, 1).square().sort(descending=True).values
    if len(negatives) > 3 * (len(positives) + 1):
        negatives = negatives[: 3 * len(positives)]
    kept = len(positives) + len(negatives)
    return track / max(rows, 1), (positives.sum() + negatives.sum()) / kept


@pytest.mark.parametrize("number", [2, 9])
def test_padded_pairs_have_the_track_losses_of_each_alone(number):
    """The second pair has fewer instances; of 9 x 9 cosines the easy negatives are left out."""
    torch.manual_seed(0)
    key, reference = torch.randn(2, number, 4), torch.randn(2, number, 4)
    same = torch.eye(number, dtype=torch.bool).roll(1, 0).repeat(2, 1, 1)
    same[:, 0] = False
    present = torch.ones_like(same)
    present[1, :, -1] = present[1, -1:] = False
    same &= present
    less = slice(number - 1)
    expected = [
        contrastive(key[0], reference[0], same[0]),
        contrastive(key[1, less], reference[1, less], same[1, less, less]),
    ]
    pairs = key, reference, same, present
    found = zip(losses.track_loss(*pairs), losses.track_aux_loss(*pairs), strict=True)
    for one, other in zip(found, expected, strict=True):
        assert [float(v) for v in one] == pytest.approx([float(v) for v in other], rel=1e-5)


def test_balance_lets_a_small_segment_weigh_as_much_as_a_large_one():
    logits = torch.randn(1, 2, 1, 10, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([[[1] + [0] * 9]])
    cells = torch.nn.functional.cross_entropy(logits, owners, reduction="none")
    small, large = cells[0, 0, 0], cells[0, 0, 1:].mean()
    assert losses.cell_loss(logits, owners).item() == pytest.approx(cells.mean().item())
    weights = losses.balanced(torch.tensor([[9.0, 1.0]]), 1.0)
    loss = losses.cell_loss(logits, owners, weights).item()
    assert loss == pytest.approx(((small + large) / 2).item())


def test_the_center_loss_counts_the_cells_of_instances_alone():
    """Of the second frame none, which then costs nothing."""
    owners = torch.tensor([[[0, 0, 0, 0], [1, IGNORE, -1, -1]], [[-1] * 4] * 2])
    goals = torch.stack((torch.zeros(3), torch.ones(3))).expand(2, -1, -1)
    codes = torch.zeros(2, 3, 2, 4)
    codes[:, :, 1, 1:] = 9
    assert losses.center_loss(codes, goals, owners).tolist() == pytest.approx([1 / 5, 0])
    assert losses.center_loss(codes, goals, owners, 1.0).tolist() == pytest.approx([1 / 2, 0])


def test_the_heat_loss_is_per_centre_and_forgives_the_cells_next_to_one():
    goal = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    perfect = torch.tensor([[20.0, -20.0, -20.0, -20.0]])
    near, far = perfect.clone(), perfect.clone()
    near[0, 1] = far[0, 3] = 2.0
    logits = torch.stack((perfect, near, far))
    known = torch.ones(1, 1, 4)
    goals = goal.expand_as(logits)
    right, beside, wrong = losses.heat_loss(logits, goals, known.expand_as(logits)).tolist()
    assert right == pytest.approx(0, abs=1e-6)
    assert beside == pytest.approx(wrong / 16, rel=1e-4)
    nothing = torch.zeros(1, 1, 4)
    assert losses.heat_loss(nothing, nothing, known).item() == pytest.approx(4 * math.log(2) / 4)
    twice = torch.cat((far, far))[None], torch.cat((goal, goal))[None]
    assert losses.heat_loss(*twice, known.expand_as(twice[0])).item() == pytest.approx(
        wrong, rel=1e-4
    )
    unlabelled = losses.heat_loss(far[None], goal[None], torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]))
    assert unlabelled.item() == pytest.approx(0, abs=1e-6)
