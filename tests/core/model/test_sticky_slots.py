"""Objects that keep their slots from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small_config, small_version

from video_knet_core.model.kernels import ALIVE_SCORE, PreviousKernels, StickySlots

CELLS = 6


def rows(*owned: int | None) -> torch.Tensor:
    """Masks [1,N,6,1]: of each, the one cell that it has."""
    masks = torch.full((1, len(owned), CELLS, 1), -5.0)
    for slot, cell in enumerate(owned):
        if cell is not None:
            masks[0, slot, cell] = 5.0
    return masks


def kernels(*values: float) -> torch.Tensor:
    """[1,N,2]"""
    return torch.tensor(values, dtype=torch.float32)[None, :, None].expand(-1, -1, 2).clone()


def test_slots_are_kept_refreshed_and_filled():
    """Slot 0 has an object that seed 2 shows, slot 2 one that no seed shows, slots 1 and 3 are
    free: they take the hottest seeds that show nothing known. The last row is stuff."""
    seeds, masks = kernels(10, 11, 12, 13, 7), rows(1, 2, 3, 4, 0)
    before = PreviousKernels(kernels(1, 0, 3, 0, 9), torch.ones(1, dtype=torch.bool))
    found, places, carried = StickySlots(2)(seeds, masks, before, rows(3, 0, 5, 0), 4)
    assert found[0, :, 0].tolist() == [12, 10, 3, 11, 7]
    assert places[0, :, :, 0].argmax(1).tolist() == [3, 1, 5, 2, 0]
    assert carried.tolist() == [[True, False, True, False]]


def test_the_previous_kernels_are_added_where_there_are_any():
    slots = StickySlots(2)
    with torch.no_grad():
        slots.memory.weight.copy_(0.5 * torch.eye(2))
    before = PreviousKernels(kernels(2, 0, 4), torch.ones(1, dtype=torch.bool))
    found, _, _ = slots(kernels(10, 11, 7), rows(1, 2, 0), before, rows(1, 5), 2)
    assert found[0, :, 0].tolist() == [11, 11, 9]


def test_a_first_frame_has_the_slots_of_its_seeds():
    seeds, masks = kernels(10, 11, 7), rows(1, 2, 0)
    before = PreviousKernels(kernels(1, 2, 9), torch.zeros(1, dtype=torch.bool))
    found, places, carried = StickySlots(2)(seeds, masks, before, rows(1, 2), 2)
    assert torch.equal(found, seeds) and torch.equal(places, masks)
    assert not carried.any()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return small_version("street", fusion="sticky", linking="none").eval()


@torch.no_grad()
def test_a_kernel_that_is_no_object_is_not_handed_on(network):
    prediction, state = network(torch.rand(2, 3, 75, 122) * 255)
    things, classes = network.thing_kernels, len(network.config.classes.things)
    alive = prediction.class_logits[:, :things, :classes].sigmoid().amax(2) >= ALIVE_SCORE
    assert torch.equal(state.kernels[:, :things].abs().amax(2) > 0, alive)
    assert torch.equal(state.kernels[:, things:], prediction.kernels[:, things:])


def test_slots_that_move_need_seeds():
    config = small_config()
    with pytest.raises(ValueError, match="kernels.seeds"):
        replace(config, kernels=replace(config.kernels, fusion="sticky", seeds=False))
