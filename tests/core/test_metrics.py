"""STQ and mIoU: equal to the reference programs on golden cases, and as defined on small ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from video_knet_core.metrics.stq import SegmentationTrackingQuality, TrackingQuality
from video_knet_core.metrics.vss import MeanIoU

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics"
KITTI = sorted(GOLDEN.glob("kitti_*.npz"))
VSPW = sorted(GOLDEN.glob("vspw_*.npz"))
MAPS = ("gt_sem", "gt_ins", "pred_sem", "pred_ins")


def golden_quality(case: dict[str, np.ndarray], by_frame: bool) -> TrackingQuality:
    metric = SegmentationTrackingQuality(19, case["things"].tolist())
    for i in range(int(case["num_seqs"])):
        videos = [case[f"{name}_{i}"] for name in MAPS]
        for frame in zip(*videos, strict=True) if by_frame else [videos]:
            metric.update(*frame, sequence=i)
    return metric.compute()


def test_golden_cases_are_there():
    assert len(KITTI) == 6 and len(VSPW) == 3


@pytest.mark.parametrize("path", KITTI, ids=lambda p: p.stem)
@pytest.mark.parametrize("by_frame", [True, False], ids=["frames", "video"])
def test_stq_equals_deeplab2(path, by_frame):
    case = dict(np.load(path))
    quality = golden_quality(case, by_frame)
    for name in ("STQ", "AQ", "SQ"):
        value = getattr(quality, name.lower())
        np.testing.assert_allclose(value, case[f"stq_dl2__{name}"], atol=1e-6)
        each = [getattr(q, name.lower()) for q in quality.per_sequence.values()]
        np.testing.assert_allclose(each, case[f"stq_dl2__{name}_per_seq"], atol=1e-6)


@pytest.mark.parametrize("path", VSPW, ids=lambda p: p.stem)
def test_miou_equals_the_vspw_baseline(path):
    case = dict(np.load(path))
    metric = MeanIoU(124)
    for i in range(int(case["num_videos"])):
        raw = case[f"gt_raw_{i}"].astype(np.int64)
        metric.update(np.where((raw == 0) | (raw == 255), 255, raw - 1), case[f"pred_{i}"])
    assert metric.compute().miou == pytest.approx(float(case["miou"]), abs=1e-9)


def one_thing(ids: list[int], thing: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A video [T, 4, 4] whose left half is a thing with these ids, the rest stuff 0."""
    semantic = np.zeros((len(ids), 4, 4), np.uint8)
    semantic[:, :, :2] = thing
    instance = np.where(semantic == thing, np.array(ids)[:, None, None], 0)
    return semantic, instance


def test_an_id_switch_costs_association_but_not_segmentation():
    metric = SegmentationTrackingQuality(2, [1])
    metric.update(*one_thing([7, 7]), *one_thing([3, 4]))
    quality = metric.compute()
    assert quality.sq == 1.0
    assert quality.aq == pytest.approx(0.5)
    assert quality.stq == pytest.approx(np.sqrt(0.5))


def test_predicted_ids_may_be_large_and_of_another_name():
    metric = SegmentationTrackingQuality(2, [1])
    metric.update(*one_thing([7, 7]), *one_thing([1 << 40, 1 << 40]))
    assert metric.compute().stq == 1.0


def test_ids_of_different_sequences_have_nothing_to_do_with_each_other():
    metric = SegmentationTrackingQuality(2, [1])
    metric.update(*one_thing([7]), *one_thing([1]), sequence="a")
    metric.update(*one_thing([7]), *one_thing([2]), sequence="b")
    quality = metric.compute()
    assert quality.stq == 1.0
    assert set(quality.per_sequence) == {"a", "b"}


def test_crowd_counts_for_segmentation_only():
    metric = SegmentationTrackingQuality(2, [1])
    metric.update(*one_thing([0]), *one_thing([5]))
    quality = metric.compute()
    assert (quality.aq, quality.sq) == (0.0, 1.0)


def test_predicted_void_is_a_class_of_iou_zero():
    gt, none = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint16)
    gt[5:] = 1
    pred = gt.copy()
    pred[0, 0] = 255
    metric = SegmentationTrackingQuality(2, [])
    metric.update(gt, none, pred, none)
    quality = metric.compute()
    np.testing.assert_allclose(quality.per_class, [0.98, 1.0])
    assert quality.sq == pytest.approx((0.98 + 1.0 + 0.0) / 3)


def test_nothing_measured_is_nan():
    assert np.isnan(SegmentationTrackingQuality(2, [1]).compute().sq)
    assert np.isnan(MeanIoU(2).compute().miou)


def test_miou_leaves_out_void_and_absent_classes():
    gt = np.array([[0, 0, 255, 255]])
    pred = np.array([[0, 2, 1, 255]])
    metric = MeanIoU(3)
    metric.update(gt, pred)
    quality = metric.compute()
    assert quality.miou == 0.5
    np.testing.assert_array_equal(quality.per_class, [0.5, np.nan, np.nan])


def test_bad_input_is_named():
    metric = SegmentationTrackingQuality(2, [1])
    a, b = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        MeanIoU(2).update(a, b)
    with pytest.raises(ValueError, match="pred_instance must be"):
        metric.update(a, a, a, b)
    with pytest.raises(ValueError, match="prediction holds class 9, wanted 0..1"):
        metric.update(a, a, a + 9, a)
    with pytest.raises(ValueError, match="thing classes must be 0..1"):
        SegmentationTrackingQuality(2, [1, 2])
    assert metric.compute().per_sequence == {}
