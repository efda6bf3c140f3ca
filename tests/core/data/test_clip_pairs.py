"""Training pairs of any data set."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from dataset_fixtures import FIXTURES, opened, put

from video_knet_core.data.clip_pairs import ClipPairs
from video_knet_core.data.datasets import DATASETS
from video_knet_core.data.pairs import CropRange
from video_knet_core.data.video import DatasetError

WHOLE = CropRange(scale=(1.0, 1.0), aspect=(1.0, 1.0))


@pytest.mark.parametrize("layout", FIXTURES)
def test_pairs_of_any_data_set_agree_over_time(layout, written):
    pairs = ClipPairs(opened(layout, written[layout]))
    shared = 0
    for seed in range(6):
        pair = pairs.sample(np.random.default_rng(seed), 64, 96)
        assert pair.images.shape == (2, 64, 96, 3) and pair.images.dtype == np.uint8
        assert pair.semantic.shape == pair.instance.shape == (2, 64, 96)
        assert pair.semantic.dtype == np.uint8 and pair.instance.dtype == np.int32
        for i in np.unique(pair.instance)[1:]:
            assert len(np.unique(pair.semantic[pair.instance == i])) == 1
            shared += (pair.instance == i).any(axis=(1, 2)).all()
    assert shared or DATASETS[FIXTURES[layout].dataset].task == "semantic"


@pytest.mark.parametrize(
    ("offsets", "drawn"), [((-2, -1), {-1, -2}), ((-1, 1), {-1, 1}), ((1, 2, 7), {1, 2})]
)
def test_offsets_are_drawn_for_every_pair_within_the_video(
    offsets, drawn, written, expected_frames
):
    root, expected = written["kitti_step"], expected_frames["kitti_step"]
    pairs = ClipPairs(opened("kitti_step", root), offsets, WHOLE)
    images = [truth.image.tobytes() for truth in expected]
    images += [np.ascontiguousarray(truth.image[:, ::-1]).tobytes() for truth in expected]
    rng, found = np.random.default_rng(0), set()
    for _ in range(30):
        pair = pairs.sample(rng, 48, 64)
        key, reference = (images.index(image.tobytes()) for image in pair.images)
        assert key // 3 == reference // 3  # one video, and both or neither are mirrored
        found.add(reference - key)
    assert found == drawn


def test_a_clip_goes_one_way_through_its_video(written, expected_frames):
    root, expected = written["kitti_step"], expected_frames["kitti_step"]
    clips = ClipPairs(opened("kitti_step", root), (-1, 1, -2), WHOLE, frames=3)
    images = [truth.image.tobytes() for truth in expected]
    images += [np.ascontiguousarray(truth.image[:, ::-1]).tobytes() for truth in expected]
    rng, found = np.random.default_rng(0), set()
    for _ in range(20):
        at = [images.index(image.tobytes()) for image in clips.sample(rng, 48, 64).images]
        assert len({t // 3 for t in at}) == 1
        found.add(tuple(np.diff(at).tolist()))
    assert found == {(-1, -1), (1, 1)}, "no video has room for a gap of 2 and another frame"
    with pytest.raises(DatasetError, match="no video has 4 frames"):
        ClipPairs(opened("kitti_step", root), (-1, 1), frames=4)


def test_the_same_generator_gives_the_same_pair(written):
    pairs = ClipPairs(opened("vipseg", written["vipseg"]))
    first, second = (pairs.sample(np.random.default_rng(4), 32, 64) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.instance, second.instance)


def test_equal_ids_of_two_classes_are_two_objects(copy):
    """As in KITTI-STEP, where person 1 and car 1 are no relatives."""
    root = copy("custom")
    values = np.full((48, 64), 8 * 2000 + 1, np.uint16)
    values[:, 32:] = 10 * 2000 + 1
    for t in range(3):
        put(root / f"val/panoptic/drive_5/{t}.png", values)
    for kind in ("images", "panoptic"):
        shutil.rmtree(root / "val" / kind / "drive_6")
    pair = ClipPairs(opened("custom", root), crop=WHOLE).sample(np.random.default_rng(0), 48, 64)
    assert set(np.unique(pair.instance)) == {1, 2}
    assert all(len(np.unique(pair.instance[pair.semantic == c])) == 1 for c in (8, 10))


@pytest.mark.parametrize("offsets", [(), (0, 1)])
def test_offsets_that_cannot_be(offsets, written):
    with pytest.raises(ValueError, match="offsets other than 0"):
        ClipPairs(opened("custom", written["custom"]), offsets)


def test_videos_that_are_too_short(written):
    with pytest.raises(DatasetError, match=r"no video has 2 frames \[5\] apart"):
        ClipPairs(opened("custom", written["custom"]), (5,))


def test_a_listed_video_without_files(copy):
    root = copy("vspw")
    shutil.rmtree(root / "data/street_6")
    with pytest.raises(DatasetError, match="the video 'street_6' has no frames"):
        ClipPairs(opened("vspw", root))
