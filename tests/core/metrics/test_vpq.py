"""VPQ: equal to the reference programs on golden cases, as defined on small ones, and robust."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_videos import (
    CITYSCAPES,
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

from video_knet_core.metrics.vpq import Crowd, VideoPanopticQuality, WindowQuality

WINDOWS = (1, 2, 3, 4)
VPS: dict[str, Crowd] = {"vps_crowd": "ignore", "vps_groupvoid": "void"}
"""Prefix of the golden numbers of mcahny/vps -> what crowd is."""
VPS_CASES = [
    pytest.param(path, variant, id=f"{path.stem}-{variant}")
    for path in KITTI + CITYSCAPES
    for variant in VPS
    if f"{variant}_mean__all_thing_stuff" in golden(path)
]
"""Cases without crowd have the first variant only."""


def scores(quality) -> tuple[float, float, float]:
    return quality.vpq, quality.things, quality.stuff


def close(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def check(quality: WindowQuality, case: dict[str, np.ndarray], prefix: str, own: str) -> None:
    """Compare statistics, means and the numbers of each sequence with the golden ones."""
    close(quality.matches, case[f"{prefix}__stats_iou_tp_fn_fp"])
    close(scores(quality), case[f"{prefix}__{own}all_thing_stuff"])
    each = [scores(sequence) for sequence in quality.per_sequence.values()]
    close(each, case[f"{prefix}__{own}per_seq"])


def vpq(*maps: np.ndarray, things: Sequence[int] = (1,), window: int = 1, **options):
    """Quality of one video of three classes."""
    return of_window([maps], window, 3, things, **options)


def of_window(videos: list[Video], window: int, number=2, things=(1,), by_frame=False, **options):
    """Quality of the videos by windows of one length."""
    metric = VideoPanopticQuality(number, things, [window], **options)
    return measured(metric, videos, by_frame).per_window[window]


def test_all_golden_cases_are_there():
    assert (len(KITTI), len(CITYSCAPES), len(VPS_CASES)) == (10, 5, 18)


@pytest.mark.parametrize("by_frame", [True, False], ids=["frames", "video"])
@pytest.mark.parametrize("path", KITTI, ids=lambda p: p.stem)
def test_vpq_equals_the_authors_script(path: Path, by_frame: bool):
    case = golden(path)
    options = {"absent": "zero", "crowd": "segment"}
    metric = VideoPanopticQuality(19, [11, 13], WINDOWS, **options)
    results = measured(metric, golden_videos(case), by_frame).per_window
    for window in WINDOWS:
        check(results[window], case, f"vpq_k{window}", "vkn_")


@pytest.mark.parametrize("path", KITTI, ids=lambda p: p.stem)
def test_vpq_equals_deeplab2(path: Path):
    case = golden(path)
    metric = VideoPanopticQuality(19, [11, 13], WINDOWS, crowd="segment")
    results = measured(metric, golden_videos(case)).per_window
    for window in WINDOWS:
        prefix = f"vpq_k{window}__"
        close(results[window].matches, case[f"{prefix}dl2_stats_iou_tp_fn_fp"])
        close(scores(results[window]), case[f"{prefix}present_all_thing_stuff"])


@pytest.mark.parametrize("path, variant", VPS_CASES)
def test_vpq_equals_the_cityscapes_vps_evaluation(path: Path, variant: str):
    case = golden(path)
    metric = VideoPanopticQuality(19, case["things"].tolist(), WINDOWS, crowd=VPS[variant])
    result = measured(metric, golden_videos(case))
    close(scores(result), case[f"{variant}_mean__all_thing_stuff"])
    for window in WINDOWS:
        check(result.per_window[window], case, f"{variant}_n{window}", "")


def test_an_id_switch_costs_the_window_that_contains_it():
    video = (*one_thing([7, 7]), *one_thing([3, 4]))
    assert vpq(*video, window=1).things == 1.0
    split = vpq(*video, window=2)  # two tubes, each half of the true one: none is above 0.5
    assert (split.things, split.stuff) == (0.0, 1.0)
    assert [int(row[1]) for row in split.matches] == [0, 0, 1, 2]


@pytest.mark.parametrize("absent, score", [("skip", 1.0), ("zero", 2 / 3)])
def test_v1_absent_classes(absent, score):
    quality = vpq(*one_thing([7]), *one_thing([7]), absent=absent)
    assert quality.vpq == pytest.approx(score)
    np.testing.assert_array_equal(quality.per_class, [1, 1, np.nan if absent == "skip" else 0])


@pytest.mark.parametrize(
    "crowd, missed, wrong", [("ignore", 0, 0), ("void", 0, 0), ("segment", 1, 0)]
)
def test_v2_crowd_without_a_prediction(crowd, missed, wrong):
    semantic, ids = one_thing([0])
    found = vpq(semantic, ids, np.full_like(semantic, 255), ids, crowd=crowd).matches
    assert (found[2, 1], found[3].sum()) == (missed, wrong)


@pytest.mark.parametrize(
    "crowd, matched, wrong", [("ignore", 0, 0), ("void", 0, 0), ("segment", 1, 0)]
)
def test_v2_predictions_on_crowd_are_forgiven(crowd, matched, wrong):
    found = vpq(*one_thing([0]), *one_thing([5]), crowd=crowd).matches
    assert (found[1, 1], found[3, 1]) == (matched, wrong)


@pytest.mark.parametrize("crowd, wrong", [("ignore", 1), ("void", 0), ("segment", 1)])
def test_v2_crowd_forgives_only_its_own_class(crowd, wrong):
    video = (*one_thing([0], 1), *one_thing([5], 2))
    assert vpq(*video, things=(1, 2), crowd=crowd).matches[3, 2] == wrong


@pytest.mark.parametrize("crowd, iou", [("ignore", 4 / 6), ("void", 1.0)])
def test_v2_crowd_stays_in_the_union_and_void_does_not(crowd, iou):
    semantic, ids = np.ones((1, 1, 6), np.uint8), np.array([[[3, 3, 3, 3, 0, 0]]])
    quality = vpq(semantic, ids, semantic, np.full_like(ids, 9), crowd=crowd)
    assert quality.things == pytest.approx(iou)


def test_v2_a_predicted_id_0_is_a_segment():
    assert vpq(*one_thing([5]), *one_thing([0])).things == 1.0


def test_v3_predicted_void_is_no_segment():
    semantic, ids = one_thing([5])
    found = vpq(semantic, ids, np.where(semantic == 1, 255, semantic), ids).matches
    assert (found[2].tolist(), found[3].sum()) == ([0, 1, 0], 0)


@pytest.mark.parametrize("on_void, wrong", [(2, 1), (3, 0)])
def test_v4_more_than_half_on_void_is_forgiven(on_void: int, wrong: int):
    """With ids whose product with any offset is far beyond 2^31."""
    gt = np.array([[[255] * on_void + [0] * (4 - on_void)]])
    one, none = np.ones_like(gt), np.zeros_like(gt)
    assert vpq(gt, none, one, one * (1 << 40)).matches[3, 1] == wrong


def test_v5_a_video_shorter_than_the_window_has_no_tubes():
    short, long = ((*one_thing(ids), *one_thing(ids)) for ids in ([1], [1, 1]))
    quality = of_window([short, long], 2)
    assert quality.vpq == 1.0
    assert np.isnan(scores(quality.per_sequence[0])).all()
    assert quality.matches[1].tolist() == [1, 1]


@pytest.mark.parametrize("absent, expected", [("skip", np.nan), ("zero", 0.0)])
def test_v5_no_thing_at_all(absent, expected):
    zeros = np.zeros((1, 2, 2), np.uint8)
    quality = vpq(zeros, zeros, zeros, zeros, absent=absent)
    np.testing.assert_array_equal([quality.things], [expected])


def test_v6_a_track_that_changes_its_class_is_two_segments():
    """The first of two frames of a track of 8 pixels is half of the true tube: no match."""
    semantic, ids = one_thing([1, 1])
    flipped = semantic.copy()
    flipped[1][semantic[1] == 1] = 2
    found = vpq(semantic, ids, flipped, ids, things=(1, 2), window=2).matches
    assert (found[1].tolist(), found[3].tolist()) == ([1, 0, 0], [0, 1, 1])


@pytest.mark.parametrize("pixels, matched", [(2, 0), (3, 1)])
def test_v6_an_iou_of_one_half_is_no_match(pixels: int, matched: int):
    one, ids = np.ones((1, 1, 4), np.uint8), np.ones((1, 1, 4), np.uint8)
    predicted = (np.arange(4) < pixels).astype(np.uint8)[None, None]
    assert vpq(one, ids, predicted, ids).matches[1, 1] == matched


def test_v7_windows_are_pooled_before_the_ratio():
    """Three found of three, and none of one: 3/4, not the mean of 1 and 0."""
    found = (*one_thing([1, 1, 1]), *one_thing([1, 1, 1]))
    semantic, ids = one_thing([1])
    lost = (semantic, ids, np.full_like(semantic, 255), ids)
    quality = of_window([found, lost], 1)
    assert quality.things == pytest.approx(3 / (3 + 0.5))
    assert [q.things for q in quality.per_sequence.values()] == [1.0, 0.0]


def test_only_the_window_is_kept():
    metric, sizes = VideoPanopticQuality(2, [1], [3]), []
    for t in range(50):
        metric.update(*one_thing([t + 1]), *one_thing([t + 1]))
        sizes.append(len(pickle.dumps(metric)))
    assert sizes[-1] <= sizes[3] + 100


def test_seventy_thousand_ids():
    ids = np.arange(1, 70_001, dtype=np.uint32).reshape(1, 280, 250)
    ones = np.ones(ids.shape, np.uint8)
    quality = vpq(ones, ids, ones, ids[:, ::-1, ::-1])
    assert (quality.vpq, quality.matches[1, 1]) == (1.0, 70_000)


def test_a_thing_of_one_pixel_weighs_as_much_as_any():
    semantic, ids = one_thing([1])
    ids[0, 0, 0] = 2
    predicted = np.where(ids == 2, 255, semantic)
    assert vpq(semantic, ids, predicted, ids).things == pytest.approx(1 / (1 + 0.5))


def test_nothing_measured_is_nan():
    assert np.isnan(scores(VideoPanopticQuality(2, [1]).compute())).all()


def test_the_mean_is_over_windows():
    video = (*one_thing([7, 7]), *one_thing([3, 4]))
    result = measured(VideoPanopticQuality(2, [1], [1, 2]), [video])
    assert {window: scores(q) for window, q in result.per_window.items()} == {
        1: (1.0, 1.0, 1.0),
        2: (0.5, 0.0, 1.0),
    }
    assert scores(result) == (0.75, 0.5, 1.0)


@settings(deadline=None, max_examples=40)
@given(videos(), st.integers(1, 4))
def test_a_perfect_prediction_scores_one(video: Video, window: int):
    quality = of_window([perfect(video)], window, CLASSES, THINGS)
    assert quality.vpq == 1.0 or not quality.matches.any()
    assert not quality.matches[2:].any()


@settings(deadline=None, max_examples=40)
@given(videos(), st.integers(1, 4), NAMES)
def test_the_names_of_ids_do_not_matter(video: Video, window: int, names: list[int]):
    a, b = (
        of_window([each], window, CLASSES, THINGS).matches
        for each in (video, renamed(video, names))
    )
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
