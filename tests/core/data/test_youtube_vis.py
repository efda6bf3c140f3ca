"""YouTube-VIS: overlapping masks, crowds, categories of its index."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_fixtures import change, opened

from video_knet_core.data.video import DatasetError


def test_overlapping_instances_have_masks_of_their_own(written, expected_frames):
    root, expected = written["youtube_vis_2019"], expected_frames["youtube_vis_2019"]
    frames = [frame for video in opened("youtube_vis_2019", root) for frame in video]
    overlaps = 0
    for frame, truth in zip(frames, expected, strict=True):
        assert frame.masks is not None and truth.masks is not None
        assert set(frame.masks.ids.tolist()) == set(truth.masks)
        for track, mask in zip(frame.masks.ids.tolist(), frame.masks.masks, strict=True):
            np.testing.assert_array_equal(mask, truth.masks[track])
        overlaps += int((frame.masks.masks.sum(axis=0) > 1).sum())
    assert overlaps


def test_a_crowd_is_no_instance(copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    change(path, lambda index: [row.update(iscrowd=1) for row in index["annotations"]])
    frame = opened("youtube_vis_2019", root)[0][0]
    assert not frame.instance.any() and not len(frame.masks.ids)
    assert (frame.semantic != 255).any()


def test_youtube_vis_without_tracks_has_frames_only(copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    change(path, lambda index: index.pop("annotations"))
    frame = opened("youtube_vis_2019", root)[0][0]
    assert (frame.semantic == 255).all() and not frame.instance.any()


def test_an_index_may_not_list_more_classes_than_8_bits_hold(copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    categories = [{"id": i, "name": f"kind {i}"} for i in range(1, 1204)]
    change(path, lambda index: index.update(categories=categories))
    with pytest.raises(DatasetError, match="expected at most 255 classes, got 1203"):
        opened("youtube_vis_2019", root)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 2, "name": "a"}], r"categories: .*, got \[2\]"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "categories: .*, got \\[1, 1\\]"),
        ([{"id": 1}], "categories.0: .*'name'"),
    ],
)
def test_faulty_categories_of_an_index(categories, message, copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    change(path, lambda index: index.update(categories=categories))
    with pytest.raises(DatasetError, match=message):
        opened("youtube_vis_2019", root)


def test_a_category_beyond_the_table(copy):
    root = copy("youtube_vis_2019")
    change(root / "annotations/valid.json", lambda i: i["annotations"][2].update(category_id=41))
    message = r"valid\.json: annotations\.2\.category_id: .*1\.\.40, got 41"
    with pytest.raises(DatasetError, match=message):
        opened("youtube_vis_2019", root)
