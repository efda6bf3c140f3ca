"""The merge of task semantic: a class for every pixel, and how sure that is."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from video_knet_core.config import PanopticConfig
from video_knet_core.model.merge import merge_classes

CONFIG = PanopticConfig(upsample=2)


def logits(classes: int = 7) -> torch.Tensor:
    """[K,8,8] of an image of 44 x 64 pixels, padded to 64 x 64: 11 x 16 pixels of the map."""
    return 3 * torch.randn(classes, 8, 8, generator=torch.Generator().manual_seed(1))


def enlarged(maps: torch.Tensor) -> torch.Tensor:
    """[K,11,16]"""
    large = interpolate(maps[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    return large[:, :11]


def test_each_pixel_has_the_class_of_its_largest_enlarged_logit():
    result = merge_classes(logits(), CONFIG, (44, 64))
    assert torch.equal(result.segment_map.long(), enlarged(logits()).argmax(0) + 1)
    assert result.segment_map.dtype == torch.uint8
    assert result.logit_classes.tolist() == list(range(7))


def test_areas_count_the_pixels_of_each_class():
    result = merge_classes(logits(), CONFIG, (44, 64))
    counts = torch.bincount(result.segment_map.flatten().long(), minlength=8)
    assert counts[0] == 0
    assert result.areas.tolist() == counts[1:].tolist()


def test_a_score_is_the_mean_softmax_probability_of_the_pixels_of_a_class():
    result = merge_classes(logits(), CONFIG, (44, 64))
    probabilities, winner = enlarged(logits()).softmax(0).max(0)
    expected = torch.stack([probabilities[winner == k].mean() for k in range(7)])
    torch.testing.assert_close(result.scores, expected)


def test_a_class_without_pixels_has_score_and_area_zero():
    maps = logits()
    maps[4] = -100.0
    result = merge_classes(maps, CONFIG, (44, 64))
    assert (result.areas[4], result.scores[4]) == (0, 0)
    assert torch.isfinite(result.scores).all()


def test_large_logits_do_not_overflow():
    result = merge_classes(1e4 * logits(), CONFIG, (44, 64))
    assert torch.isfinite(result.scores).all() and result.scores.max() <= 1


def test_a_single_class_has_every_pixel():
    result = merge_classes(logits(1), CONFIG, (44, 64))
    assert (result.areas.tolist(), result.scores.tolist()) == ([11 * 16], [1.0])
