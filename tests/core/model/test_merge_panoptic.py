from __future__ import annotations

from itertools import product
from math import floor

import pytest
import torch
from torch.nn.functional import interpolate

from video_knet_core.config import PanopticConfig
from video_knet_core.model.merge import authors_boxes, merge_panoptic, slot_classes

# two things (of two thing classes) and two stuff classes on a 4 x 8 map
SURE, UNSURE, OUT, IN = 4.0, -4.0, -8.0, 8.0
SIZE = (32, 64)
CONFIG = PanopticConfig(score_threshold=0.3, overlap_threshold=0.6, upsample=1)
REFERENCE = PanopticConfig(
    merge="reference", score_threshold=0.25, overlap_threshold=0.6, upsample=1
)


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    """Slot 0: an object on the left half of the lower rows. Slots 2, 3: stuff above and below."""
    classes = torch.full((4, 4), UNSURE)
    classes[0, 1] = classes[2, 2] = classes[3, 3] = SURE
    masks = torch.full((4, 4, 8), OUT)
    masks[0, 2:, :4] = IN
    masks[2, :2] = IN
    masks[3, 2:, 4:] = IN
    return classes, masks


def test_each_pixel_goes_to_the_best_slot():
    result = merge_panoptic(*scene(), thing_classes=2, config=CONFIG, image_size=SIZE)
    expected = torch.tensor([[3] * 8] * 2 + [[1] * 4 + [4] * 4] * 2, dtype=torch.uint8)
    assert torch.equal(result.segment_map, expected)
    assert result.areas.tolist() == [8, 0, 16, 8]
    assert result.logit_classes.tolist()[0] == 1
    assert result.logit_classes.tolist()[2:] == [2, 3]


def test_of_two_equal_slots_the_first_gets_the_pixels():
    classes, masks = scene()
    classes[1], masks[1] = classes[0], masks[0]
    result = merge_panoptic(classes, masks, thing_classes=2, config=CONFIG, image_size=SIZE)
    assert result.areas.tolist() == [8, 0, 16, 8]


def test_a_thing_below_the_score_threshold_leaves_its_pixels_to_others():
    classes, masks = scene()
    classes[0] = UNSURE
    masks[3, 2:, :4] = 0.1
    result = merge_panoptic(classes, masks, thing_classes=2, config=CONFIG, image_size=SIZE)
    assert result.areas.tolist() == [0, 0, 16, 16]


def test_a_slot_that_lost_most_of_its_mask_is_dropped():
    classes, masks = scene()
    classes[1, 0] = 2.0
    masks[1, 2:, :5] = 2.0  # mostly under the surer slot 0
    result = merge_panoptic(classes, masks, thing_classes=2, config=CONFIG, image_size=SIZE)
    assert result.areas.tolist() == [8, 0, 16, 8]


def test_areas_count_the_pixels_of_the_map():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(9, 7, generator=generator)
    masks = torch.randn(9, 12, 16, generator=generator)
    result = merge_panoptic(
        classes, masks, thing_classes=3, config=PanopticConfig(), image_size=(96, 128)
    )
    assert result.segment_map.shape == (24, 32)
    counts = torch.bincount(result.segment_map.flatten().long(), minlength=10)[1:]
    assert torch.equal(counts, result.areas)


def test_a_map_leaves_out_the_padding():
    """An image of 40 x 60 pixels is padded to 64 x 64; the map is of the image alone."""
    classes, masks = torch.zeros(4, 4), torch.zeros(4, 16, 16)
    fast = merge_panoptic(classes, masks, thing_classes=2, config=CONFIG, image_size=(40, 60))
    assert fast.segment_map.shape == (10, 15)
    exact = merge_panoptic(classes, masks, thing_classes=2, config=REFERENCE, image_size=(40, 60))
    assert exact.segment_map.shape == (40, 60)


def test_in_the_reference_merge_a_dropped_thing_leaves_its_pixels_unassigned():
    classes, masks = scene()
    classes[0] = -1.5  # a score of 0.18 still wins the pixels
    masks[3, 2:, :4] = -2.0
    result = merge_panoptic(classes, masks, thing_classes=2, config=REFERENCE, image_size=SIZE)
    assert result.areas.tolist()[0] == 0
    assert (result.segment_map[20:, :28] == 0).all()


def test_in_the_reference_merge_stuff_needs_a_share_of_its_mask_too():
    classes, masks = scene()
    masks[3, 2:] = 1.0  # everywhere below, but half of it belongs to slot 0
    assert merge_panoptic(*scene(), 2, REFERENCE, SIZE).areas[3] > 0
    assert merge_panoptic(classes, masks, 2, REFERENCE, SIZE).areas[3] == 0
    assert merge_panoptic(classes, masks, 2, CONFIG, SIZE).areas[3] > 0


def test_boxes_of_the_authors_are_tight_inclusive_and_of_thing_pixels_only():
    segment_map = torch.zeros(8, 8, dtype=torch.uint8)
    segment_map[1:5, 2:8] = 2
    semantic = torch.zeros(3, 8, 8)
    semantic[2, :, 6:] = 5  # stuff, for the semantic branch
    semantic[0, :, :6] = 5
    boxes = authors_boxes(segment_map, semantic, slots=3, thing_classes=2)
    assert boxes.tolist() == [[-1, -1, 10, 10], [2, 1, 5, 4], [-1, -1, 10, 10]]


def merged_pixel_by_pixel(classes, masks, thing_classes, config) -> torch.Tensor:
    """The map of the fast merge as its docstrings define it, with loops over slots and pixels."""
    things = len(classes) - (classes.shape[1] - thing_classes)
    scores, _ = slot_classes(classes, things, thing_classes)
    weighted = masks.sigmoid() * scores[:, None, None]
    alive = [n >= things or scores[n] >= config.score_threshold for n in range(len(scores))]
    nothing = torch.zeros_like(weighted[0])
    winner = torch.stack([w if a else nothing for w, a in zip(weighted, alive, strict=True)])
    winner = winner.argmax(0)
    for n in range(len(scores)):
        won, own = int((winner == n).sum()), int((masks[n] > 0).sum())
        if won == 0 or (n < things and won < config.overlap_threshold * own):
            alive[n] = False
    left = torch.stack([w if a else nothing for w, a in zip(weighted, alive, strict=True)])
    best, factor = left.argmax(0), config.upsample
    size = [factor * cells for cells in best.shape]
    large = interpolate(masks[None], size=size, mode="bilinear")[0].sigmoid()
    merged = torch.zeros(size, dtype=torch.uint8)
    for y, x in product(*map(range, size)):
        rows, columns = (
            {min(max(int(floor((i + 0.5) / factor - 0.5)) + d, 0), cells - 1) for d in (0, 1)}
            for i, cells in zip((y, x), best.shape, strict=True)
        )
        candidates = {int(best[row, column]) for row in rows for column in columns}
        values = {n: float(large[n, y, x] * scores[n] * alive[n]) for n in candidates}
        slot = max(values, key=values.__getitem__)
        merged[y, x] = slot + 1 if values[slot] else 0
    return merged


@pytest.mark.parametrize("upsample", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_the_fast_merge_equals_its_definition(seed, upsample):
    generator = torch.Generator().manual_seed(seed)
    classes = 2 * torch.randn(20, 8, generator=generator)
    classes[-5:] -= 1.0  # stuff, which wins what no thing is sure of
    masks = interpolate(3 * torch.randn(1, 20, 4, 6, generator=generator), size=(16, 24))[0]
    config = PanopticConfig(upsample=upsample, overlap_threshold=0.15)
    result = merge_panoptic(classes, masks, 3, config, image_size=(64, 96))
    expected = merged_pixel_by_pixel(classes, masks, 3, config)
    assert torch.equal(result.segment_map, expected)
    stay = (result.areas[:15] > 0).sum()
    assert 0 < stay < (result.scores[:15] >= config.score_threshold).sum()


def test_finer_edges_are_those_of_enlarged_masks():
    """Where a few slots meet, the winners of the cells around are all that can win a pixel."""
    generator = torch.Generator().manual_seed(0)
    masks = interpolate(4 * torch.randn(1, 8, 4, 6, generator=generator), (32, 56), mode="bicubic")
    classes = torch.full((8, 8), 3.0)  # one thing and seven classes of stuff, equally sure
    finer = merge_panoptic(
        classes, masks[0], 1, PanopticConfig(upsample=4, overlap_threshold=0), (128, 224)
    )
    large = interpolate(masks, scale_factor=4, mode="bilinear")[0]
    assert (finer.segment_map == large.argmax(0) + 1).float().mean() > 0.995
    coarse = merge_panoptic(
        classes, masks[0], 1, PanopticConfig(upsample=1, overlap_threshold=0), (128, 224)
    )
    blocks = coarse.segment_map.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert (blocks == large.argmax(0) + 1).float().mean() < 0.97


def test_finer_edges_of_an_image_that_is_padded():
    """Masks cover 64 x 96, of which the image has 40 x 90: no edge moves, no pixel is added."""
    generator = torch.Generator().manual_seed(1)
    classes, masks = torch.zeros(5, 5), torch.randn(5, 16, 24, generator=generator)
    whole, part = (
        merge_panoptic(classes, masks, 1, PanopticConfig(upsample=2), size).segment_map
        for size in ((64, 96), (40, 90))
    )
    assert part.shape == (20, 45)
    assert torch.equal(part, whole[:20, :45])
