"""Slots that keep their objects from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small_config, small_version
from torch import Tensor

from video_knet_core.model.slots import SlotContents, SlotMemory, StickySlots

CELLS = 6


def rows(*owned: int | None) -> Tensor:
    """Masks [1,N,6,1]: of each, the one cell that it has."""
    masks = torch.full((1, len(owned), CELLS, 1), -5.0)
    for slot, cell in enumerate(owned):
        if cell is not None:
            masks[0, slot, cell] = 5.0
    return masks


def contents(values: list[float], masks: Tensor, things: int) -> SlotContents:
    """Slots whose kernels [1,N,2] are the values, and classes [1,N,1 + stuff] 0.1 times them."""
    kernels = torch.tensor(values)[None, :, None].expand(-1, -1, 2).clone()
    classes = 0.1 * kernels[..., :1].expand(-1, -1, 1 + len(values) - things)
    return SlotContents(kernels, kernels[:, :things], classes, masks)


def remembered(values: list[float], masks: Tensor, things: int) -> SlotMemory:
    """Nothing is known where the value is 0."""
    slots = contents(values, masks, things)
    return SlotMemory(slots, slots.kernels[..., 0] != 0)


def slots_in_doubt(things: int, doubt: Tensor) -> StickySlots:
    """`doubt` is [1,1,6,1]."""
    slots = StickySlots(2, 3, things)
    slots._doubt = lambda features: doubt
    return slots


NO_DOUBT, DOUBT = torch.zeros(1, 1, CELLS, 1), torch.ones(1, 1, CELLS, 1)
FEATURES = torch.zeros(1, 3, CELLS, 1)


def test_objects_keep_their_slots_and_new_ones_get_the_free_ones():
    """Slot 0 has the object of seed 2, slot 2 one that is gone; slots 1 and 3 are free and get the
    surest of the others, seed 3 before seed 0. The last row is stuff."""
    new = contents([10.0, 11.0, 12.0, 13.0, 7.0], rows(1, 2, 3, 4, 0), 4)
    before = remembered([1.0, 0.0, 3.0, 0.0, 9.0], rows(3, None, 5, None, 0), 4)
    found, _ = slots_in_doubt(4, NO_DOUBT).update(new, before, FEATURES, None)
    assert found.kernels[0, :, 0].tolist() == [12, 13, 3, 11, 7]
    assert found.linked[0, :, 0].tolist() == [12, 13, 3, 11]
    shown = found.mask_logits[0, :, :, 0] > 0
    assert shown.nonzero().tolist() == [[0, 3], [1, 4], [3, 2], [4, 0]]
    assert found.class_logits[0, 2, 0] == -8, "what is not seen, without doubt, is gone"


def test_what_is_in_doubt_stays_as_it_was():
    """All of slot 0, which no seed shows; half of slot 1, of which there is a new mask too."""
    doubt = torch.zeros(1, 1, CELLS, 1)
    doubt[0, 0, :2] = 1
    new = contents([10.0, 20.0, 7.0], rows(2, 4, None), 2)
    before = remembered([4.0, 2.0, 6.0], rows(0, 1, None), 2)
    before.slots.mask_logits[0, 1, 2] = 5.0
    found, finer = slots_in_doubt(2, doubt).update(new, before, FEATURES, torch.ones(1, 3, 1))
    assert found.kernels[0, :, 0].tolist() == [4, 6, 7]
    torch.testing.assert_close(found.class_logits[0, :, 0], torch.tensor([0.4, 0.6, 0.7]))
    shown = found.mask_logits[0, :, :, 0] > 0
    assert shown.nonzero().tolist() == [[0, 0], [1, 1], [1, 2]]
    assert finer[0, :, 0].tolist() == [0, 0.5, 1]


def test_a_first_frame_remembers_nothing():
    new = contents([10.0, 11.0, 7.0], rows(1, 2, 0), 2)
    slots = slots_in_doubt(2, DOUBT)
    memory = slots.recall(slots.remember(new), torch.tensor([False]), new.mask_logits)
    found, _ = slots.update(new, memory, FEATURES, None)
    # by their scores, as there are no objects to go by
    assert found.kernels[0, :, 0].tolist() == [11, 10, 7]
    assert not memory.known.any()


def test_the_state_holds_objects_and_stuff_and_nothing_else():
    """Class logits of 0.1 and -3 are probabilities of 0.52 and 0.05."""
    new = contents([1.0, -30.0, -30.0], 4 * rows(1, 2, 0), 2)
    slots = StickySlots(2, 3, 2)
    state = slots.remember(new)
    assert state.shape == (1, 3, 2 * 2 + 2 + CELLS)
    memory = slots.recall(state, torch.tensor([True]), new.mask_logits)
    assert memory.known.tolist() == [[True, False, True]]
    for part, expected in zip(memory.slots[:3], new[:3], strict=True):
        assert torch.equal(part[:, 0], expected[:, 0])
    assert torch.equal(
        memory.slots.mask_logits, new.mask_logits.clamp(-8, 8) * memory.known[..., None, None]
    )


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = small_version("street").eval()
    assert network.config.kernels.sticky
    return network


@torch.no_grad()
def test_an_image_that_is_all_in_doubt_changes_nothing(network):
    doubt = network.stages[-1].slots.last
    bias, doubt.bias = doubt.bias, torch.nn.Parameter(torch.tensor([30.0]))
    try:
        images = torch.rand(2, 1, 3, 75, 122) * 255
        before, state = network(images[0])
        after, next_state = network(images[1], state)
    finally:
        doubt.bias = bias
    assert tuple(state.kernels.shape[1:]) == network.config.state_shape((75, 122))
    held = state.kernels.abs().amax(2) > 0
    torch.testing.assert_close(next_state.kernels[held], state.kernels[held])
    torch.testing.assert_close(after.class_logits[held], before.class_logits[held])
    things = held[:, : network.thing_kernels]
    torch.testing.assert_close(after.embeddings[things], before.embeddings[things])


def test_sticky_slots_need_seeds_and_one_size():
    config = small_config()
    for key, changes in (("kernels.seeds", {"seeds": False}), ("more_sizes", {})):
        kernels = replace(config.kernels, sticky=True, **changes)
        sizes = () if changes else ((64, 192),)
        with pytest.raises(ValueError, match=key):
            replace(config, kernels=kernels, more_sizes=sizes)
