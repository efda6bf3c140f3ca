"""The readers of all data sets."""

from __future__ import annotations

import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from dataset_fixtures import CONFIGS, FIXTURES, opened, put, vipseg_classes

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.data.datasets import DATASETS, open_dataset
from video_knet_core.data.folders import list_images
from video_knet_core.data.video import DatasetError
from video_knet_core.data.vipseg import CLASS_OF_VALUE


@pytest.mark.parametrize("layout", FIXTURES)
def test_a_reader_gives_back_every_pixel(layout, written, expected_frames):
    root, expected = written[layout], expected_frames[layout]
    frames = [frame for video in opened(layout, root) for frame in video]
    assert len(frames) == len(expected)
    for frame, truth in zip(frames, expected, strict=True):
        assert (frame.video, frame.name) == (truth.video, truth.name)
        np.testing.assert_array_equal(frame.image, truth.image)
        np.testing.assert_array_equal(frame.semantic, truth.semantic)
        np.testing.assert_array_equal(frame.instance, truth.instance)
        assert (frame.image.dtype, frame.semantic.dtype) == (np.uint8, np.uint8)
        assert frame.instance.dtype == np.int64 and not frame.empty


@pytest.mark.parametrize("layout", FIXTURES)
def test_data_workers_that_are_spawned_read_the_same(layout, written):
    """They get a data set by pickle."""
    videos = opened(layout, written[layout])
    for video, other in zip(videos, pickle.loads(pickle.dumps(videos)), strict=True):
        np.testing.assert_array_equal(other[0].semantic, video[0].semantic)


def test_a_test_split_without_labels_is_all_void(copy):
    root = copy("kitti_step")
    (root / "images/val").rename(root / "images/test")
    frame = open_dataset("kitti_step", root, "test")[1][2]
    assert frame.image.any() and (frame.semantic == 255).all() and not frame.instance.any()


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("kitti_step_r50", "kitti_step"),
        ("cityscapes_vps_r50", "cityscapes_vps"),
        ("vipseg_r50", "vipseg"),
        ("youtube_vis_r50", "youtube_vis_2019"),
        ("vspw_pspnet_r101", "vspw"),
        ("street_lite0", "custom"),
    ],
)
def test_the_classes_are_those_of_the_model_configuration(name, layout, written):
    classes = load_yaml(ModelConfig, CONFIGS / f"models/{name}.yaml").classes
    dataset = opened(layout, written[layout])
    assert dataset.kinds == classes.kinds
    assert dataset.class_count == len(classes) and dataset.things == set(classes.things)


def test_vipseg_values_become_classes_of_the_configuration():
    classes = vipseg_classes()
    people = {int(i) for i in CLASS_OF_VALUE[[61, 6100, 6199]]}
    assert [classes[i].name for i in people] == ["person"]
    assert classes[int(CLASS_OF_VALUE[124])].name == "train"
    assert CLASS_OF_VALUE[[0, 200]].tolist() == [255, 255]
    assert CLASS_OF_VALUE[[125, 1900]].tolist() == [-1, -1]  # road is stuff


@pytest.mark.slow
def test_opening_a_large_data_set_reads_no_image(tmp_path):
    """100 videos of 1000 frames; the files are empty, so that reading one would fail."""
    names = [f"{number:05d}" for number in range(1000)]
    for kind, end in (("origin", ".jpg"), ("mask", ".png")):
        first = tmp_path / "data/v000" / kind
        first.mkdir(parents=True)
        for name in names:
            (first / f"{name}{end}").touch()
    videos = [f"v{number:03d}" for number in range(100)]
    for video in videos[1:]:
        (tmp_path / "data" / video).symlink_to(tmp_path / "data/v000")
    (tmp_path / "val.txt").write_text("\n".join(videos))
    tracemalloc.start()
    dataset = open_dataset("vspw", tmp_path, "val")
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6  # the objects that Python has made
    tracemalloc.stop()
    assert sum(map(len, dataset)) == 100_000
    assert megabytes < 150


def test_an_unknown_data_set():
    with pytest.raises(DatasetError, match="camvid.* got 'coco'"):
        open_dataset("coco", ".", "val")


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_root_names_what_is_there_and_what_was_expected(name, tmp_path):
    (tmp_path / "holiday").mkdir()
    split = DATASETS[name].splits[1]
    mark = DATASETS[name].markers[0].format(split)
    with pytest.raises(DatasetError, match=rf"'{split}' \({mark}.*\).* got holiday"):
        open_dataset(name, tmp_path, split)
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(name, tmp_path / "none", split)


def empty_folder(root: Path, *paths: str) -> None:
    for path in paths:
        shutil.rmtree(root / path)
        (root / path).mkdir()


@pytest.mark.parametrize(
    ("layout", "empty", "message"),
    [
        ("kitti_step", lambda r: empty_folder(r, "images/val"), "images/val holds no folders"),
        ("kitti_step_flat", lambda r: empty_folder(r, "video_sequence/val"), "split is empty"),
        ("vspw", lambda r: (r / "val.txt").write_text("\n"), r"val\.txt is empty, expected"),
        ("custom", lambda r: empty_folder(r, "val/images"), "val/images holds no folders"),
    ],
)
def test_an_empty_split(layout, empty, message, copy):
    root = copy(layout)
    empty(root)
    with pytest.raises(DatasetError, match=message):
        opened(layout, root)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((48, 64, 3), np.uint8), "one value per pixel, got .* 3 channels of 8 bit"),
        (np.full((48, 64), 142, np.uint8), r"00000000\.png: .* 0\.\.124, 255, got 142"),
    ],
)
def test_labels_that_are_not_the_data_set_s(labels, message, copy):
    root = copy("vspw")
    put(root / "data/street_5/mask/00000000.png", labels)
    with pytest.raises(DatasetError, match=message):
        opened("vspw", root)[0][0]


def test_frames_and_labels_in_one_folder_are_told_apart_by_their_suffix(tmp_path):
    for name in ("2.jpg", "10.JPG", "2.png", "10.png"):
        (tmp_path / name).touch()
    assert list(list_images(tmp_path, (".jpg", ".jpeg")).items()) == [
        (name[:-4], f"{tmp_path}/{name}") for name in ("2.jpg", "10.JPG")
    ]
    with pytest.raises(DatasetError):
        list_images(tmp_path)


# --- parts of a data set -------------------------------------------------------------------------


def frame_names(dataset) -> list[str]:
    return [f"{video.name}/{frame.name}" for video in dataset for frame in video.frames]


@pytest.mark.parametrize("layout", FIXTURES)
def test_a_part_of_a_video_has_the_labels_of_its_frames(layout, written):
    video = opened(layout, written[layout])[0]
    part = pickle.loads(pickle.dumps(video.part([2, 0])))
    for own, other in zip(part, (video[2], video[0]), strict=True):
        np.testing.assert_array_equal(own.semantic, other.semantic)
        np.testing.assert_array_equal(own.image, other.image)


def test_whole_videos_are_held_out(written):
    learned, held_out = opened("custom", written["custom"]).hold_out(2)
    assert [video.name for video in learned] == ["drive_5"]
    assert [video.name for video in held_out] == ["drive_6"]


def test_the_end_of_a_single_video_is_held_out(written):
    dataset = opened("custom", written["custom"])
    (video,), rest = dataset.videos[:1], dataset.videos[1:]
    single = dataset.without(frame_names(rest))
    assert [v.name for v in single] == [video.name]
    learned, held_out = single.hold_out(3)
    assert frame_names(learned) == ["drive_5/0", "drive_5/1"]
    assert frame_names(held_out) == ["drive_5/2"]


def test_every_nth_image_is_held_out(written):
    images = opened("custom", written["custom"]).single_images()
    assert len(images) == 6 and all(len(video) == 1 for video in images)
    learned, held_out = images.hold_out(3)
    assert frame_names(held_out) == ["drive_5/2", "drive_6/2"]
    assert sorted(frame_names(learned) + frame_names(held_out)) == frame_names(images)


def test_too_little_to_hold_out_is_an_error(written):
    dataset = opened("custom", written["custom"])
    with pytest.raises(DatasetError, match="hold out one of 3, got 2 videos, the first with 3"):
        dataset.hold_out(3)
    single = dataset.without([name for name in frame_names(dataset) if name != "drive_5/0"])
    with pytest.raises(DatasetError, match="got 1 videos, the first with 1 frames"):
        single.hold_out(2)


def test_a_frame_to_leave_out_that_there_is_not_is_named(written):
    dataset = opened("custom", written["custom"])
    with pytest.raises(DatasetError, match="as 'drive_5/0', got 'drive_7/0'"):
        dataset.without(["drive_7/0", "drive_5/1"])
    with pytest.raises(DatasetError, match="the split is empty"):
        dataset.without(frame_names(dataset))
