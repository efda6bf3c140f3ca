"""Centres and offsets: what is learned, and how pixels become segments."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.centers import (
    CENTER_WEIGHT,
    HARD_PIXELS,
    SMALL_WEIGHT,
    Maps,
    center_cells,
    find_centers,
    heat_loss,
    nearest_center,
    offset_loss,
    panoptic_losses,
    render_heat,
    segments_of,
    semantic_loss,
    with_identity,
)
from video_knet_core.training.targets import ANY_STUFF, IGNORE, FrameTargets

STUFF, THINGS = 2, 2


def truth(*instances, ids=None, classes=None, height=8, width=12, anonymous=None) -> FrameTargets:
    """Targets of a frame of stuff class 0 with rectangles (top, left, bottom, right) in cells, of
    ids 1, 2, ... and of thing class 0 if nothing else is said."""
    count = len(instances)
    segments = torch.zeros(1, STUFF + count, height, width)
    segments[:, 0] = 1
    owners = torch.zeros(1, height, width, dtype=torch.int64)
    semantic = torch.full((1, height, width), THINGS)
    kinds = classes or [0] * count
    for n, (top, left, bottom, right) in enumerate(instances):
        box = (slice(None), slice(top, bottom), slice(left, right))
        segments[:, 0][box], segments[:, STUFF + n][box] = 0, 1
        owners[box], semantic[box] = STUFF + n, kinds[n]
    return FrameTargets(
        segments=segments,
        classes=torch.tensor([kinds]).view(1, count),
        ids=torch.tensor([ids or range(1, count + 1)], dtype=torch.int64).view(1, count),
        owners=owners,
        semantic=semantic,
        valid=torch.ones(1, height, width),
        some_stuff=torch.zeros(1, height, width),
        depth=torch.zeros(1, height, width),
    )


def perfect(targets: FrameTargets) -> Maps:
    """What a trained network predicts."""
    height, width = targets.semantic.shape[1:]
    centers = center_cells(targets)[0]
    semantic = torch.full((1, THINGS + STUFF, height, width), -20.0)
    semantic.scatter_(1, targets.semantic[:, None].clamp(min=0), 20.0)
    offsets = torch.zeros(1, 2, height, width)
    for n, center in enumerate(centers.tolist()):
        rows, columns = torch.where(targets.owners[0] == STUFF + n)
        offsets[0, 0, rows, columns] = center[0] - rows.float()
        offsets[0, 1, rows, columns] = center[1] - columns.float()
    heat = render_heat(centers[None], with_identity(targets), height, width)
    return Maps(semantic, heat, offsets)


def segmented(maps: Maps, instances: int = 4, upsample: int = 1, threshold: float = 0.3):
    return segments_of(maps, THINGS, instances, upsample, threshold)


# --- heat


def test_heat_is_1_at_a_centre_and_falls_off_with_a_sigma_of_a_cell_in_small_images():
    heat = render_heat(torch.tensor([[3.0, 5.0]]), torch.ones(1), 8, 12)
    assert heat[3, 5] == 1
    assert heat[3, 7].item() == pytest.approx(math.exp(-(2**2) / 2))
    assert heat[2, 6].item() == pytest.approx(math.exp(-(1 + 1) / 2))


def test_the_sigma_of_large_images_is_the_published_one_of_8_pixels():
    heat = render_heat(torch.tensor([[50.0, 50.0]]), torch.ones(1), 96, 96)
    assert heat[50, 52].item() == pytest.approx(math.exp(-1 / 2))


def test_heat_of_near_centres_is_their_maximum_not_their_sum():
    both = render_heat(torch.tensor([[3.0, 4.0], [3.0, 6.0]]), torch.ones(2), 8, 12)
    assert both[3, 5].item() == pytest.approx(math.exp(-1 / 2))


def test_padding_has_no_heat():
    assert render_heat(torch.tensor([[3.0, 4.0]]), torch.zeros(1), 8, 12).max() == 0
    assert render_heat(torch.zeros(0, 2), torch.zeros(0), 8, 12).max() == 0


# --- losses


def test_perfect_maps_have_no_loss():
    targets = truth((1, 1, 4, 4), (3, 6, 8, 9))
    losses = panoptic_losses(perfect(targets), targets)
    assert {name: round(float(loss), 6) for name, loss in losses.items()} == {
        "semantic": 0,
        "center": 0,
        "offset": 0,
    }


def test_the_centre_is_the_middle_cell_of_an_instance():
    assert center_cells(truth((1, 2, 4, 7))).tolist() == [[[2, 4]]]


def test_an_offset_that_misses_by_a_cell_costs_its_pixels_of_a_full_size_image():
    targets = truth((1, 1, 4, 4))
    maps = perfect(targets)
    moved = maps.offsets + torch.tensor([1.0, 0.0])[:, None, None]
    loss = offset_loss(moved, center_cells(targets), with_identity(targets), targets)
    # 8 cells are 32 of 384 rows, so a cell of 4 pixels is 48 there
    assert loss.item() == pytest.approx(0.01 * 48)


def test_offsets_outside_of_things_do_not_count():
    targets = truth((1, 1, 4, 4))
    maps = perfect(targets)
    offsets = torch.where(targets.owners[:, None] < STUFF, 99.0, maps.offsets)
    assert offset_loss(offsets, center_cells(targets), with_identity(targets), targets) == 0


def test_things_without_identity_count_in_the_semantic_loss_only():
    targets = truth((1, 1, 4, 4), ids=[-1])
    maps = perfect(targets)
    assert maps.heat.max() == 0
    wild = torch.where(targets.owners == STUFF, 5.0, 0.0)
    assert heat_loss(wild, center_cells(targets), targets) == 0
    wrong = maps._replace(offsets=wild[:, None].expand(-1, 2, -1, -1), semantic=-maps.semantic)
    losses = panoptic_losses(wrong, targets)
    assert losses["offset"] == 0 and losses["semantic"] > 10


def test_ignored_cells_count_nowhere():
    targets = truth((1, 1, 4, 4))
    hidden = torch.zeros(1, 8, 12, dtype=torch.bool)
    hidden[:, 6:] = True
    targets = targets._replace(
        owners=torch.where(hidden, IGNORE, targets.owners),
        semantic=torch.where(hidden, IGNORE, targets.semantic),
    )
    maps = perfect(targets)
    wild = Maps(
        torch.where(hidden[:, None], 7.0, maps.semantic),
        torch.where(hidden, 3.0, maps.heat),
        torch.where(hidden[:, None], 9.0, maps.offsets),
    )
    assert sum(panoptic_losses(wild, targets).values()) < 1e-6


def test_some_stuff_is_right_with_any_stuff_class():
    targets = truth()
    targets = targets._replace(semantic=torch.full_like(targets.semantic, ANY_STUFF))
    logits = torch.full((1, THINGS + STUFF, 8, 12), -20.0)
    logits[:, -1] = 20.0
    assert semantic_loss(logits, targets) < 1e-6
    assert semantic_loss(logits.roll(2, 1), targets) > 10  # things


def test_the_semantic_loss_is_the_mean_of_the_hardest_pixels():
    targets = truth()
    logits = perfect(targets).semantic
    hard = int(HARD_PIXELS * 8 * 12)
    for n in range(hard // 2):  # as many cells wrong, by 40 each
        logits[0, :, n // 12, n % 12] = logits[0, :, n // 12, n % 12].roll(1)
    assert semantic_loss(logits, targets).item() == pytest.approx(40 * (hard // 2) / hard, rel=1e-3)


def test_small_instances_weigh_more():
    logits = torch.zeros(1, THINGS + STUFF, 96, 96)
    small, large = (truth((0, 0, n, n), height=96, width=96) for n in (15, 60))
    cells = int(HARD_PIXELS * 96 * 96)
    weight = 1 + (SMALL_WEIGHT - 1) * 15 * 15 / cells
    assert semantic_loss(logits, small).item() == pytest.approx(weight * math.log(4), rel=1e-4)
    assert semantic_loss(logits, large).item() == pytest.approx(math.log(4), rel=1e-4)


def test_frames_without_instances_have_no_offset_loss():
    targets = truth()
    maps = Maps(torch.randn(1, 4, 8, 12), torch.full((1, 8, 12), 0.5), torch.randn(1, 2, 8, 12))
    losses = panoptic_losses(maps, targets)
    assert losses["offset"] == 0
    assert losses["center"].item() == pytest.approx(CENTER_WEIGHT * 0.25)


# --- centres


def test_of_two_near_maxima_one_is_a_centre():
    heat = torch.zeros(8, 12)
    heat[3, 4], heat[3, 5], heat[6, 9] = 0.9, 0.8, 0.7
    centers, confidence = find_centers(heat, 3)
    assert centers[:2].tolist() == [[3, 4], [6, 9]]
    torch.testing.assert_close(confidence, torch.tensor([0.9, 0.7, 0.0]))


def test_there_are_as_many_centres_as_asked_for_the_hottest_first():
    heat = torch.zeros(8, 12)
    heat[1, 1], heat[1, 6], heat[5, 6] = 0.3, 0.9, 0.6
    assert find_centers(heat, 2)[0].tolist() == [[1, 6], [5, 6]]


def test_a_pixel_belongs_to_the_centre_nearest_to_where_its_offset_points():
    centers = torch.tensor([[0.0, 0.0], [0.0, 10.0]])
    # three pixels at columns 2, 4 and 6 of row 0, with offsets of 0, +4 and -3 columns
    points = torch.tensor([[[0.0, 2.0], [0.0, 8.0], [0.0, 3.0]]])
    assert nearest_center(points, centers, torch.ones(2)).tolist() == [[0, 1, 0]]


def test_a_centre_below_the_threshold_takes_no_pixels():
    centers = torch.tensor([[0.0, 0.0], [0.0, 10.0]])
    nearest = nearest_center(torch.tensor([[[0.0, 9.0]]]), centers, torch.tensor([0.8, 0.09]))
    assert nearest.tolist() == [[0]]


# --- segments


def test_touching_instances_of_a_class_are_told_apart():
    targets = truth((1, 1, 5, 5), (1, 5, 5, 9))
    segments = segmented(perfect(targets)).segments
    label = segments.segment_map
    left, right = label[2, 2].item(), label[2, 7].item()
    assert {left, right} == {1, 2}
    assert (label[1:5, 1:5] == left).all() and (label[1:5, 5:9] == right).all()
    assert (label[6:] == 4 + 1).all()  # the first stuff slot comes after 4 things


def test_the_class_of_a_segment_is_that_of_most_of_its_pixels():
    targets = truth((1, 1, 4, 6), classes=[1])
    maps = perfect(targets)
    semantic = maps.semantic.clone()
    semantic[0, :2, 1, 1:5] = semantic[0, :2, 1, 1:5].flip(0)  # 4 of 15 pixels say class 0
    segments = segmented(maps._replace(semantic=semantic)).segments
    assert segments.thing_classes[0] == 1
    assert (segments.segment_map[1:4, 1:6] == 1).all()


def test_the_score_is_the_confidence_times_the_mean_probability_of_the_class():
    targets = truth((1, 1, 3, 5))
    maps = perfect(targets)
    semantic = torch.where(maps.semantic > 0, math.log(3 * 0.9 / 0.1), 0.0)  # 0.9, three of 1/30
    semantic[0, :, 1, 1:5] = torch.tensor([math.log(3 * 0.7 / 0.3), 0, 0, 0])[:, None]  # 0.7
    segments = segmented(Maps(semantic, 0.5 * maps.heat, maps.offsets)).segments
    assert segments.thing_scores[0].item() == pytest.approx(0.5 * (0.9 + 0.7) / 2, rel=1e-4)


def test_a_thing_below_the_threshold_leaves_its_pixels_without_a_segment():
    targets = truth((1, 1, 4, 4))
    maps = perfect(targets)
    weak = maps._replace(heat=0.5 * maps.heat)
    assert (segmented(weak, threshold=0.4).segments.segment_map[1:4, 1:4] == 1).all()
    assert (segmented(weak, threshold=0.6).segments.segment_map[1:4, 1:4] == 0).all()


def test_without_centres_things_have_no_segment_and_stuff_has():
    targets = truth((1, 1, 4, 4))
    maps = perfect(targets)
    label = segmented(maps._replace(heat=0 * maps.heat)).segments.segment_map
    assert (label[1:4, 1:4] == 0).all()
    assert (label[5:] == 5).all()


def test_the_map_may_be_finer_than_stride_4():
    targets = truth((1, 1, 5, 5), (1, 5, 5, 9))
    label = segmented(perfect(targets), upsample=2).segments.segment_map
    assert label.shape == (16, 24)
    inner = label[3:9, 3:9], label[3:9, 11:17]
    assert [part.unique().numel() for part in inner] == [1, 1]
    assert inner[0].unique() != inner[1].unique()


def test_embeddings_are_the_places_of_the_centres_as_fractions():
    segments = segmented(perfect(truth((1, 2, 4, 7)))).segments
    torch.testing.assert_close(segments.embeddings[0], torch.tensor([4.5 / 12, 2.5 / 8]))


def test_the_middle_of_a_segment_is_that_of_its_pixels():
    grouping = segmented(perfect(truth((1, 2, 4, 6))), upsample=2)
    assert grouping.present.tolist() == [True, False, False, False]
    torch.testing.assert_close(grouping.middles[0], torch.tensor([2.0, 3.5]), atol=0.1, rtol=0)
