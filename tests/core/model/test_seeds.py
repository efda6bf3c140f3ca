"""Thing kernels that start on the instances of the image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import small_config, small_network

from video_knet_core.config_io import ConfigError
from video_knet_core.model.position import CODE_SIZE
from video_knet_core.model.seeds import InstanceSeeds, convolve_parts

ROAD, POLE, VEHICLE = 0, 4, 10


class FirstChannel(torch.nn.Module):
    """Heat by definition."""

    def forward(self, appearance: torch.Tensor, *other_cues: torch.Tensor) -> torch.Tensor:
        return appearance[:, :1]


def seeds_of_first_channel(count: int) -> InstanceSeeds:
    """Seeds whose heat is the first channel and whose kernels are the two features."""
    seeds = InstanceSeeds(2 + CODE_SIZE, count)
    seeds.heat = FirstChannel()
    with torch.no_grad():
        seeds.kernel.weight.copy_(torch.eye(*seeds.kernel.weight.shape))
        seeds.kernel.bias.zero_()
    return seeds


def test_convolving_parts_is_convolving_their_concatenation():
    """Also where a part is the same for all images; and gradients reach the weights."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(9, 5, 1).double()
    first, code, last = (torch.randn(b, c, 4, 6).double() for b, c in ((2, 3), (1, 4), (2, 2)))
    plain = convolution(torch.cat((first, code.expand(2, -1, -1, -1), last), 1))
    ours = convolve_parts(convolution, first, code, last)
    torch.testing.assert_close(ours, plain)
    expected = torch.autograd.grad(plain.square().sum(), convolution.weight)
    found = torch.autograd.grad(ours.square().sum(), convolution.weight)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_seeds_get_the_features_with_the_position_code():
    """Against the definition: the cues of all parts together, cell by cell."""
    torch.manual_seed(1)
    seeds = InstanceSeeds(6 + CODE_SIZE, 5).double()
    appearance, code, centers = (
        torch.randn(b, c, 5, 7).double() for b, c in ((2, 6), (1, CODE_SIZE), (2, CODE_SIZE))
    )
    found = seeds(appearance, code, centers)
    cues = torch.cat((appearance, code.expand(2, -1, -1, -1), centers * code), 1)
    heat = torch.nn.Sequential(*seeds.heat)(cues)
    torch.testing.assert_close(found.heat, heat.float())
    all_kernels = seeds.kernel(torch.cat((cues, heat), 1).flatten(2).transpose(1, 2))
    for kernels, logits, candidates, row in zip(
        found.kernels, found.logits, all_kernels, heat.flatten(1), strict=True
    ):
        cells = [int((row.float() - logit).abs().argmin()) for logit in logits]
        torch.testing.assert_close(kernels, candidates[cells], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_kernels_are_the_features_of_the_peaks_the_hottest_first():
    features = torch.zeros(1, 2, 6, 8)
    features[0, 1] = torch.arange(48).reshape(6, 8)
    features[0, 0, 1, 1], features[0, 0, 1, 2], features[0, 0, 4, 6] = 5, 4, 3  # one peak is wide
    code = torch.zeros(1, CODE_SIZE, 6, 8)
    seeds = seeds_of_first_channel(2)(features, code, code)
    assert seeds.kernels[0, :, 1].tolist() == [1 * 8 + 1, 4 * 8 + 6]
    assert seeds.logits.tolist() == [[5, 3]]


@torch.no_grad()
def test_where_peaks_are_few_the_other_seeds_are_the_next_hottest_cells():
    features = torch.zeros(1, 2, 6, 8)
    features[0, 0] = -torch.arange(48).reshape(6, 8)  # one peak, in the corner
    features[0, 1] = torch.arange(48).reshape(6, 8)
    code = torch.zeros(1, CODE_SIZE, 6, 8)
    seeds = seeds_of_first_channel(3)(features, code, code)
    assert seeds.kernels[0, :, 1].tolist() == [0, 1, 2]
    assert seeds.logits.tolist() == [[0, -1, -2]]


@torch.no_grad()
def test_a_seeded_network_has_a_heat_map_and_no_learned_kernels():
    network = small_network(seeds=True, fusion="link_atten")
    prediction, _ = network(torch.rand(1, 3, 64, 96) * 255)
    assert prediction.head.seeds.heat.shape == (1, 1, 16, 24)
    assert prediction.head.seeds.logits.shape == (1, 6)
    assert prediction.mask_logits.shape == (1, 6 + 8, 16, 24)
    assert not [name for name, _ in network.named_parameters() if "thing_" in name]


@pytest.mark.parametrize(
    "setting",
    [
        {"centers": False},
        {"position": False},
        {"fusion": "update_dynamic_cov"},
        {"linking": "update_obj"},
    ],
)
def test_what_pairs_kernels_by_slot_does_not_go_with_seeds(setting):
    ((key, got),) = setting.items()
    with pytest.raises(ConfigError, match=f"kernels.{key}: .*, got {got!r}"):
        small_config(**{"seeds": True, "fusion": "link_atten"} | setting)


def test_there_cannot_be_more_seeds_than_cells():
    config = small_config(seeds=True, things=64)
    with pytest.raises(ConfigError, match="kernels.things: .* 8 x 8 cells .*, got 65"):
        replace(config, width=32, height=32, kernels=replace(config.kernels, things=65))
