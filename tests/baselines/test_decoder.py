"""The decoder of Panoptic-DeepLab."""

from __future__ import annotations

import pytest
import torch

from baselines.decoder import Decoder, head, instance_decoder, semantic_decoder

CHANNELS = (6, 8, 10, 12)


def pyramid(batch: int = 2, strides: tuple[int, ...] = (4, 8, 16, 32)) -> list:
    torch.manual_seed(0)
    return [
        torch.randn(batch, c, 128 // s, 64 // s) for c, s in zip(CHANNELS, strides, strict=True)
    ]


def dilations(decoder: Decoder) -> list[int]:
    return [branch[0].dilation[0] for branch in decoder.context.branches[1:]]


@pytest.mark.parametrize(
    ("stride", "rates"), [(32, [3, 6, 9]), (16, [6, 12, 18]), (8, [12, 24, 36])]
)
def test_dilations_reach_as_many_pixels_at_each_output_stride(stride, rates):
    assert dilations(semantic_decoder(CHANNELS, 16, stride)) == rates


def test_the_map_has_stride_4():
    decoder = semantic_decoder(CHANNELS, 16, 32)
    assert decoder(pyramid()).shape == (2, 16, 32, 16)


def test_a_backbone_of_output_stride_8_has_a_map_of_stride_4_too():
    decoder = semantic_decoder(CHANNELS, 16, 8)
    assert decoder(pyramid(strides=(4, 8, 8, 8))).shape == (2, 16, 32, 16)


def test_widths_are_the_published_ones_at_256_channels():
    semantic, instance = (make(CHANNELS, 256, 32) for make in (semantic_decoder, instance_decoder))
    skips = [[skip[0].out_channels for skip in d.skips] for d in (semantic, instance)]
    fused = [d.fusions[-1][3].out_channels for d in (semantic, instance)]
    context = [d.context.project[0].out_channels for d in (semantic, instance)]
    assert (skips, fused, context) == ([[64, 32], [32, 16]], [256, 128], [256, 256])


def test_a_batch_gives_what_its_frames_give_alone():
    decoder = semantic_decoder(CHANNELS, 16, 32).eval()
    maps = pyramid()
    alone = torch.cat([decoder([level[i : i + 1] for level in maps]) for i in range(2)])
    torch.testing.assert_close(decoder(maps), alone)


def test_a_single_frame_can_be_learned_from():
    decoder = semantic_decoder(CHANNELS, 16, 32).train()
    decoder(pyramid(batch=1)).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


def test_a_new_head_predicts_nearly_nothing():
    layers = head(16, 32, 3).eval()
    assert layers(torch.randn(1, 16, 8, 8)).abs().max() < 0.5
