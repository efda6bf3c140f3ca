"""DVPQ and errors of depth, on maps that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from label_videos import KITTI, golden, golden_videos, one_thing, perfect

from video_knet_core.metrics.dvpq import DepthAwarePanopticQuality
from video_knet_core.metrics.vpq import VideoPanopticQuality

TEN = np.full((1, 4, 4), 10.0)


def scored(video, true_depth, depth, windows=(1,), **options):
    metric = DepthAwarePanopticQuality(2, [1], windows, **options)
    gt_semantic, gt_instance, semantic, instance = video
    metric.update(gt_semantic, gt_instance, true_depth, semantic, instance, depth)
    return metric.compute()


def perfect_thing(ids=(7,)):
    """The left half of 4 x 4 pixels is a thing, the right one stuff; the prediction is right."""
    return perfect(one_thing(list(ids)))


def test_exact_depth_gives_the_plain_quality():
    quality = scored(perfect_thing(), TEN, TEN)
    assert (quality.vpq, quality.things, quality.stuff) == (1.0, 1.0, 1.0)


def test_pixels_of_wrong_depth_are_void_in_the_prediction():
    """Two of the eight pixels of the thing are 3 m too far of 10 m: void at 0.1 and 0.25, where the
    IoU is 6 / 8, and kept at 0.5."""
    depth = TEN.copy()
    depth[0, :2, 0] = 13.0
    quality = scored(perfect_thing(), TEN, depth)
    things = [quality.per_threshold[threshold].things for threshold in (0.1, 0.25, 0.5)]
    assert things == [0.75, 0.75, 1.0]
    assert quality.things == pytest.approx(2.5 / 3)
    assert quality.stuff == 1.0
    assert quality.vpq == pytest.approx((1 + 2.5 / 3) / 2)


def test_a_segment_whose_depth_is_wrong_is_missed_and_no_false_one():
    depth = np.where(one_thing([7])[0] == 1, 20.0, 10.0)
    quality = scored(perfect_thing(), TEN, depth)
    for of_threshold in quality.per_threshold.values():
        matches = of_threshold.per_window[1].matches
        assert matches[:, 1].tolist() == [0, 0, 1, 0]


def test_an_error_at_the_threshold_counts_as_right():
    quality = scored(perfect_thing(), TEN, TEN + 2.5)
    vpq = [quality.per_threshold[threshold].vpq for threshold in (0.1, 0.25, 0.5)]
    assert vpq == [0.0, 1.0, 1.0]


def test_pixels_of_unknown_depth_keep_their_prediction():
    quality = scored(perfect_thing(), np.zeros((1, 4, 4)), TEN)
    assert quality.vpq == 1.0
    assert math.isnan(quality.errors.abs_rel)


def test_windows_are_volumes():
    """The depth of the thing is wrong in the second of two frames, so it has half its tube: not
    above 0.5."""
    depth = np.repeat(TEN, 2, axis=0)
    depth[1, :, :2] = 40.0
    quality = scored(perfect_thing((7, 7)), np.repeat(TEN, 2, axis=0), depth, windows=(1, 2))
    first = quality.per_threshold[0.5].per_window
    assert first[1].things == pytest.approx(2 / 3)  # one match, one missed
    assert first[2].things == 0.0


def test_depth_errors_by_hand():
    """Of 4 m and 10 m, predicted as 5 m and 8 m: relative errors 1/4 and 1/5, squares 1 and 4, both
    off by the factor 1.25, which is not below it; a third is exact, a fourth unknown."""
    labels = np.zeros((1, 4), np.uint8)
    true, predicted = np.array([[4.0, 10, 3, 0]]), np.array([[5.0, 8, 3, 9]])
    errors = scored((labels,) * 4, true, predicted).errors
    assert errors.abs_rel == pytest.approx(0.45 / 3)
    assert errors.rmse == pytest.approx(math.sqrt(5 / 3))
    assert errors.delta == pytest.approx(1 / 3)


def test_with_exact_depth_it_is_the_quality_of_golden_videos():
    case = golden(KITTI[0])
    metric = DepthAwarePanopticQuality(19, [11, 13], absent="zero", crowd="segment")
    plain = VideoPanopticQuality(19, [11, 13], absent="zero", crowd="segment")
    for number, (gt_semantic, gt_instance, *predicted) in enumerate(golden_videos(case)):
        depth = np.ones(gt_semantic.shape)
        metric.update(gt_semantic, gt_instance, depth, *predicted, depth, sequence=number)
        plain.update(gt_semantic, gt_instance, *predicted, sequence=number)
    assert metric.compute().vpq == pytest.approx(plain.compute().vpq)


def test_merged_metrics_are_one_over_all_sequences():
    """With 0.1 all of the second sequence is missed: 1 match and 1 missed of each class, 2 / 3."""
    parts, whole = [], DepthAwarePanopticQuality(2, [1], (1,))
    for sequence, off in enumerate((0.0, 2.0)):
        part = DepthAwarePanopticQuality(2, [1], (1,))
        maps = perfect_thing()
        for metric in (part, whole):
            metric.update(*maps[:2], TEN, *maps[2:], TEN + off, sequence=sequence)
        parts.append(part)
    parts[0].merge(parts[1])
    assert parts[0].compute().vpq == whole.compute().vpq == pytest.approx(8 / 9)
    assert parts[0].compute().errors == whole.compute().errors


def test_depth_of_another_size_is_an_error_and_nothing_is_added():
    metric = DepthAwarePanopticQuality(2, [1], (1,))
    maps = perfect_thing()
    with pytest.raises(ValueError, match="pred_depth: expected .* got"):
        metric.update(*maps[:2], TEN, *maps[2:], TEN[:, :2])
    assert math.isnan(metric.compute().vpq)
