"""Maps of many slots: counting their pixels and making them larger."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from video_knet_core.model.merge import (
    enlarge_slots_last,
    enlarged_slots_last,
    slot_areas,
    slot_sums,
)


@pytest.mark.parametrize("slots", [1, 2, 4, 58, 64, 254])
def test_slot_areas_are_counts(slots):
    generator = torch.Generator().manual_seed(slots)
    winner = torch.randint(-1, slots, (37, 53), generator=generator)
    expected = torch.bincount(winner.flatten() + 1, minlength=slots + 1)[1:]
    assert torch.equal(slot_areas(winner, slots), expected.float())


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_enlarging_with_slots_last_is_bilinear_resizing(factor):
    maps = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    plain = interpolate(maps[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(enlarge_slots_last(maps, factor).permute(2, 0, 1), plain)


@pytest.mark.parametrize("slots", [1, 3, 124])
def test_slot_sums_add_up_the_values_of_each_slot(slots):
    generator = torch.Generator().manual_seed(slots)
    winner = torch.randint(-1, slots, (19, 23), generator=generator)
    values = torch.rand(19, 23, generator=generator)
    expected = torch.stack([values[winner == slot].sum() for slot in range(slots)])
    torch.testing.assert_close(slot_sums(winner, values, slots), expected)


def test_an_enlarged_map_leaves_out_the_padding():
    """An image of 40 x 60 pixels is padded to 64 x 64; its map is of the image alone."""
    maps = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = enlarged_slots_last(maps, 2, (40, 60))
    assert torch.equal(found, enlarge_slots_last(maps, 2)[:20, :30])
