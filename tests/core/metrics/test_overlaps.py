"""Counting the pixels of segment pairs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from label_videos import CLASSES, THINGS, Video, videos

from video_knet_core.metrics.overlaps import Classes, count_overlaps, sum_overlaps

LABELS = Classes(CLASSES, THINGS)


def rows(overlaps) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in overlaps), strict=True))


def counted(video: Video) -> dict[tuple[int, ...], int]:
    """The definition, pixel by pixel."""
    counts: Counter[tuple[int, ...]] = Counter()
    for gt, gt_id, pred, pred_id in zip(*(m.ravel().tolist() for m in video), strict=True):
        pair = gt, gt_id if gt in THINGS else 0, pred, pred_id if pred in THINGS else 0
        counts[pair] += 1
    return counts


@settings(deadline=None, max_examples=40)
@given(videos())
def test_pairs_are_counted_as_pixel_by_pixel(video: Video):
    frames = count_overlaps(*video, LABELS)
    for frame, maps in zip(frames, zip(*video, strict=True), strict=True):
        assert {tuple(pair): pixels for *pair, pixels in rows(frame)} == counted(maps)
    volume = rows(sum_overlaps(frames))
    assert {tuple(pair): pixels for *pair, pixels in volume} == counted(video)
    assert len(volume) == len(counted(video))


def test_ids_of_stuff_and_void_do_not_matter():
    semantic, ids = np.array([[0, 0, 255]]), np.array([[5, -1, 9]])
    assert rows(count_overlaps(semantic, ids, semantic, ids, LABELS)[0]) == [
        (0, 0, 0, 0, 2),
        (255, 0, 255, 0, 1),
    ]


def test_fewer_things_can_be_distinguished_afterwards():
    semantic, ids = np.array([[2, 2, 3, 3, 0, 255]]), np.array([[1, 2, 1, 2, 7, 7]])
    fewer = Classes(LABELS.number, (3,))
    (more,) = count_overlaps(semantic, ids, semantic, ids, LABELS)
    (expected,) = count_overlaps(semantic, ids, semantic, ids, fewer)
    assert rows(sum_overlaps([more.of_things(fewer)])) == rows(expected) != rows(more)


def test_an_unused_part_of_a_wider_array_is_not_looked_at():
    wide = np.zeros((2, 3, 8), np.uint8)
    wide[..., 4:] = 77
    part = wide[..., :4]
    assert rows(count_overlaps(part, part, part, part, LABELS)[1]) == [(0, 0, 0, 0, 12)]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({0: (3,)}, r"gt_semantic.*\(3,\)"),
        ({0: (0, 3)}, r"gt_semantic.*\(0, 3\)"),
        ({1: (3, 2)}, r"gt_instance.*\(2, 3\).*\(3, 2\)"),
        ({3: (1, 2, 3)}, r"pred_instance.*\(1, 2, 3\)"),
    ],
)
def test_shapes_are_checked(changes: dict[int, tuple[int, ...]], message: str):
    maps = [np.zeros(changes.get(i, (2, 3)), np.uint8) for i in range(4)]
    with pytest.raises(ValueError, match=message):
        count_overlaps(*maps, LABELS)


@pytest.mark.parametrize(
    "index, value, dtype, message",
    [
        (0, 4, np.uint8, "gt_semantic.*4"),
        (2, -1, np.int64, "pred_semantic.*-1"),
        (1, -5, np.int32, "gt_instance.*-5"),
        (3, (1 << 64) - 1, np.uint64, "pred_instance.*18446744073709551615"),
        (2, 1.0, np.float32, "pred_semantic.*float32"),
        (0, True, np.bool_, "gt_semantic.*bool"),
    ],
)
def test_values_are_checked(index: int, value, dtype, message: str):
    maps = [np.full((2, 3), 2, np.uint8) for _ in range(4)]
    maps[index] = maps[index].astype(dtype)
    maps[index][1, 1] = value
    with pytest.raises(ValueError, match=message):
        count_overlaps(*maps, LABELS)
