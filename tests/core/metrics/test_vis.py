"""AP of video instances: equal to YouTube-VIS's own program on golden cases, and as defined."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, astuple, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from video_knet_core.metrics.vis import (
    PredictedTrack,
    TrueTrack,
    VideoInstanceAP,
    VideoInstanceQuality,
)
from video_knet_core.run_lengths import RunLengths

FIXTURES = Path(__file__).parents[2] / "fixtures" / "metrics"
GOLDEN = sorted(path.stem for path in FIXTURES.glob("vis_*.npz"))
AREAS = {
    ("vis_basic", 600, 1500): (
        *(0.3883168316831683, 0.6040841584158416, 0.6061848184818482),
        *(0.4, 0.7166666666666666, 0.7686666666666666),
    ),
    ("vis_crowd", 300, 900): (
        *(0.0, 0.4166666666666667, 0.5138943894389438),
        *(0.0, 0.5333333333333333, 0.55),
    ),
    ("vis_crowd", 600, 1500): (
        *(0.3499999999999999, 0.22549504950495047, 0.6876237623762376),
        *(0.4, 0.275, 0.7125),
    ),
    ("vis_ties_dups", 300, 900): (
        *(0.39745874587458746, 0.7083333333333331, 0.641149516737388),
        *(0.45, 0.7333333333333333, 0.76),
    ),
}
"""Case and area limits -> APs, APm, APl, ARs, ARm, ARl of ytvoseval.py with these limits, run for
this test, since all golden tracks are small by the official ones."""
quick = settings(max_examples=30, deadline=None)


class Video(NamedTuple):
    truth: list[TrueTrack]
    predicted: list[PredictedTrack]


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as case:
        return dict(case)


@cache
def entries(name: str) -> dict:
    return json.loads(gzip.decompress((FIXTURES / f"{name}.json.gz").read_bytes()))


def run_lengths(frames) -> list[RunLengths | None]:
    """Frames [H, W], or as in the official files."""

    def encoded(mask):
        return RunLengths.from_coco(mask) if isinstance(mask, dict) else RunLengths.from_mask(mask)

    return [None if mask is None else encoded(mask) for mask in frames]


def true(category: int, frames, crowd: bool = False) -> TrueTrack:
    return TrueTrack(category, run_lengths(frames), crowd)


def guess(category: int, frames, score: float) -> PredictedTrack:
    return PredictedTrack(category, run_lengths(frames), score)


def golden_videos(name: str) -> dict[int, Video]:
    """The official files as they are, with compressed run lengths."""
    gt, dt = entries(f"{name}_gt"), entries(f"{name}_dt")
    found = {video["id"]: Video([], []) for video in gt["videos"]}
    for a in gt["annotations"]:
        track = true(a["category_id"], a["segmentations"], bool(a["iscrowd"]))
        found[a["video_id"]].truth.append(track)
    for d in dt:
        track = guess(d["category_id"], d["segmentations"], d["score"])
        found[d["video_id"]].predicted.append(track)
    return found


def measured(videos: dict[int, Video], **options) -> VideoInstanceQuality:
    """The metric of the videos."""
    metric = VideoInstanceAP(**options)
    for truth, predicted in videos.values():
        metric.update(truth, predicted)
    return metric.compute()


def twelve(quality: VideoInstanceQuality) -> tuple[float, ...]:
    """With -1 in place of NaN, as the official program has it."""
    return tuple(np.nan_to_num(astuple(quality)[:12], nan=-1).tolist())


def box(left: int, right: int, frames: int = 2) -> np.ndarray:
    """Columns left..right - 1 of an image of 1 x 10 pixels, in all frames."""
    masks = np.zeros((frames, 1, 10), bool)
    masks[..., left:right] = True
    return masks


def quality(truth: list, predicted: list, **options) -> VideoInstanceQuality:
    """One video of (masks, [crowd]) and (masks, score), all of category 1."""
    guesses = [guess(1, *track) for track in predicted]
    return measured({0: Video([true(1, *track) for track in truth], guesses)}, **options)


@st.composite
def videos(draw: st.DrawFn) -> dict[int, Video]:
    """A few small videos; some tracks are empty, some scores equal."""
    found = {}
    for name in range(draw(st.integers(0, 3))):
        shape = tuple(draw(st.integers(1, limit)) for limit in (3, 3, 4))
        masks = arrays(np.bool_, shape)
        category = st.integers(1, 2)
        truth = draw(st.lists(st.tuples(category, masks, st.booleans()), max_size=3))
        guesses = st.tuples(category, masks, st.sampled_from([0.25, 0.5, 0.75]))
        predicted = draw(st.lists(guesses, max_size=4))
        found[name] = Video(
            [true(*track) for track in truth], [guess(*track) for track in predicted]
        )
    return found


def test_all_golden_cases_are_there():
    assert len(GOLDEN) == 10


@pytest.mark.parametrize("name", GOLDEN)
def test_the_twelve_numbers_equal_ytvoseval(name):
    found = twelve(measured(golden_videos(name)))
    np.testing.assert_allclose(found, golden(name)["stats"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["vis_basic", "vis_crowd", "vis_sparse_cats", "vis_empty_videos"])
def test_curves_of_each_class_equal_ytvoseval(name):
    case, per_class = golden(name), measured(golden_videos(name)).per_class
    present = case["recall"][0, :, 2] >= 0
    assert sorted(per_class) == (np.flatnonzero(present) + 1).tolist()
    for category, curve in per_class.items():
        expected = case["precision"][:, :, category - 1, 2]
        np.testing.assert_allclose(curve.precision, expected, atol=1e-6)  # stored as float32
        np.testing.assert_allclose(curve.recall, case["recall"][:, category - 1, 2], atol=1e-6)
        assert curve.ap == pytest.approx(curve.precision.mean())


@pytest.mark.parametrize("case", AREAS, ids=str)
def test_numbers_by_area_equal_ytvoseval_with_other_limits(case):
    name, low, high = case
    found = measured(golden_videos(name), area_limits=(low, high))
    by_area = twelve(found)[3:6] + twelve(found)[9:12]
    np.testing.assert_allclose(by_area, AREAS[case], rtol=0, atol=1e-9)


def test_iou_is_taken_over_all_frames_together():
    # 9 of 12 common pixels, though the second frame alone has IoU 0.25.
    truth = np.concatenate([box(0, 8, 1), box(0, 1, 1)])
    predicted = np.concatenate([box(0, 8, 1), box(0, 4, 1)])
    assert quality([(truth,)], [(predicted, 0.5)]).ap75 == pytest.approx(1.0)
    smaller = np.concatenate([box(0, 8, 1), box(1, 5, 1)])
    assert quality([(truth,)], [(smaller, 0.5)]).ap75 == 0.0


def test_area_is_the_mean_over_frames_in_sight():
    track = np.zeros((4, 200, 200), bool)
    track[0, :150, :150] = True  # 22500 pixels once: medium, by the mean of all frames small
    found = quality([(track,)], [(track, 0.5)])
    assert twelve(found)[3:6] == pytest.approx((-1.0, 1.0, -1.0))
    found = quality([(track,)], [(track, 0.5)], area_limits=(32**2, 96**2))
    assert twelve(found)[3:6] == pytest.approx((-1.0, -1.0, 1.0))


def test_a_track_at_a_limit_is_of_both_kinds():
    found = quality([(box(0, 4),)], [(box(0, 4), 0.5)], area_limits=(4, 8))
    assert twelve(found)[3:6] == pytest.approx((1.0, 1.0, -1.0))


def test_an_unmatched_prediction_of_another_size_is_no_false_alarm():
    predicted = [(box(5, 10), 0.9), (box(0, 2), 0.5)]
    found = quality([(box(0, 2),)], predicted, area_limits=(4, 8))
    assert (found.ap, found.ap_small) == pytest.approx((0.5, 1.0))


def test_crowd_takes_any_number_of_predictions_and_is_no_miss():
    truth = [(box(0, 4),), (box(5, 9), True)]
    predicted = [(box(5, 9), 0.9), (box(5, 9), 0.8), (box(0, 4), 0.7)]
    assert quality(truth, predicted).ap == pytest.approx(1.0)
    assert quality(truth, predicted[2:]).ar100 == pytest.approx(1.0)


def test_crowd_matches_by_plain_iou():
    # COCO's own rule would divide by the prediction alone, which lies within the crowd.
    truth, predicted = [(box(0, 1),), (box(2, 10), True)], [(box(2, 4), 0.9), (box(0, 1), 0.5)]
    assert quality(truth, predicted).ap == pytest.approx(0.5)


def test_equal_scores_are_taken_in_the_order_of_the_tracks():
    right, wrong = (box(0, 4), 0.5), (box(6, 9), 0.5)
    assert quality([(box(0, 4),)], [right, wrong]).ap == pytest.approx(1.0)
    assert quality([(box(0, 4),)], [wrong, right]).ap == pytest.approx(0.5)


def test_of_equally_good_ground_truth_the_last_is_taken():
    truth = [(box(0, 2),), (box(2, 4),)]
    # IoU 0.5 with both: at threshold 0.5 only the first is left for the second prediction.
    assert quality(truth, [(box(0, 4), 0.9), (box(0, 2), 0.5)]).ar100 == pytest.approx(0.55)
    assert quality(truth, [(box(0, 4), 0.9), (box(2, 4), 0.5)]).ar100 == pytest.approx(0.5)


@quick
@given(videos())
def test_missing_and_empty_masks_are_the_same(some):
    def dropped(track):
        masks = [mask if mask.area else None for mask in track.masks]
        return replace(track, masks=masks)

    without = {
        name: Video([dropped(t) for t in v.truth], [dropped(t) for t in v.predicted])
        for name, v in some.items()
    }
    np.testing.assert_equal(asdict(measured(without)), asdict(measured(some)))


def test_a_track_without_pixels_still_counts():
    found = quality([(box(0, 4),), (box(0, 0),)], [(box(0, 0), 0.9), (box(0, 4), 0.5)])
    assert found.ar100 == pytest.approx(0.5)
    assert found.per_class[1].precision[0, 0] == pytest.approx(0.5)


def test_classes_without_ground_truth_do_not_count():
    truth, crowd = true(1, box(0, 4)), true(2, box(5, 9), crowd=True)
    guesses = [guess(k, box(0, 4), 0.5) for k in (1, 2, 3)]
    found = measured({0: Video([truth, crowd], guesses)})
    assert found.ap == pytest.approx(1.0) and sorted(found.per_class) == [1]


def test_nothing_to_find_is_nan():
    for found in (VideoInstanceAP().compute(), quality([(box(0, 4), True)], [(box(0, 4), 0.5)])):
        assert np.isnan(astuple(found)[:12]).all()


def test_only_the_best_hundred_tracks_of_a_video_count():
    def found(wrong: int) -> float:
        predicted = [(box(6, 9), 0.9)] * wrong + [(box(0, 4), 0.5)]
        return quality([(box(0, 4),)], predicted).ar100

    assert (found(99), found(100)) == pytest.approx((1.0, 0.0))


def test_recall_with_few_tracks():
    truth = [(box(i, i + 1),) for i in range(10)]
    found = quality(truth, [(track, 0.5) for (track,) in truth])
    assert (found.ar1, found.ar10, found.ar100) == pytest.approx((0.1, 1.0, 1.0))


def test_a_video_without_ground_truth_brings_false_alarms():
    seen = Video([true(1, box(0, 4))], [guess(1, box(0, 4), 0.5)])
    ghost = Video([], [guess(1, box(0, 4), 0.9)])
    assert measured({0: seen, 1: ghost}).ap == pytest.approx(0.5)
    assert measured({0: seen, 1: Video([], [])}).ap == pytest.approx(1.0)


@quick
@given(videos())
def test_a_perfect_prediction_scores_one(some):
    perfect = {}
    for name, video in some.items():
        truth = [t for t in video.truth if any(m.area for m in t.masks) and not t.crowd]
        perfect[name] = Video(truth, [PredictedTrack(t.category, t.masks, 0.5) for t in truth])
    found = measured(perfect)
    expected = 1.0 if any(video.truth for video in perfect.values()) else np.nan
    scores = (found.ap, found.ap50, found.ap75, found.ar100)
    assert scores == pytest.approx((expected,) * 4, nan_ok=True)


@pytest.mark.parametrize(
    ("masks", "message"),
    [(box(0, 4, 3), r"got \[2, 3\]"), (np.zeros((2, 10, 1), bool), r"\[\(1, 10\), \(10, 1\)\]")],
)
def test_tracks_of_a_video_have_one_length_and_size(masks, message):
    metric = VideoInstanceAP()
    with pytest.raises(ValueError, match=message):
        metric.update([true(1, box(0, 4))], [guess(1, masks, 0.5)])
    assert np.isnan(metric.compute().ap)
