"""The readers of data sets, training pairs from them, and the writers of results."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import tracemalloc
import zlib
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from dataset_fixtures import CONFIGS, FIXTURES, put, vipseg_classes

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.data import label_png
from video_knet_core.data.cityscapes_vps import KINDS as CITYSCAPES_KINDS
from video_knet_core.data.clip_pairs import CAUSAL, ClipPairs
from video_knet_core.data.datasets import DATASETS, open_dataset
from video_knet_core.data.kitti_step import step_rgb, write_step
from video_knet_core.data.pairs import CropRange
from video_knet_core.data.predictions import Instance
from video_knet_core.data.video import DatasetError, LabelledFrame, Labels, Video
from video_knet_core.data.vipseg import CLASS_OF_VALUE
from video_knet_core.run_lengths import RunLengths


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Layout -> (root, expected frames), each written once."""
    made = {}
    for name, fixture in FIXTURES.items():
        root = tmp_path_factory.mktemp(name)
        made[name] = root, fixture.write(root)
    return made


@pytest.fixture
def copy(written, tmp_path):
    """A function that gives a data set of its own, to be damaged."""

    def copied(layout: str) -> Path:
        shutil.copytree(written[layout][0], tmp_path / layout)
        return tmp_path / layout

    return copied


def opened(layout: str, root: Path):
    return open_dataset(FIXTURES[layout].dataset, root, FIXTURES[layout].split)


# --- readers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FIXTURES)
def test_a_reader_gives_back_every_pixel(layout, written):
    root, expected = written[layout]
    frames = [frame for video in opened(layout, root) for frame in video]
    assert len(frames) == len(expected)
    for frame, truth in zip(frames, expected, strict=True):
        assert (frame.video, frame.name) == (truth.video, truth.name)
        np.testing.assert_array_equal(frame.image, truth.image)
        np.testing.assert_array_equal(frame.semantic, truth.semantic)
        np.testing.assert_array_equal(frame.instance, truth.instance)
        assert (frame.image.dtype, frame.semantic.dtype) == (np.uint8, np.uint8)
        assert frame.instance.dtype == np.int64 and not frame.labels.empty


@pytest.mark.parametrize("layout", FIXTURES)
def test_the_fixture_is_worth_reading(layout, written):
    expected = written[layout][1]
    for name in {truth.video for truth in expected}:
        maps = [truth for truth in expected if truth.video == name]
        assert len(maps) == 3 and any((truth.semantic == 255).any() for truth in maps)
        if layout != "vspw":
            ids = [set(np.unique(truth.instance)) - {0} for truth in maps]
            assert len(ids[0]) > 1 and ids[0] & ids[1]


def test_overlapping_instances_have_masks_of_their_own(written):
    root, expected = written["youtube_vis_2019"]
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
    index = json.loads(path.read_text())
    for annotation in index["annotations"]:
        annotation["iscrowd"] = 1
    path.write_text(json.dumps(index))
    frame = opened("youtube_vis_2019", root)[0][0]
    assert not frame.instance.any() and not len(frame.masks.ids)
    assert (frame.semantic != 255).any()


def test_youtube_vis_without_tracks_has_frames_only(copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    index = json.loads(path.read_text())
    del index["annotations"]
    path.write_text(json.dumps(index))
    frame = opened("youtube_vis_2019", root)[0][0]
    assert (frame.semantic == 255).all() and not frame.instance.any()


def test_compressed_run_lengths_are_read_too(copy):
    root = copy("youtube_vis_2019")
    before = opened("youtube_vis_2019", root)[0][0]
    path = root / "annotations/valid.json"
    index = json.loads(path.read_text())
    for annotation in index["annotations"]:
        annotation["segmentations"] = [
            entry and RunLengths.from_coco(entry).to_coco() for entry in annotation["segmentations"]
        ]
    path.write_text(json.dumps(index))
    after = opened("youtube_vis_2019", root)[0][0]
    np.testing.assert_array_equal(after.masks.masks, before.masks.masks)


def test_a_test_split_without_labels_is_all_void(copy):
    root = copy("kitti_step")
    (root / "images/val").rename(root / "images/test")
    frame = open_dataset("kitti_step", root, "test")[1][2]
    assert frame.image.any() and (frame.semantic == 255).all() and not frame.instance.any()


def test_one_video_of_ones_own_needs_no_folder_of_its_own(copy):
    root = copy("custom")
    for kind in ("images", "panoptic"):
        (root / "val" / kind / "drive_5").rename(root / kind)
        shutil.rmtree(root / "val" / kind)
        (root / kind).rename(root / "val" / kind)
    (video,) = opened("custom", root)
    assert video.name == "val" and len(video) == 3 and (video[0].instance > 0).any()


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
    dataset = opened(layout, written[layout][0])
    assert dataset.kinds == classes.kinds
    assert dataset.class_count == len(classes) and dataset.things == set(classes.things)


def test_vipseg_values_become_classes_of_the_configuration():
    classes = vipseg_classes()
    people = {int(i) for i in CLASS_OF_VALUE[[61, 6100, 6199]]}
    assert [classes[i].name for i in people] == ["person"]
    assert classes[int(CLASS_OF_VALUE[124])].name == "train"
    assert CLASS_OF_VALUE[[0, 200]].tolist() == [255, 255]
    assert CLASS_OF_VALUE[[125, 1900]].tolist() == [-1, -1]  # road is stuff


def test_a_palette_is_read_as_positions_not_colours(tmp_path):
    """Two entries of one colour; rows of a 2 x 3 image, each with filter 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 3, 0, 0, 0))
    png += chunk(b"PLTE", bytes([9, 8, 7] * 2 + [200, 0, 0] + [1, 2, 3]))
    png += chunk(b"IDAT", zlib.compress(bytes([0, 0, 1, 2, 0, 3, 1, 0]))) + chunk(b"IEND", b"")
    (tmp_path / "labels.png").write_bytes(png)
    assert label_png.read_values(tmp_path / "labels.png").tolist() == [[0, 1, 2], [3, 1, 0]]


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


# --- what is wrong is named ----------------------------------------------------------------------


def test_an_unknown_data_set():
    with pytest.raises(DatasetError, match="camvid.* got 'coco'"):
        open_dataset("coco", ".", "val")


@pytest.mark.parametrize("name", DATASETS)
def test_a_wrong_root_tells_what_is_there_and_what_was_wanted(name, tmp_path):
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
        (
            "cityscapes_vps",
            lambda r: (r / "panoptic_gt_val_city_vps.json").write_text(
                '{"images": [], "annotations": []}'
            ),
            "split is empty",
        ),
        ("vipseg", lambda r: (r / "val.txt").write_text("\n"), r"val\.txt is empty, expected"),
        ("vspw", lambda r: (r / "val.txt").write_text(""), r"val\.txt is empty, expected"),
        (
            "youtube_vis_2019",
            lambda r: (r / "annotations/valid.json").write_text('{"videos": []}'),
            "split is empty",
        ),
        ("custom", lambda r: empty_folder(r, "val/images"), "val/images holds no folders"),
    ],
)
def test_an_empty_split(layout, empty, message, copy):
    root = copy(layout)
    empty(root)
    with pytest.raises(DatasetError, match=message):
        opened(layout, root)


RGB = np.full((48, 64, 3), (42, 0, 0), np.uint8)
"""Class 42 of KITTI-STEP, segment 42 of Cityscapes-VPS."""


@pytest.mark.parametrize(
    ("layout", "path", "labels", "message"),
    [
        ("kitti_step", "panoptic_maps/val/0000/000000.png", RGB, r"0\.\.18 or 255"),
        ("kitti_step_flat", "video_sequence/val/000000_000000_panoptic.png", RGB, r"0\.\.18"),
        ("cityscapes_vps", "val/panoptic_video/*final_mask.png", RGB, "segment ids of its index"),
        ("vipseg", "panomasks/street_5/00000000.png", np.uint16(1942), r"0\.\.124, 200, "),
        ("vspw", "data/street_5/mask/00000000.png", np.uint8(142), r"0\.\.124, 255"),
        ("custom", "val/panoptic/drive_5/0.png", np.uint16(22042), "label 22042 of class 11"),
    ],
)
def test_a_class_beyond_the_table(layout, path, labels, message, copy):
    root = copy(layout)
    file = sorted(root.glob(path))[0]
    put(file, labels if labels.ndim else np.full((48, 64), labels))
    with pytest.raises(DatasetError, match=message) as error:
        opened(layout, root)[0][0]
    assert file.name in str(error.value)
    value = {"custom": "22042", "vipseg": "1942", "vspw": "142"}.get(layout, "42")
    assert re.search(rf"\b{value}\b", str(error.value))


@pytest.mark.parametrize("count", [11, 254, 255])
@pytest.mark.parametrize("class_id", [0, 10, 11, 253, 254, 255, 256, 321])
def test_own_labels_are_classes_of_the_table_or_an_error(count, class_id, tmp_path):
    """A divisor of 200 leaves room for class ids up to 327 in 16 bits; 255 is none of them."""
    rows = [{"name": f"part {i}", "is_thing": True, "color": [0, 0, 0]} for i in range(count)]
    table = {"label_divisor": 200, "classes": rows}
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump(table))
    label = np.full((48, 64), class_id * 200 + 1, np.uint16)
    label[:8] = 65535
    put(tmp_path / "val/panoptic/0.png", label)
    put(tmp_path / "val/images/0.png", np.zeros((48, 64, 3), np.uint8))
    video = open_dataset("custom", tmp_path, "val")[0]
    if class_id < count:
        frame = video[0]
        assert np.unique(frame.semantic).tolist() == sorted({class_id, 255})
        assert np.unique(frame.instance).tolist() == [0, 1]
    else:
        with pytest.raises(
            DatasetError, match=rf"0\.png: .*{class_id * 200 + 1} of class {class_id}"
        ):
            video[0]


@pytest.mark.parametrize("count", [256, 300, 1203])
def test_a_table_of_more_classes_than_8_bits_hold_is_rejected(count, tmp_path):
    rows = [{"name": f"part {i}", "is_thing": True, "color": [0, 0, 0]} for i in range(count)]
    text = json.dumps({"label_divisor": 1, "classes": rows})  # JSON is YAML, and much faster
    (tmp_path / "classes.yaml").write_text(text)
    (tmp_path / "val/images").mkdir(parents=True)
    message = rf"classes\.yaml: classes: expected at most 255 classes .*, got {count}: 'part 255'"
    with pytest.raises(DatasetError, match=message):
        open_dataset("custom", tmp_path, "val")


def test_an_index_may_not_list_more_classes_than_8_bits_hold(copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    index = json.loads(path.read_text())
    index["categories"] = [{"id": i, "name": f"kind {i}"} for i in range(1, 1204)]
    path.write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="expected at most 255 classes, got 1203"):
        opened("youtube_vis_2019", root)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 2, "name": "a"}], r"categories: .*, got \[2\]"),
        (
            [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
            "categories: .*, got \\[1, 1\\]",
        ),
        ([{"id": 1}], "categories.0: .*'name'"),
    ],
)
def test_faulty_categories_of_an_index(categories, message, copy):
    root = copy("youtube_vis_2019")
    path = root / "annotations/valid.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": categories}))
    with pytest.raises(DatasetError, match=message):
        opened("youtube_vis_2019", root)


def test_the_categories_of_cityscapes_are_checked_where_the_index_lists_them(copy):
    root = copy("cityscapes_vps")
    path = root / "panoptic_gt_val_city_vps.json"
    index = json.loads(path.read_text())
    index["categories"] = [{"id": i, "name": n} for i, (n, _) in enumerate(CITYSCAPES_KINDS)]
    path.write_text(json.dumps(index))
    assert opened("cityscapes_vps", root).kinds == CITYSCAPES_KINDS
    index["categories"][3]["name"] = "guard rail"
    path.write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="class 3: expected 'wall' .*, got 'guard rail'"):
        opened("cityscapes_vps", root)


def test_a_category_beyond_the_table(copy):
    root = copy("youtube_vis_2019")
    change(
        root / "annotations/valid.json", lambda index: index["annotations"][2], "category_id", 41
    )
    message = r"valid\.json: annotations\.2\.category_id: .*1\.\.40, got 41"
    with pytest.raises(DatasetError, match=message):
        opened("youtube_vis_2019", root)


def change(path: Path, entry, key: str, value: object = None) -> None:
    """Set a key of one entry of a JSON file, or remove it."""
    index = json.loads(path.read_text())
    if value is None:
        del entry(index)[key]
    else:
        entry(index)[key] = value
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("layout", "path", "entry", "key", "where"),
    [
        *(
            ("cityscapes_vps", "panoptic_gt_val_city_vps.json", entry, key, where)
            for entry, key, where in [
                (lambda i: i, "annotations", "json"),
                (lambda i: i["annotations"][4], "segments_info", "annotations.4"),
                (lambda i: i["annotations"][4]["segments_info"][1], "id", "segments_info.1"),
                (lambda i: i["images"][3], "file_name", "images.3"),
            ]
        ),
        *(
            ("youtube_vis_2019", "annotations/valid.json", entry, key, where)
            for entry, key, where in [
                (lambda i: i, "videos", "json"),
                (lambda i: i["videos"][1], "file_names", "videos.1"),
                (lambda i: i["annotations"][0], "segmentations", "annotations.0"),
            ]
        ),
    ],
)
def test_a_json_with_a_missing_key(layout, path, entry, key, where, copy):
    root = copy(layout)
    change(root / path, entry, key)
    with pytest.raises(DatasetError, match=rf"{where}: expected the key '{key}', got \["):
        opened(layout, root)


def test_a_category_that_is_missing_in_a_segment(copy):
    root = copy("cityscapes_vps")
    path = root / "panoptic_gt_val_city_vps.json"
    change(path, lambda i: i["annotations"][0]["segments_info"][0], "category_id")
    with pytest.raises(DatasetError, match="segments_info.0: .*'category_id'"):
        opened("cityscapes_vps", root)


def test_an_index_that_is_no_json(copy):
    root = copy("youtube_vis_2019")
    (root / "annotations/valid.json").write_text("{")
    with pytest.raises(DatasetError, match=r"valid\.json is not JSON"):
        opened("youtube_vis_2019", root)


def test_a_mask_with_the_wrong_number_of_pixels(copy):
    root = copy("youtube_vis_2019")
    masks = {"size": [48, 64], "counts": [5, 5]}
    path = root / "annotations/valid.json"
    change(path, lambda i: i["annotations"][0]["segmentations"], 0, masks)
    with pytest.raises(DatasetError, match="annotations\.0\.segmentations\.0: .* 3072, got 10"):
        opened("youtube_vis_2019", root)[0][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: []", "classes: expected a list of classes"),
        ("label_divisor: 10", "classes"),
        (
            "classes: [{name: a, is_thing: true, color: [0, 0, 0]}]\nlabel_divisor: 70000",
            "1..65535",
        ),
    ],
)
def test_unusable_classes_of_ones_own(text, message, copy):
    root = copy("custom")
    (root / "classes.yaml").write_text(text)
    with pytest.raises(DatasetError, match=rf"classes\.yaml: .*{message}"):
        opened("custom", root)


def test_labels_of_eight_bit_are_not_ones_own_code(copy):
    root = copy("custom")
    put(root / "val/panoptic/drive_5/0.png", np.zeros((48, 64), np.uint8))
    with pytest.raises(DatasetError, match=r"0\.png is an image of 8 bit, expected 16 bit"):
        opened("custom", root)[0][0]


def test_colours_in_place_of_values(copy):
    root = copy("vspw")
    put(root / "data/street_5/mask/00000000.png", RGB)
    with pytest.raises(DatasetError, match="one value per pixel, got .* 3 channels of 8 bit"):
        opened("vspw", root)[0][0]


def test_the_splits_that_are_there(written):
    for name, layout, split in [
        ("kitti_step", "kitti_step_flat", "val"),
        ("youtube_vis_2019", "youtube_vis_2019", "valid"),
    ]:
        assert DATASETS[name].available_splits(written[layout][0]) == (split,)


# --- training pairs ------------------------------------------------------------------------------


WHOLE = CropRange(scale=(1.0, 1.0), aspect=(1.0, 1.0))


@pytest.mark.parametrize("layout", FIXTURES)
def test_pairs_of_any_data_set_agree_over_time(layout, written):
    pairs = ClipPairs(opened(layout, written[layout][0]))
    shared = 0
    for seed in range(6):
        pair = pairs.sample(np.random.default_rng(seed), 64, 96)
        assert pair.images.shape == (2, 64, 96, 3) and pair.images.dtype == np.uint8
        assert pair.semantic.shape == pair.instance.shape == (2, 64, 96)
        assert pair.semantic.dtype == np.uint8 and pair.instance.dtype == np.int32
        for i in np.unique(pair.instance)[1:]:
            assert len(np.unique(pair.semantic[pair.instance == i])) == 1
            shared += (pair.instance == i).any(axis=(1, 2)).all()
    assert shared or layout == "vspw"


@pytest.mark.parametrize(
    ("offsets", "wanted"), [(CAUSAL, {-1, -2}), ((-1, 1), {-1, 1}), ((1, 2, 7), {1, 2})]
)
def test_offsets_are_drawn_for_every_pair_within_the_video(offsets, wanted, written):
    root, expected = written["kitti_step"]
    pairs = ClipPairs(opened("kitti_step", root), offsets, WHOLE)
    images = [truth.image.tobytes() for truth in expected]
    images += [np.ascontiguousarray(truth.image[:, ::-1]).tobytes() for truth in expected]
    rng, drawn = np.random.default_rng(0), set()
    for _ in range(30):
        pair = pairs.sample(rng, 48, 64)
        key, reference = (images.index(image.tobytes()) for image in pair.images)
        assert key // 3 == reference // 3  # one video, and both or neither are mirrored
        drawn.add(reference - key)
    assert drawn == wanted


def test_the_same_generator_gives_the_same_pair(written):
    pairs = ClipPairs(opened("vipseg", written["vipseg"][0]))
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


def test_a_video_of_custom_data_without_images_is_not_left_out(copy):
    root = copy("custom")
    shutil.rmtree(root / "val/images/drive_6")
    (video,) = (video for video in opened("custom", root).videos if video.name == "drive_6")
    assert len(video)
    with pytest.raises(DatasetError, match="has no image"):
        video[0]


@pytest.mark.parametrize("offsets", [(), (0, 1)])
def test_offsets_that_cannot_be(offsets, written):
    with pytest.raises(ValueError, match="offsets other than 0"):
        ClipPairs(opened("custom", written["custom"][0]), offsets)


def test_videos_that_are_too_short(written):
    with pytest.raises(DatasetError, match=r"no video has two frames \[5\] apart"):
        ClipPairs(opened("custom", written["custom"][0]), (5,))


def test_a_listed_video_without_files(copy):
    root = copy("vspw")
    shutil.rmtree(root / "data/street_6")
    with pytest.raises(DatasetError, match="the video 'street_6' has no frames"):
        ClipPairs(opened("vspw", root))


def palette_png(side: int) -> bytes:
    """A PNG of positions in a palette; of a large `side` it declares more than it holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)
    rows = zlib.compress(b"\0\1\2\3\4" * 4)
    chunks = ((b"IHDR", header), (b"PLTE", bytes(48)), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def test_damaged_label_images_are_read_or_named(tmp_path):
    path, rng = tmp_path / "label.png", np.random.default_rng(0)
    grey = cv2.imencode(".png", np.arange(16, dtype=np.uint16).reshape(4, 4))[1].tobytes()
    rgb = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for number in range(600):
        data = bytearray((palette_png(4), palette_png(60000), grey, rgb)[number % 4])
        for at in rng.integers(0, len(data), rng.integers(0, 4)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data)) if number % 3 == 0 else None])
        for read in (label_png.read_values, label_png.read_rgb):
            with contextlib.suppress(DatasetError):  # all that may be raised
                assert read(path).size


def test_a_segment_id_that_no_png_can_hold(copy):
    root = copy("cityscapes_vps")
    path = root / "panoptic_gt_val_city_vps.json"
    index = json.loads(path.read_text())
    index["annotations"][0]["segments_info"][0]["id"] = 1 << 70
    path.write_text(json.dumps(index))
    with pytest.raises(DatasetError, match="annotations\\.0\\.segments_info\\.0\\.id: .*16777216"):
        opened("cityscapes_vps", root)


# --- results -------------------------------------------------------------------------------------


def test_step_results_are_read_back_as_labels(written, tmp_path):
    root, expected = written["kitti_step"]
    shutil.copytree(root / "images", tmp_path / "images")
    for truth in expected:
        maps = tmp_path / "panoptic_maps/val"
        path = write_step(maps, truth.video, truth.name, truth.semantic, truth.instance)
        original = root / "panoptic_maps/val" / truth.video / f"{truth.name}.png"
        np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread(str(original)))
    opened("kitti_step", tmp_path)[0][0]


def test_step_ids_are_those_of_two_bytes():
    none = np.zeros((2, 2), np.uint8)
    assert step_rgb(none, np.full((2, 2), 65535))[0, 0].tolist() == [0, 255, 255]
    with pytest.raises(ValueError, match=r"0\.\.65535, got 65536\.\.65536"):
        step_rgb(none, np.full((2, 2), 65536))
    with pytest.raises(ValueError, match=r"got \(2, 2\), \(2, 3\)"):
        step_rgb(none, np.zeros((2, 3), int))


def stored_prediction(name, out, video, frame, prediction):
    """Write one frame as the data set `name` has it submitted."""
    writer = DATASETS[name].predictions.writer(out)
    labels = Labels(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int64))
    frame = LabelledFrame(video.name, frame, np.zeros((2, 2, 3), np.uint8), labels)
    writer.update(video, frame, prediction)
    writer.end_video(video)
    return writer.close()


@pytest.mark.parametrize("class_id", [-1, 256, 65535])
@pytest.mark.parametrize("name", ["kitti_step", "vspw", "cityscapes_vps", "vipseg", "custom"])
def test_class_ids_that_8_bits_do_not_hold_are_never_written(name, class_id, tmp_path):
    semantic, none = np.full((2, 2), class_id), np.zeros((2, 2), np.int64)
    prediction = semantic if name == "vspw" else (semantic, none)
    video = Video("v", (), read=lambda _: None)
    with pytest.raises(ValueError, match=rf"class ids 0\.\..*, got {class_id}\.\."):
        stored_prediction(name, tmp_path, video, "f", prediction)
    assert not list(tmp_path.iterdir())


def test_cityscapes_vps_results_are_read_back_as_labels(written, tmp_path):
    root, expected = written["cityscapes_vps"]
    writer = DATASETS["cityscapes_vps"].predictions.writer(tmp_path / "out")
    frames = iter(expected)
    for video in opened("cityscapes_vps", root):
        for frame, truth in zip(video, islice(frames, len(video)), strict=True):
            writer.update(video, frame, (truth.semantic, truth.instance))
        writer.end_video(video)
    writer.close()
    annotations = json.loads((tmp_path / "out/pred.json").read_text())["annotations"]
    ids: dict[tuple[str, int], set[int]] = {}
    for truth, annotation in zip(expected, annotations, strict=True):
        png = label_png.read_rgb(tmp_path / f"out/pan_pred/{truth.name}.png")
        segments = label_png.segment_ids(png)
        infos = {info["id"]: info for info in annotation["segments_info"]}
        assert infos.keys() == set(np.unique(segments).tolist()) - {0}
        assert ((segments == 0) == (truth.semantic == 255)).all()
        for i, info in infos.items():
            rows, columns = np.nonzero(segments == i)
            x, y, width, height = info["bbox"]
            assert (rows.min(), columns.min()) == (y, x) and info["area"] == len(rows)
            assert (rows.max() + 1, columns.max() + 1) == (y + height, x + width)
            assert set(truth.semantic[rows, columns]) == {info["category_id"]}
            (instance,) = set(truth.instance[rows, columns].tolist())
            if instance:
                ids.setdefault((truth.video, instance), set()).add(i)
    assert ids and all(len(found) == 1 for found in ids.values())


def test_youtube_vis_results(written, tmp_path):
    video = opened("youtube_vis_2019", written["youtube_vis_2019"][0])[1]
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 1:3, 2:6] = masks[2, :, 6] = True
    writer = DATASETS["youtube_vis_2019"].predictions.writer(tmp_path / "out")
    for frame, mask in zip(video, masks, strict=True):
        writer.update(video, frame, [Instance(7, 0, 0.5, RunLengths.from_mask(mask))])
    writer.end_video(video)
    (track,) = json.loads(writer.close().read_text())
    assert (track["video_id"], track["category_id"], track["score"]) == (2, 1, 0.5)
    first, second, third = track["segmentations"]
    assert second is None
    for entry, mask in ((first, masks[0]), (third, masks[2])):
        np.testing.assert_array_equal(RunLengths.from_coco(entry).mask(), mask)
