"""Objects that keep their slots from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small_config, small_version

from video_knet_core.model.slots import SlotMemory, StickySlots

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


def memory(before: torch.Tensor, masks: torch.Tensor, doubt: float = 0.0) -> SlotMemory:
    """Of kernels [1,N,2], whose classes [1,N,1] are equal to them; a row of zeros is unknown."""
    known = before[..., 0] != 0
    return SlotMemory(before, before[..., :1], masks, known, torch.full_like(masks, doubt))


def test_slots_are_kept_refreshed_and_filled():
    """Slot 0 has an object that seed 2 shows, slot 2 one that no seed shows, slots 1 and 3 are
    free: they take the hottest seeds that show nothing known. The last row is stuff."""
    seeds, masks = kernels(10, 11, 12, 13, 7), rows(1, 2, 3, 4, 0)
    before = memory(kernels(1, 0, 3, 0, 9), rows(3, 0, 5, 0, 0))
    found, places = StickySlots(2, 3, 4).place(seeds, masks, before)
    assert found[0, :, 0].tolist() == [12, 10, 3, 11, 7]
    assert places[0, :, :, 0].argmax(1).tolist() == [3, 1, 5, 2, 0]


def test_remembered_kernels_are_added_where_there_are_any():
    slots = StickySlots(2, 3, 2)
    with torch.no_grad():
        slots.memory.weight.copy_(0.5 * torch.eye(2))
    before = memory(kernels(2, 0, 4), rows(1, 5, 0))
    found, _ = slots.place(kernels(10, 11, 7), rows(1, 2, 0), before)
    assert found[0, :, 0].tolist() == [11, 11, 9]


def test_what_is_in_doubt_stays_as_it_was():
    """Slot 0 wholly, slot 1 by half of its mask; the row of stuff has no mask, and is new."""
    before = memory(kernels(2, 4, 6), rows(1, 2, None))
    before.mask_logits[0, 1, 3] = 5.0
    doubt = torch.zeros(1, 3, CELLS, 1)
    doubt[0, 0], doubt[0, 1, 3] = 1, 1
    found, classes = before._replace(doubt=doubt).kept(kernels(0, 0, 0), kernels(0, 0, 0)[..., :1])
    assert found[0, :, 0].tolist() == classes[0, :, 0].tolist() == [2, 2, 0]


@torch.no_grad()
def test_a_first_frame_remembers_nothing():
    torch.manual_seed(0)
    slots, features = StickySlots(2, 3, 2), torch.rand(2, 3, CELLS, 1)
    state = torch.rand(2, 3, 2 + 4 + CELLS)
    found = slots.recall(state, torch.tensor([False, True]), features)
    assert found.known.tolist() == [[False] * 3, [True] * 3]
    assert not found.doubt[0].any() and found.doubt[1].all()
    assert torch.equal(found.class_logits, state[..., 2:6])
    assert torch.equal(found.mask_logits.flatten(2), state[..., 6:])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return small_version("street", fusion="sticky", linking="none").eval()


@torch.no_grad()
def test_things_that_are_no_objects_are_not_remembered(network):
    prediction, state = network(torch.rand(2, 3, 75, 122) * 255)
    assert tuple(state.kernels.shape[1:]) == network.config.state_shape((75, 122))
    things, classes = network.thing_kernels, len(network.config.classes.things)
    alive = prediction.class_logits[:, :things, :classes].sigmoid().amax(2) >= 0.2
    assert torch.equal(state.kernels[:, :things].abs().amax(2) > 0, alive)
    channels = network.config.neck.channels
    assert torch.equal(state.kernels[:, things:, :channels], prediction.kernels[:, things:])


@torch.no_grad()
def test_an_image_that_is_all_in_doubt_changes_nothing(network):
    slots = network.stages[-1].slots
    bias, slots.last.bias = slots.last.bias, torch.nn.Parameter(torch.tensor([30.0]))
    try:
        images = torch.rand(2, 1, 3, 75, 122) * 255
        before, state = network(images[0])
        after, next_state = network(images[1], state)
    finally:
        slots.last.bias = bias
    held = state.kernels.abs().amax(2) > 0
    torch.testing.assert_close(next_state.kernels[held], state.kernels[held])
    torch.testing.assert_close(after.class_logits[held], before.class_logits[held])


def test_sticky_slots_need_seeds_and_one_size():
    config = small_config()
    for key, changes in (("kernels.seeds", {"seeds": False}), ("more_sizes", {})):
        kernels = replace(config.kernels, fusion="sticky", linking="none", **changes)
        sizes = () if changes else ((64, 192),)
        with pytest.raises(ValueError, match=key):
            replace(config, kernels=kernels, more_sizes=sizes)
