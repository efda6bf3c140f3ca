"""The merge of task instance: whole masks, and the frontmost of them in each pixel."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from video_knet_core.config import PanopticConfig
from video_knet_core.model.merge import merge_instances

CONFIG = PanopticConfig(score_threshold=0.3, upsample=1)
SIZE = (32, 64)
OUT, LIKELY, SURE = -8.0, 1.0, 8.0


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Three slots of two classes on a 4 x 8 map: two that overlap in columns 3 and 4, and one that
    is too uncertain."""
    classes = torch.tensor([[OUT, 2.0], [3.0, OUT], [-3.0, OUT]])
    masks = torch.full((3, 4, 8), OUT)
    masks[0, :, :5] = LIKELY
    masks[1, :, 3:] = LIKELY
    masks[2] = SURE
    return classes, masks


def test_masks_are_whole_where_they_overlap():
    result = merge_instances(*scene(), CONFIG, SIZE)
    assert result.masks.dtype == torch.uint8 and result.masks.shape == (3, 4, 8)
    assert result.masks[0].tolist() == [[1] * 5 + [0] * 3] * 4
    assert result.masks[1].tolist() == [[0] * 3 + [1] * 5] * 4


def test_areas_are_of_whole_masks():
    assert merge_instances(*scene(), CONFIG, SIZE).areas.tolist() == [20, 20, 0]


def test_a_slot_has_the_score_and_the_class_of_its_best_logit():
    result = merge_instances(*scene(), CONFIG, SIZE)
    torch.testing.assert_close(result.scores, torch.tensor([2.0, 3.0, -3.0]).sigmoid())
    assert result.logit_classes.tolist() == [1, 0, 0]


def test_a_slot_below_the_score_threshold_has_no_mask():
    result = merge_instances(*scene(), CONFIG, SIZE)
    assert not result.masks[2].any() and 3 not in result.segment_map


def test_the_map_shows_the_best_score_times_mask_probability():
    classes, masks = scene()
    result = merge_instances(classes, masks, CONFIG, SIZE)
    assert result.segment_map.tolist() == [[1] * 3 + [2] * 5] * 4  # the surer of two equal masks
    masks[0, 0] = SURE * (masks[0, 0] > 0)
    result = merge_instances(classes, masks, CONFIG, SIZE)
    assert result.segment_map[0].tolist() == [1] * 5 + [2] * 3
    assert result.segment_map[1].tolist() == [1] * 3 + [2] * 5


def test_pixels_of_no_mask_are_background():
    classes, masks = scene()
    masks[:, 0] = OUT
    result = merge_instances(classes, masks, CONFIG, SIZE)
    assert not result.segment_map[0].any() and not result.masks[:, 0].any()


def test_an_instance_behind_others_keeps_its_mask():
    classes, masks = scene()
    masks[0], masks[1] = LIKELY, SURE
    result = merge_instances(classes, masks, CONFIG, SIZE)
    assert (result.segment_map == 2).all()
    assert result.areas.tolist() == [32, 32, 0]


def test_masks_are_those_of_enlarged_logits_without_the_padding():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(9, 5, generator=generator)
    masks = 3 * torch.randn(9, 8, 8, generator=generator)
    config = PanopticConfig(score_threshold=0.75, upsample=2)
    result = merge_instances(classes, masks, config, (44, 64))
    large = interpolate(masks[None], scale_factor=2, mode="bilinear", align_corners=False)[0]
    scores = classes.sigmoid().amax(1)
    expected = (large[:, :11] > 0) & (scores >= 0.75)[:, None, None]
    assert torch.equal(result.masks, expected.to(torch.uint8))
    rank = torch.where(expected, large[:, :11].sigmoid() * scores[:, None, None], 0)
    front = torch.where(expected.any(0), rank.argmax(0) + 1, 0)
    assert torch.equal(result.segment_map.long(), front)
    assert 0 < (result.areas > 0).sum() < 9
