"""mIoU and mVC: equal to VSPW's own programs on golden cases, as defined on small ones, robust."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from video_knet_core.metrics.vss import (
    OTHERS,
    VOID,
    MeanIoU,
    VideoSemanticConsistency,
    VideoSemanticQuality,
    mean_iou,
    vspw_labels,
)

GOLDEN = sorted((Path(__file__).parents[2] / "fixtures" / "metrics").glob("vspw_*.npz"))
CLASSES = 3
golden_cases = pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
quick = settings(max_examples=30, deadline=None)


def golden(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as case:
        return dict(case)


def measured(metric, videos, by_frame: bool = False) -> VideoSemanticQuality:
    """The metric of videos (ground truth, prediction), whole or frame after frame."""
    for i, video in enumerate(videos):
        for maps in zip(*video, strict=True) if by_frame else [video]:
            metric.update(*maps, sequence=i)
    return metric.compute()


def golden_videos(case: dict, one_void: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels as VSPW has them, or with its two kinds of void as one, and predictions."""
    found = []
    for i in range(int(case["num_videos"])):
        raw = case[f"gt_raw_{i}"]
        labels = vspw_labels(raw)
        labels[(raw == 0) & one_void] = VOID
        found.append((labels, case[f"pred_{i}"]))
    return found


def small(gt: list, pred: list, **options) -> VideoSemanticQuality:
    """Quality of one video of few pixels [T][W] and 3 classes."""
    options.setdefault("windows", (2,))
    video = [np.array(labels)[:, None] for labels in (gt, pred)]
    return measured(VideoSemanticConsistency(CLASSES, **options), [video])


def by_definition(gt, pred, window: int) -> tuple[float, float]:
    """mVC and correct mVC of one video from stacks of frames and sets of labelled pixels."""
    loose, strict = [], []
    for start in range(len(gt) - window):
        g, p = gt[start : start + window], pred[start : start + window]
        constant, kept = (g == g[0]).all(0), (p == p[0]).all(0)
        labelled = constant & (g[0] < CLASSES)
        if constant.any():
            loose.append((constant & kept).sum() / constant.sum())
        if labelled.any():
            strict.append((labelled & kept & (g[0] == p[0])).sum() / labelled.sum())
    return (np.mean(loose) if loose else np.nan), (np.mean(strict) if strict else np.nan)


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Small noisy videos with few classes, so that much stays constant by chance."""
    shape = tuple(draw(st.integers(1, limit)) for limit in (8, 3, 4))
    labels = arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2, OTHERS, VOID]))
    return draw(labels), draw(labels)


def test_all_golden_cases_are_there():
    assert len(GOLDEN) == 8


@pytest.mark.parametrize("by_frame", [True, False], ids=["frames", "video"])
@golden_cases
def test_miou_and_mvc_equal_the_vspw_baseline(path, by_frame):
    case = golden(path)
    quality = measured(VideoSemanticConsistency(124), golden_videos(case), by_frame)
    assert quality.miou == pytest.approx(float(case["miou"]), abs=1e-9)
    for window in (8, 16):
        assert quality.mvc[window] == pytest.approx(float(case[f"mvc{window}"]), abs=1e-9)
        each = [video.mvc[window] for video in quality.per_sequence.values()]
        np.testing.assert_allclose(each, case[f"mvc{window}_per_video"], rtol=0, atol=1e-9)


@golden_cases
def test_mvc_of_converted_masks_equals_programs_that_convert_first(path):
    case = golden(path)
    quality = measured(VideoSemanticConsistency(124), golden_videos(case, one_void=True))
    for window in (8, 16):
        expected = float(case[f"mvc{window}_gtconverted"])
        assert quality.mvc[window] == pytest.approx(expected, abs=1e-9)


@golden_cases
def test_confusion_and_miou_equal_the_vspw_baseline(path):
    case, metric = golden(path), MeanIoU(124)
    for video in golden_videos(case, one_void=True):
        metric.update(*video)
    rows, columns, expected = case["confusion_nonzero"]
    np.testing.assert_array_equal(metric.confusion[rows, columns], expected)
    assert metric.confusion.sum() == expected.sum()
    assert metric.compute() == pytest.approx(float(case["miou"]), abs=1e-9)


def test_vspw_masks_keep_others_and_void_separate():
    raw = np.array([0, 1, 124, 255], np.uint8)
    np.testing.assert_array_equal(vspw_labels(raw), [OTHERS, 0, 123, VOID])


def test_a_constant_wrong_prediction_is_consistent_but_not_correct():
    quality = small([[0]] * 3, [[1]] * 3)
    assert (quality.miou, quality.mvc[2], quality.correct_mvc[2]) == (0.0, 1.0, 0.0)


def test_the_last_window_is_not_used():
    assert small([[0]] * 3, [[0], [0], [1]]).mvc[2] == 1.0


def test_a_video_needs_a_frame_more_than_the_window():
    assert np.isnan(small([[0]] * 2, [[0]] * 2).mvc[2])
    assert small([[0]] * 3, [[0]] * 3).mvc[2] == 1.0


def test_videos_weigh_by_their_windows():
    metric = VideoSemanticConsistency(CLASSES, windows=(2,))
    still, flicker = np.zeros((5, 1, 1), int), np.array([0, 1, 0]).reshape(3, 1, 1)
    quality = measured(metric, [(still, still), (still[:3], flicker)])
    assert [video.mvc[2] for video in quality.per_sequence.values()] == [1.0, 0.0]
    assert quality.mvc[2] == 3 / 4


def test_void_counts_for_mvc_but_not_for_correct_mvc():
    gt, pred = [[0, VOID]] * 3, [[0, 1], [0, 2], [0, 1]]
    quality = small(gt, pred)
    assert (quality.mvc[2], quality.correct_mvc[2]) == (0.5, 1.0)


def test_others_and_void_differ():
    gt, pred = [[0, OTHERS], [0, VOID], [0, OTHERS]], [[0, 1], [0, 2], [0, 1]]
    assert small(gt, pred).mvc[2] == 1.0


def test_a_window_without_constant_ground_truth_is_left_out():
    quality = small([[0], [1], [1], [1]], [[0], [1], [1], [0]])
    assert quality.mvc[2] == 1.0
    assert np.isnan(small([[0], [1], [0]], [[0]] * 3).mvc[2])


def test_predicted_void_is_wrong_and_an_ordinary_label_for_consistency():
    quality = small([[0, 0]] * 3, [[0, VOID]] * 3)
    assert (quality.miou, quality.mvc[2], quality.correct_mvc[2]) == (0.5, 1.0, 0.5)


@quick
@given(videos(), st.integers(1, 4))
def test_runs_of_frames_give_what_stacks_of_frames_give(video, window):
    quality = measured(VideoSemanticConsistency(CLASSES, windows=(window, 3)), [video])
    found = quality.mvc[window], quality.correct_mvc[window]
    np.testing.assert_allclose(found, by_definition(*video, window), atol=1e-12)


def test_frames_without_any_class():
    void = [[VOID, VOID]] * 3
    quality = small(void, [[0, 1]] * 3)
    assert np.isnan(quality.miou) and np.isnan(quality.correct_mvc[2])
    assert quality.mvc[2] == 1.0  # as released: void counts


def test_nothing_measured_is_nan():
    quality = VideoSemanticConsistency(CLASSES).compute()
    assert np.isnan([quality.miou, quality.mvc[8], quality.correct_mvc[16]]).all()
    assert quality.per_sequence == {}


def test_memory_grows_neither_with_frames_nor_with_the_window():
    metric = VideoSemanticConsistency(CLASSES, windows=(200,))
    frame = np.zeros((100, 100), np.uint8)
    for _ in range(50):
        metric.update(frame, frame)
    assert len(pickle.dumps(metric)) < 8 * frame.nbytes
    metric.close(0)
    assert len(pickle.dumps(metric)) < frame.nbytes


def test_no_window_goes_beyond_the_end_of_a_video():
    metric = VideoSemanticConsistency(CLASSES, windows=(2,))
    frames = np.zeros((3, 1, 1), int)
    metric.update(frames, frames)
    metric.close(0)
    assert metric.compute().per_sequence[0].mvc == {2: 1.0}
    metric.update(frames[:2], 1 - frames[:2])  # too short
    assert metric.compute().mvc == metric.compute().correct_mvc == {2: 1.0}


def test_bad_input_is_named_and_changes_nothing():
    metric = VideoSemanticConsistency(CLASSES)
    frame = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        metric.update(frame, frame.T)
    with pytest.raises(ValueError, match=r"\(6,\) and \(6,\)"):
        metric.update(frame.ravel(), frame.ravel())
    with pytest.raises(ValueError, match=r"ground truth.*\(254, 255\).*9"):
        metric.update(frame + 9, frame)
    with pytest.raises(ValueError, match="prediction.*-1"):
        metric.update(frame, np.full((2, 3), -1))
    with pytest.raises(ValueError, match="prediction.*float64"):
        metric.update(frame, frame / 2)
    assert metric.compute().per_sequence == {}
    metric.update(frame, frame, "a")
    with pytest.raises(ValueError, match=r"'a'.*\(2, 3\).*\(3, 2\)"):
        metric.update(frame.T, frame.T, "a")


def test_miou_leaves_out_void_and_absent_classes():
    gt = np.array([[0, 0, 255, 255]])
    pred = np.array([[0, 2, 1, 255]])
    metric = MeanIoU(3)
    metric.update(gt, pred)
    assert metric.compute() == 0.5
    np.testing.assert_array_equal(mean_iou(metric.confusion)[1], [0.5, np.nan, np.nan])
