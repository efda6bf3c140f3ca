"""mIoU: equal to the reference program on golden cases, and as defined on small ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from video_knet_core.metrics.vss import MeanIoU

GOLDEN = Path(__file__).parents[1] / "fixtures" / "metrics"
VSPW = sorted(GOLDEN.glob("vspw_*.npz"))


def test_golden_cases_are_there():
    assert len(VSPW) >= 3


@pytest.mark.parametrize("path", VSPW, ids=lambda p: p.stem)
def test_miou_equals_the_vspw_baseline(path):
    case = dict(np.load(path))
    metric = MeanIoU(124)
    for i in range(int(case["num_videos"])):
        raw = case[f"gt_raw_{i}"].astype(np.int64)
        metric.update(np.where((raw == 0) | (raw == 255), 255, raw - 1), case[f"pred_{i}"])
    assert metric.compute().miou == pytest.approx(float(case["miou"]), abs=1e-9)


def test_nothing_measured_is_nan():
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
    a, b = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        MeanIoU(2).update(a, b)
    with pytest.raises(ValueError, match="prediction holds class 9, wanted 0..1"):
        MeanIoU(2).update(a, a + 9)
