"""Position codes: of cells in the neck, and of instance centres as a training goal."""

from __future__ import annotations

import torch
from networks import small_network

from video_knet_core.model.position import (
    CODE_SIZE,
    position_code,
    position_map,
    scattered_places,
)


def test_codes_are_most_similar_at_the_same_place():
    places = torch.linspace(0.05, 0.95, 19)
    codes = position_code(places, places)
    similarity = codes @ codes.T
    assert codes.shape == (19, CODE_SIZE)
    assert (similarity.argmax(1) == torch.arange(19)).all()
    assert torch.allclose(similarity.diagonal(), torch.full((19,), CODE_SIZE / 2))


def test_a_map_holds_the_code_of_each_cells_centre():
    code = position_map(torch.zeros(1, 3, 4, 8))
    assert code.shape == (1, CODE_SIZE, 4, 8)
    assert torch.allclose(
        code[0, :, 1, 6], position_code(torch.tensor(1.5 / 4), torch.tensor(6.5 / 8))
    )


def test_a_scattered_place_is_where_its_code_is_largest():
    places = scattered_places(10)
    y, x = (torch.arange(10) + 0.5) / 10, (torch.arange(10) * 0.6180339887) % 1
    heights = places @ position_code(y, x).T
    assert torch.allclose(heights.diagonal(), torch.full((10,), 3.0), atol=1e-4)
    assert (heights.argmax(1) == torch.arange(10)).all()


@torch.no_grad()
def test_a_kernel_can_be_a_place():
    """With equal appearance everywhere, the mask of a thing kernel lies around the place it has."""
    head = small_network(position=True, seeds=False).head
    head.thing_kernels.zero_()
    head.thing_places.copy_(position_code(torch.tensor([0.25] * 6), torch.tensor([0.75] * 6)))
    masks = head(torch.rand(1, 32, 16, 24)).mask_logits
    row, column = divmod(int(masks[0, 0].argmax()), 24)
    assert (row, column) in {(3, 17), (3, 18), (4, 17), (4, 18)}


def test_only_a_network_that_learns_centers_gives_their_codes():
    image = torch.rand(1, 3, 64, 96) * 255
    with torch.no_grad():
        assert small_network(centers=True)(image)[0].head.centers.shape == (1, CODE_SIZE, 16, 24)
        assert small_network(centers=False, seeds=False)(image)[0].head.centers is None
