"""Boxes of a detector: worked examples, and what slower code says."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.boxes import (
    NMS_ROUNDS,
    anchor_boxes,
    box_levels,
    clip,
    decode,
    encode,
    inside,
    mask_boxes,
    nms,
    overlaps,
    paste,
    roi_align,
)


def boxes_of(*rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def random_boxes(number: int, size: float = 40.0, seed: int = 0) -> torch.Tensor:
    """Boxes in an image of 100 x 100."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator) * (100 - size)
    return torch.cat((corner, corner + 2 + torch.rand(number, 2, generator=generator) * size), 1)


def sequential_nms(boxes: torch.Tensor, threshold: float) -> list[int]:
    """Box by box."""
    overlap, kept = overlaps(boxes, boxes).tolist(), list[int]()
    for i in range(len(boxes)):
        if all(overlap[i][j] <= threshold for j in kept):
            kept.append(i)
    return kept


def ramp(height: int, width: int, stride: int) -> torch.Tensor:
    """[1,2,h,w] x and y in pixels of the centres of cells."""
    x = ((torch.arange(width) + 0.5) * stride).expand(height, width)
    y = ((torch.arange(height) + 0.5) * stride)[:, None].expand(height, width)
    return torch.stack((x, y))[None]


def test_anchors_have_the_centres_of_cells_one_area_and_the_ratios():
    anchors = anchor_boxes((2, 3), 8, 32, (0.25, 1.0))
    assert anchors.shape == (12, 4)
    assert anchors[:2].tolist() == [[-28, -4, 36, 12], [-12, -12, 20, 20]]
    assert anchors[-1].tolist() == [4, -4, 36, 28]


def test_the_code_of_a_box_is_its_shift_in_sizes_and_the_logarithm_of_its_scale():
    code = encode(boxes_of([20, 10, 40, 50]), boxes_of([0, 10, 20, 20]), (10, 10, 5, 5))
    assert code[0].tolist() == pytest.approx([10 * 1, 10 * 1.5, 0, 5 * math.log(4)])


def test_decoding_inverts_coding():
    boxes, references = random_boxes(50), random_boxes(50, seed=1)
    weights = (10.0, 10.0, 5.0, 5.0)
    again = decode(encode(boxes, references, weights), references, weights)
    torch.testing.assert_close(again, boxes, atol=1e-3, rtol=0)


def test_no_code_makes_a_box_infinite():
    box = decode(boxes_of([0, 0, 1000, 1000]), boxes_of([0, 0, 16, 16]))
    assert (box[0, 2] - box[0, 0]).item() == pytest.approx(1000)


def test_boxes_are_cut_to_the_image():
    assert clip(boxes_of([-5, 3, 90, 70]), (60, 80)).tolist() == [[0, 3, 80, 60]]


def test_overlap_is_intersection_over_union():
    a, b = boxes_of([0, 0, 10, 10]), boxes_of([5, 0, 15, 10], [20, 0, 30, 10], [0, 0, 10, 10])
    assert overlaps(a, b)[0].tolist() == pytest.approx([50 / 150, 0, 1])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("size", [20.0, 80.0])
def test_suppression_is_that_of_a_loop_over_the_boxes(threshold, size):
    for seed in range(5):
        boxes = random_boxes(150, size, seed)
        kept = nms(boxes, threshold).nonzero().flatten().tolist()
        assert kept == sequential_nms(boxes, threshold)


def test_a_box_that_only_a_dropped_one_overlaps_is_kept():
    shifted = boxes_of(*([4.0 * i, 0, 4.0 * i + 10, 10] for i in range(NMS_ROUNDS)))
    assert nms(shifted, 0.4).tolist() == [1, 0] * (NMS_ROUNDS // 2)


def test_a_chain_needs_a_round_for_each_of_its_boxes():
    shifted = boxes_of(*([4.0 * i, 0, 4.0 * i + 10, 10] for i in range(6)))
    assert nms(shifted, 0.4, rounds=5).tolist() == [1, 0, 1, 0, 1, 0]
    assert nms(shifted, 0.4, rounds=2).tolist() != [1, 0, 1, 0, 1, 0]


def test_frames_of_a_batch_are_suppressed_by_themselves():
    frames = torch.stack([random_boxes(60, seed=i) for i in range(3)])
    for together, boxes in zip(nms(frames, 0.5), frames, strict=True):
        assert torch.equal(together, nms(boxes, 0.5))


def test_a_region_of_a_constant_map_is_constant():
    region = roi_align([torch.full((1, 1, 6, 6), 7.0)], [4], boxes_of([3, 2, 17, 11]), zero(1), 3)
    assert region.flatten().tolist() == [7] * 9


@pytest.mark.parametrize("samples", [1, 2])
def test_a_region_of_a_ramp_has_the_places_of_its_cells(samples):
    # cells of a box of 12 x 8 pixels in 2 x 2: centres at 1/4 and 3/4 of its sides
    region = roi_align([ramp(8, 8, 4)], [4], boxes_of([5, 9, 17, 17]), zero(1), 2, samples)
    assert region[0, 0].tolist() == [[8, 14], [8, 14]]
    assert region[0, 1].tolist() == [[11, 11], [15, 15]]


def test_a_region_of_one_cell_is_that_cell():
    """No half pixel is lost: the box of cell (2, 1) has its value alone."""
    values = torch.arange(20.0).view(1, 1, 4, 5)
    assert roi_align([values], [4], boxes_of([4, 8, 8, 12]), zero(1), 1).item() == 11


def test_beyond_the_map_its_border_goes_on():
    region = roi_align([ramp(4, 4, 4)], [4], boxes_of([-8, -8, 0, 0]), zero(1), 1)
    assert region.flatten().tolist() == [2, 2]


def test_each_region_is_read_from_its_frame():
    frames = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    boxes = boxes_of([0, 0, 8, 8], [0, 0, 8, 8], [4, 4, 9, 9])
    region = roi_align([frames], [4], boxes, torch.tensor([2, 0, 1]), 1)
    assert region.flatten().tolist() == [2, 0, 1]


def test_large_boxes_are_read_from_coarse_levels():
    sides = (20, 111, 112, 224, 448, 2000)
    boxes = boxes_of(*([0, 0, side, side] for side in sides))
    assert box_levels(boxes, 4).tolist() == [0, 0, 1, 2, 3, 3]
    pyramid = [torch.full((1, 1, 128 >> i, 128 >> i), float(i)) for i in range(4)]
    region = roi_align(pyramid, (4, 8, 16, 32), boxes, zero(len(sides)), 1)
    assert region.flatten().tolist() == [0, 0, 1, 2, 3, 3]


def test_gradients_of_a_region_reach_the_map():
    values = torch.zeros(1, 1, 4, 4, requires_grad=True)
    roi_align([values], [4], boxes_of([4, 4, 8, 8]), zero(1), 1).sum().backward()
    assert values.grad.nonzero().tolist() == [[0, 0, 1, 1]]


def test_a_mask_is_pasted_where_its_box_is():
    mask = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    box = boxes_of([8, 4, 16, 12])
    pasted, where = paste(mask, box, (4, 6), 4), inside(box, (4, 6), 4)
    assert pasted[0, 1:3, 2:4].tolist() == mask[0].tolist()
    assert where[0].nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_pasting_inverts_reading_a_region_of_a_ramp():
    box = boxes_of([6, 5, 27, 24])
    region = roi_align([ramp(8, 8, 4)], [4], box, zero(1), 28)
    pasted, where = paste(region[:, 0], box, (8, 8), 4), inside(box, (8, 8), 4)
    torch.testing.assert_close(pasted[where], ramp(8, 8, 4)[:, 0][where], atol=0.5, rtol=0)


def test_the_box_of_a_mask_ends_where_its_outermost_cells_do():
    # a rectangle of x 6..16, y 4..10 on cells of 4 pixels
    mask = torch.zeros(5, 6)
    mask[1, 1:4], mask[2, 1:4] = torch.tensor([0.5, 1, 1]), torch.tensor([0.25, 0.5, 0.5])
    left, top, right, bottom = mask_boxes(mask, 4).tolist()
    assert (left, top, right) == pytest.approx((5.5, 4, 16))  # at least 5/8 of a cell
    assert bottom == pytest.approx(10.5)


def test_the_box_of_a_mask_of_a_cell_has_an_area():
    mask = torch.zeros(1, 4, 4)
    mask[0, 2, 1] = 0.1
    left, top, right, bottom = mask_boxes(mask, 4)[0].tolist()
    assert 4 <= left < right <= 8 and 8 <= top < bottom <= 12


def zero(number: int) -> torch.Tensor:
    return torch.zeros(number, dtype=torch.int64)
