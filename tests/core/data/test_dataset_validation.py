"""`video-knet validate-data` finds what is planted, names it, and finds nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_fixtures import FIXTURES, put, run_lengths

from video_knet_core.cli import main

SMALL = np.zeros((24, 64, 3), np.uint8)
WRONG_RGB = np.full((48, 64, 3), (42, 0, 0), np.uint8)


def faults(layout: str, root: Path, capsys) -> tuple[int, list[str]]:
    """Exit code and lines, without the sum at the end."""
    code = main(["validate-data", FIXTURES[layout].dataset, str(root)])
    *lines, total = capsys.readouterr().out.splitlines()
    assert total == f"{FIXTURES[layout].split}: {len(lines)} faults"
    return code, lines


def damage_official_step(root: Path) -> list[str]:
    (root / "images/val/0000/000002.png").unlink()
    for folder in ("images", "panoptic_maps"):
        (root / folder / "val/0001/000001.png").unlink()
    put(root / "panoptic_maps/val/0000/000000.png", WRONG_RGB)
    return [
        "val: 0000/000000: .*0..18, 255, got 42",
        "val: 0000/000002: has no image",
        "val: 0001/000001: the frame is missing",
    ]


def damage_flat_step(root: Path) -> list[str]:
    folder = root / "video_sequence/val"
    (folder / "000000_000001_panoptic.png").unlink()
    put(folder / "000001_000000_leftImg8bit.png", SMALL)
    put(folder / "000001_000002_panoptic.png", np.full((48, 64, 3), (0, 0, 5), np.uint8))
    return [
        "val: 000000/000001: the image .* has no label image",
        r"val: 000001/000000: labels are \(48, 64\), the image is \(24, 64\)",
        "val: 000001/000002: .*stuff class 0, got 5",
    ]


def damage_cityscapes_vps(root: Path) -> list[str]:
    path = root / "panoptic_gt_val_city_vps.json"
    index = json.loads(path.read_text())
    names = [annotation["image_id"] for annotation in index["annotations"]]
    extra = {"id": 77, "category_id": 13, "iscrowd": 0}
    index["annotations"][0]["segments_info"].append(extra)
    index["annotations"][1]["segments_info"] = []
    path.write_text(json.dumps(index))
    next((root / "val/img").glob(f"{names[5]}*")).unlink()
    return [
        f"val: 0001/{names[0]}: the mask of 77 is empty",
        f"val: 0001/{names[1]}: .*gtFine_color.png: .* segment ids of its index",
        f"val: 0002/{names[5]}: has no image .*newImg8bit.png",
    ]


def damage_vipseg(root: Path) -> list[str]:
    put(root / "panomasks/street_5/00000001.png", np.full((48, 64), 1942, np.uint16))
    put(root / "panomasks/street_6/00000000.png", np.zeros((48, 64), np.uint16))
    with (root / "val.txt").open("a") as file:
        file.write("street_7\n")
    return [
        "val: street_5/00000001: .*, got 1942",
        "val: street_6/00000000: no pixel is labelled",
        "val: street_7: has no frames",
    ]


def damage_vspw(root: Path) -> list[str]:
    (root / "data/street_5/mask/00000000.png").write_bytes(b"")
    (root / "data/street_5/origin/00000002.jpg").write_bytes(b"no image")
    put(root / "data/street_6/origin/00000001.jpg", SMALL)
    put(root / "data/street_6/mask/00000001.png", np.ones((24, 64), np.uint8))
    return [
        "val: street_5/00000000: .*00000000.png: .* empty file",
        "val: street_5/00000002: .*00000002.jpg is not an image that OpenCV can read",
        r"val: street_6/00000001: is \(24, 64\), but frame 00000000 is \(48, 64\)",
    ]


def damage_youtube_vis(root: Path) -> list[str]:
    path = root / "annotations/valid.json"
    index = json.loads(path.read_text())
    track = index["annotations"][0]
    track["segmentations"][0] = {"size": [48, 64], "counts": run_lengths(np.zeros((48, 64)))}
    track["segmentations"][1] = {"size": [48, 64], "counts": [7, 7]}
    path.write_text(json.dumps(index))
    (root / "valid/JPEGImages/street6/00010.jpg").unlink()
    return [
        f"valid: street5/00000: the mask of {track['id']} is empty",
        "valid: street5/00005: .*segmentations.1: .* 3072, got 14",
        "valid: street6/00010: has no image .*00010.jpg",
    ]


def damage_custom(root: Path) -> list[str]:
    put(root / "val/panoptic/drive_5/0.png", np.full((48, 64), 25000, np.uint16))
    (root / "val/panoptic/drive_5/2.png").unlink()
    put(root / "val/panoptic/drive_6/1.png", np.zeros((24, 64), np.uint16))
    return [
        "val: drive_5/0: .*: .*0..10 or .* 65535, got the label .* of class 12",
        "val: drive_5/2: the image .*2.png has no label image",
        r"val: drive_6/1: labels are \(24, 64\), the image is \(48, 64\)",
    ]


DAMAGE: dict[str, Callable[[Path], list[str]]] = {
    "kitti_step": damage_official_step,
    "kitti_step_flat": damage_flat_step,
    "cityscapes_vps": damage_cityscapes_vps,
    "vipseg": damage_vipseg,
    "vspw": damage_vspw,
    "youtube_vis_2019": damage_youtube_vis,
    "custom": damage_custom,
}


@pytest.mark.parametrize("layout", FIXTURES)
def test_a_clean_data_set_has_no_faults(layout, written, capsys):
    assert faults(layout, written[layout], capsys) == (0, [])


@pytest.mark.parametrize("layout", FIXTURES)
def test_three_planted_faults_are_named_and_nothing_else(layout, copy, capsys):
    root = copy(layout)
    expected = DAMAGE[layout](root)
    code, found = faults(layout, root, capsys)
    assert code == 1 and len(found) == len(expected), found
    for line, pattern in zip(sorted(found), expected, strict=True):
        assert re.match(pattern, line), (pattern, line)


def test_a_video_beside_folders_of_videos_is_a_fault(copy, capsys):
    root = copy("custom")
    shutil.copy(root / "val/images/drive_5/0.png", root / "val/images/0.png")
    code, lines = faults("custom", root, capsys)
    assert code == 1 and len(lines) == 1
    assert "expected either images or folders of images" in lines[0] and "drive_5" in lines[0]


@pytest.mark.parametrize("layout", ["vipseg", "vspw"])
def test_a_list_of_videos_that_is_no_text_is_a_fault(layout, copy, capsys):
    root = copy(layout)
    (root / "val.txt").write_bytes(b"\xff\x00junk")
    code, lines = faults(layout, root, capsys)
    assert code == 1 and len(lines) == 1 and "val.txt cannot be read" in lines[0]


@pytest.mark.parametrize("layout", ["vipseg", "vspw"])
def test_a_list_of_videos_may_have_a_byte_order_mark(layout, copy, capsys):
    root = copy(layout)
    (root / "val.txt").write_bytes(b"\xef\xbb\xbf" + (root / "val.txt").read_bytes())
    assert faults(layout, root, capsys) == (0, [])


def test_all_splits_are_read_unless_one_is_named(copy, capsys):
    root = copy("custom")
    shutil.copytree(root / "val", root / "train")
    (root / "train/images/drive_5/0.png").unlink()
    assert main(["validate-data", "custom", str(root)]) == 1
    assert "train: drive_5/0: has no image" in capsys.readouterr().out
    assert main(["validate-data", "custom", str(root), "--split", "val"]) == 0
    assert capsys.readouterr().out == "val: 0 faults\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "."], "expected a data set of"),
        (["vspw", "no/such"], "train, val, test in no/such, .* vspw, got none"),
        (["custom", "CUSTOM", "--split", "test"], "split of test .* got val"),
    ],
)
def test_bad_usage(arguments, message, written, capsys):
    arguments = [str(written["custom"]) if word == "CUSTOM" else word for word in arguments]
    assert main(["validate-data", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
