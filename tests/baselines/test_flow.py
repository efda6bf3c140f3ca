"""Flow between feature maps, and fusion by it, with flow that is known."""

from __future__ import annotations

import pytest
import torch

from baselines.flow import RADIUS, AlignedFusion, CorrelationFlow, correlation, displacements, warp


def random_map(channels: int = 16, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))


def moved(features: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """What is at p is at p + (dx, dy) in the result."""
    return features.roll((dy, dx), (2, 3))


def constant_flow(dx: float, dy: float, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.tensor([float(dx), float(dy)]).view(1, 2, 1, 1).expand(1, 2, height, width)


def inner(x: torch.Tensor, border: int = RADIUS) -> torch.Tensor:
    return x[..., border:-border, border:-border]


def test_without_flow_a_map_stays_as_it_is():
    features = random_map()
    torch.testing.assert_close(warp(features, constant_flow(0, 0), 4), features)


def test_a_moved_map_is_moved_back_by_its_flow():
    features = random_map()
    back = warp(moved(features, 3, -2), constant_flow(3 * 4, -2 * 4), 4)
    torch.testing.assert_close(inner(back), inner(features), atol=1e-4, rtol=0)


def test_half_a_cell_of_flow_is_the_mean_of_two_cells():
    row = torch.tensor([0.0, 2, 4, 10]).view(1, 1, 1, 4)
    assert warp(row, constant_flow(4, 0, 1, 4), 8).flatten().tolist() == [1, 3, 7, 10]


def test_correlation_is_the_product_with_each_displaced_cell():
    target, reference = random_map(4, 5, 6), random_map(4, 5, 6).flip(3)
    cost, moves = correlation(target, reference, 2), displacements(2)
    assert cost.shape == (1, 25, 5, 6)
    for k, (dx, dy) in enumerate(moves.int().tolist()):
        y, x = 2, 3
        expected = (target[0, :, y, x] * reference[0, :, y + dy, x + dx]).sum() if x + dx < 6 else 0
        assert cost[0, k, y, x].item() == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-4, 4), (1, 0)])
def test_the_flow_of_a_moved_map_is_found(dx, dy):
    finder = CorrelationFlow(16, 16, 8)
    target, reference = (finder.embed(x) for x in (random_map(), moved(random_map(), dx, dy)))
    flow = finder(target, reference)
    expected = constant_flow(8 * dx, 8 * dy)
    assert (inner(flow) - inner(expected)).abs().max() < 2
    assert (inner(flow) - inner(expected)).abs().mean() < 0.2


def test_flow_learns_from_what_is_warped_by_it():
    finder = CorrelationFlow(16, 16, 8)
    target, reference = (finder.embed(x) for x in (random_map(), moved(random_map(), 1, 0)))
    warp(random_map(), finder(target, reference), 8).square().sum().backward()
    assert all(p.grad is not None for p in finder.parameters())
    assert finder.sharpness.grad.abs() > 0 and finder.embedding.weight.grad.abs().sum() > 0


def test_a_frame_fused_with_itself_stays_as_it_is():
    fusion, features = AlignedFusion(16), random_map()
    fused = fusion(features, features, constant_flow(0, 0), 4)
    torch.testing.assert_close(fused, features)


def test_a_reference_that_is_equal_has_half_the_weight():
    weight = AlignedFusion(16).reference_weight(random_map(), random_map())
    torch.testing.assert_close(weight, torch.full_like(weight, 0.5))


def test_a_reference_that_differs_has_less_weight():
    fusion, features = AlignedFusion(16), random_map()
    weight = fusion.reference_weight(features, -3 * features)
    same = fusion.reference_weight(features, features)
    assert weight.mean() < 0.45 < same.mean()


def test_a_moved_reference_is_realigned_before_it_is_fused():
    fusion, features = AlignedFusion(16), random_map()
    reference = moved(features, 2, 1)
    fused = fusion(features, reference, constant_flow(8, 4), 4)
    torch.testing.assert_close(inner(fused), inner(features), atol=1e-4, rtol=0)
    assert (inner(fusion(features, reference, constant_flow(0, 0), 4) - features)).abs().max() > 0.1


def test_flow_may_be_coarser_than_the_features():
    fusion, features = AlignedFusion(16), random_map()
    fused = fusion(features, moved(features, 2, 1), constant_flow(8, 4, 6, 8), 4)
    torch.testing.assert_close(inner(fused), inner(features), atol=1e-4, rtol=0)
