"""STQ: equal to the reference programs on golden cases, as defined on small ones, and robust."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from label_videos import (
    CLASSES,
    KITTI,
    NAMES,
    THINGS,
    Video,
    golden,
    golden_videos,
    measured,
    one_thing,
    perfect,
    renamed,
    videos,
)

from video_knet_core.metrics.stq import SegmentationTrackingQuality, TrackingQuality

VARIANTS = {
    "stq_dl2": ([11, 13], "count"),
    "stq_maskvoid": ([11, 13], "drop"),
    "stq_vkn": (range(11, 19), "drop"),
}
"""Prefix of the golden numbers -> things and what becomes of void."""


def scores(quality: TrackingQuality) -> np.ndarray:
    """STQ, AQ and SQ: of everything, then of each sequence."""
    rows = [quality, *quality.per_sequence.values()]
    return np.array([(row.stq, row.aq, row.sq) for row in rows])


def stq(*maps: np.ndarray, things: tuple[int, ...] = (1,), **options: str) -> TrackingQuality:
    """Quality of one video of two classes."""
    return measured(SegmentationTrackingQuality(2, things, **options), [maps])


def test_all_golden_cases_are_there():
    assert len(KITTI) == 10


@pytest.mark.parametrize("by_frame", [True, False], ids=["frames", "video"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("path", KITTI, ids=lambda p: p.stem)
def test_stq_equals_the_reference_programs(path: Path, variant: str, by_frame: bool):
    case, (things, void) = golden(path), VARIANTS[variant]
    metric = SegmentationTrackingQuality(19, things, void=void)
    found = scores(measured(metric, golden_videos(case), by_frame))
    for name, column in zip(("STQ", "AQ", "SQ"), found.T, strict=True):
        expected = [case[f"{variant}__{name}"], *case[f"{variant}__{name}_per_seq"]]
        np.testing.assert_allclose(column, expected, rtol=0, atol=1e-6)


def test_an_id_switch_costs_association_but_not_segmentation():
    quality = stq(*one_thing([7, 7]), *one_thing([3, 4]))
    assert quality.sq == 1.0
    assert quality.aq == pytest.approx(0.5)
    assert quality.stq == pytest.approx(np.sqrt(0.5))


def test_s1_predicted_void_is_a_class_of_iou_zero():
    gt, none = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint16)
    gt[5:] = 1
    pred = gt.copy()
    pred[0, 0] = 255
    quality = stq(gt, none, pred, none, things=())
    np.testing.assert_allclose(quality.per_class, [0.98, 1.0])
    assert quality.sq == pytest.approx((0.98 + 1.0 + 0.0) / 3)


def test_s1_a_class_that_is_only_predicted_has_iou_zero():
    gt, none = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    quality = stq(gt, none, np.array([[0, 0], [0, 1]]), none, things=())
    np.testing.assert_allclose(quality.per_class, [0.75, 0.0])
    assert quality.sq == pytest.approx(0.375)


@pytest.mark.parametrize("void, aq", [("count", 0.5), ("drop", 1.0)])
def test_s2_predicted_pixels_on_void_cost_association_unless_void_is_dropped(void, aq):
    semantic, instance = one_thing([7])
    gt = semantic.copy()
    gt[:, :, 0] = 255  # half of what is predicted
    quality = stq(gt, instance, semantic, instance, void=void)
    assert quality.aq == pytest.approx(aq)
    assert quality.sq == 1.0


@pytest.mark.parametrize("things, aq", [([11, 13], 0.0), (range(11, 19), 1.0)])
def test_s3_a_car_predicted_as_truck_depends_on_the_list_of_things(things, aq):
    metric = SegmentationTrackingQuality(19, things)
    assert measured(metric, [(*one_thing([1], 13), *one_thing([1], 14))]).aq == aq


def test_s4_association_ignores_the_class():
    metric = SegmentationTrackingQuality(3, [1, 2])
    quality = measured(metric, [(*one_thing([1], 1), *one_thing([1], 2))])
    assert quality.aq == 1.0
    assert quality.sq == pytest.approx(1 / 3)


def test_s4_a_class_flip_splits_a_predicted_tube():
    semantic, instance = one_thing([1, 1])
    flipped = semantic.copy()
    flipped[1][semantic[1] == 1] = 2
    metric = SegmentationTrackingQuality(3, [1, 2])
    assert measured(metric, [(semantic, instance, flipped, instance)]).aq == pytest.approx(0.5)


def test_s5_crowd_counts_for_segmentation_only():
    quality = stq(*one_thing([0]), *one_thing([5]))
    assert (quality.aq, quality.sq) == (0.0, 1.0)
    quality = stq(*one_thing([0, 5]), *one_thing([5, 5]))
    assert quality.aq == 1.0  # the pixels on crowd are not charged either


def test_s5_a_predicted_id_0_is_a_tube():
    assert stq(*one_thing([5]), *one_thing([0])).stq == 1.0


def test_s6_a_sequence_without_things_scores_zero_but_weighs_nothing():
    empty = np.zeros((1, 4, 4), np.uint8)
    with_thing = (*one_thing([5]), *one_thing([5]))
    metric = SegmentationTrackingQuality(2, [1])
    quality = measured(metric, [with_thing, (empty, empty, empty, empty)])
    assert quality.per_sequence[1].aq == quality.per_sequence[1].stq == 0.0
    assert quality.aq == quality.stq == 1.0


def test_s6_association_weighs_tubes_equally():
    """Two tubes found and two lost, in sequences of three and one: a half, not (1/3 + 1) / 2."""
    semantic = np.ones((1, 1, 3), np.uint8)
    ids, lost = np.array([[[1, 2, 3]]]), np.array([[[1, 0, 0]]])
    first = (semantic, ids, np.where(lost > 0, 1, 0), lost)
    one = semantic[..., :1]
    quality = measured(SegmentationTrackingQuality(2, [1]), [first, (one, one, one, one)])
    assert [q.aq for q in quality.per_sequence.values()] == pytest.approx([1 / 3, 1.0])
    assert quality.aq == pytest.approx(0.5)


def test_merged_parts_are_the_whole():
    """As processes that divide the sequences of a validation put their counts together."""
    whole, merged = (SegmentationTrackingQuality(4, [2, 3]) for _ in range(2))
    rng = np.random.default_rng(0)
    for name in range(3):
        maps, part = rng.integers(0, 4, (4, 2, 8, 8)), SegmentationTrackingQuality(4, [2, 3])
        whole.update(*maps, name)
        part.update(*maps, name)
        merged.merge(part)
    np.testing.assert_array_equal(scores(merged.compute()), scores(whole.compute()))
    assert 0 < merged.compute().aq < 1


def test_s6_a_sequence_of_void_is_nan():
    void, none = np.full((2, 3, 3), 255), np.zeros((2, 3, 3), int)
    quality = stq(void, none, none, none)
    assert np.isnan([quality.sq, quality.stq, quality.per_sequence[0].sq]).all()


def test_nothing_measured_is_nan():
    assert np.isnan(SegmentationTrackingQuality(2, [1]).compute().measured).all()


def test_without_things_only_the_segmentation_can_be_measured():
    stuff, none = np.zeros((2, 3, 3), int), np.zeros((2, 3, 3), int)
    quality = stq(stuff, none, stuff, none)
    for each in (quality, quality.per_sequence[0]):
        assert np.isnan(each.measured[:2]).all() and each.measured[2] == each.sq == 1.0


def test_s7_counts_continue_beyond_what_float32_holds():
    """A tube of 20 million pixels, of which the last quarter has another id."""
    semantic, ids = np.ones((1000, 1000), np.uint8), np.ones((1000, 1000), np.uint8)
    metric = SegmentationTrackingQuality(2, [1])
    for t in range(20):
        metric.update(semantic, ids, semantic, ids + (t >= 15))
    assert metric.compute().aq == pytest.approx(0.75**2 + 0.25**2, abs=1e-12)


def test_a_thing_of_one_pixel_weighs_as_much_as_any():
    semantic, instance = one_thing([1])
    instance[0, 0, 0] = 2
    predicted = np.where(instance == 2, 0, semantic), np.where(instance == 2, 0, instance)
    assert stq(semantic, instance, *predicted).aq == pytest.approx(0.5)


@settings(deadline=None, max_examples=40)
@given(videos())
def test_a_perfect_prediction_scores_one(video: Video):
    quality = measured(SegmentationTrackingQuality(CLASSES, THINGS), [perfect(video)])
    objects = np.isin(video[0], THINGS) & (video[1] > 0)
    assert quality.aq == (1.0 if objects.any() else 0.0)
    assert quality.sq == 1.0 or (video[0] == 255).all()


@settings(deadline=None, max_examples=40)
@given(videos(), NAMES)
def test_the_names_of_ids_do_not_matter(video: Video, names: list[int]):
    a, b = (
        measured(SegmentationTrackingQuality(CLASSES, THINGS), [each])
        for each in (video, renamed(video, names))
    )
    np.testing.assert_allclose(scores(a), scores(b), rtol=0, atol=1e-12)


def test_a_bad_block_adds_nothing():
    metric = SegmentationTrackingQuality(2, [1])
    good = np.zeros((2, 2, 3), np.uint8)
    bad = good.copy()
    bad[1] = 9
    with pytest.raises(ValueError, match="pred_semantic.*9"):
        metric.update(good, good, bad, good)
    assert metric.compute().per_sequence == {}
