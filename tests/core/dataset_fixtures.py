"""Tiny data sets in every layout, drawn by the synthetic street, with what a reader must give.

The codes are written out here by hand, apart from the code under test.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from synthetic_street import SyntheticStreet
from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.data.datasets import open_dataset
from video_knet_core.data.street_frame import StreetFrame
from video_knet_core.data.video import VideoDataset
from video_knet_core.types import ClassTable

CONFIGS = Path(__file__).parents[2] / "config"
HEIGHT, WIDTH, FRAMES = 48, 64, 3
SEEDS = (5, 6)
"""Streets on which people, cyclists and vehicles are near at the time."""
PERSON, CYCLIST, VEHICLE = 8, 9, 10
TRAIN_IDS = np.array([0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 13])
"""Cityscapes train id of each street class."""
VIPSEG_NAMES = (
    *("road", "path", "building", "handrail_or_fence", "pole", "billboard_or_Bulletin_Board"),
    *("tree", "sky", "person", "bicycle", "car"),
)
VIPSEG_CATEGORIES = np.array([19, 20, 22, 8, 13, 41, 67, 29, 61, 52, 49])
"""Category, from 1, of each of the names in the data set's own list."""
YOUTUBE_CATEGORIES = {PERSON: 1, CYCLIST: 21, VEHICLE: 6}
"""person, motorbike, sedan"""


@dataclass(frozen=True)
class Expected:
    """What a reader must give for one frame."""

    video: str
    name: str
    image: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    masks: dict[int, np.ndarray] | None = None
    """Track id -> [H, W] of data sets whose instances overlap."""


@dataclass(frozen=True)
class Fixture:
    """A data set on disk."""

    dataset: str
    split: str
    write: Callable[[Path], list[Expected]]


@functools.cache
def street(seed: int) -> tuple[StreetFrame, ...]:
    """Three frames, each with some pixels made void."""
    drive = SyntheticStreet(seed, HEIGHT, WIDTH)
    frames = tuple(drive.frame(t) for t in range(20, 20 + FRAMES))
    for frame in frames:
        frame.semantic[-5:, 10:20], frame.instance[-5:, 10:20] = 255, 0
    return frames


def street_classes() -> ClassTable:
    return load_yaml(ModelConfig, CONFIGS / "models/street_lite0.yaml").classes


def vipseg_classes() -> ClassTable:
    return load_yaml(ModelConfig, CONFIGS / "models/vipseg_r50.yaml").classes


def translated(frame: StreetFrame, ids: np.ndarray) -> np.ndarray:
    """The semantic map with `ids[class]`; void stays."""
    table = np.full(256, 255, np.uint8)
    table[: len(ids)] = ids
    return table[frame.semantic]


def stored(path: Path, image: np.ndarray) -> np.ndarray:
    """Write RGB; returns what a decoder makes of the file (a JPEG is not what went in)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return cv2.imread(str(path))[..., ::-1]


def put(path: Path, labels: np.ndarray) -> None:
    """Write a label image, RGB or one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), labels[..., ::-1] if labels.ndim == 3 else labels)


def palette_png(width: int, height: int, colors: bytes, rows: bytes) -> bytes:
    """A PNG of positions in a palette; each row starts with filter 0."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    data = zlib.compress(rows)
    chunks = ((b"IHDR", header), (b"PLTE", colors), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


def write_kitti_step(root: Path, image: str, labels: str) -> list[Expected]:
    """`image` and `labels`: file names with video and frame to be filled in."""
    expected = []
    for video, seed in enumerate(SEEDS):
        for t, frame in enumerate(street(seed)):
            semantic = translated(frame, TRAIN_IDS)
            objects = np.isin(semantic, (11, 13)) * (frame.instance.astype(np.int64) + 300)
            rgb = np.stack([semantic, objects // 256, objects % 256], axis=-1).astype(np.uint8)
            put(root / labels.format(video=video, frame=t), rgb)
            pixels = stored(root / image.format(video=video, frame=t), frame.image)
            digits = 4 if "video_sequence" not in image else 6
            names = f"{video:0{digits}d}", f"{t:06d}"
            expected.append(Expected(*names, pixels, semantic, objects))
    return expected


def write_official_kitti_step(root: Path) -> list[Expected]:
    return write_kitti_step(
        root,
        "images/val/{video:04d}/{frame:06d}.png",
        "panoptic_maps/val/{video:04d}/{frame:06d}.png",
    )


def write_flat_kitti_step(root: Path) -> list[Expected]:
    stem = "video_sequence/val/{video:06d}_{frame:06d}"
    return write_kitti_step(root, f"{stem}_leftImg8bit.png", f"{stem}_panoptic.png")


def write_cityscapes_vps(root: Path) -> list[Expected]:
    """Ids are spread over all three bytes; the frames end as new and as original ones do."""
    expected, images, annotations = [], [], []
    for video, seed in enumerate(SEEDS):
        for t, frame in enumerate(street(seed)):
            image_id = f"{video + 1:04d}_{video * 6 + t + 1:04d}_ulm_000001_{5 * t + 4:06d}"
            image_end, label_end = "newImg8bit", "final_mask"
            if t == 1:
                image_end, label_end = "leftImg8bit", "gtFine_color"
            semantic = translated(frame, TRAIN_IDS)
            joint = frame.instance.astype(np.int64) * 256 + semantic
            ids = np.where(semantic == 255, 0, (joint + 1) * 7919 % 0xFFFFFF)
            segments = [
                {"id": int(i), "category_id": int(semantic[ids == i][0]), "iscrowd": 0, "area": 1}
                for i in np.unique(ids)
                if i
            ]
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            put(root / f"val/panoptic_video/{image_id}_{label_end}.png", rgb)
            file = f"{image_id}_{image_end}.png"
            pixels = stored(root / f"val/img/{file}", frame.image)
            images.append({"id": image_id, "width": WIDTH, "height": HEIGHT, "file_name": file})
            annotations.append(
                {
                    "image_id": image_id,
                    "file_name": f"{image_id}_{label_end}.png",
                    "segments_info": segments,
                }
            )
            objects = np.where(np.isin(semantic, (11, 12, 13)), ids, 0)
            expected.append(Expected(image_id[:4], image_id, pixels, semantic, objects))
    index = {"images": images, "annotations": annotations, "categories": []}
    (root / "panoptic_gt_val_city_vps.json").write_text(json.dumps(index))
    return expected


def write_vipseg(root: Path) -> list[Expected]:
    """Instances of a category are counted from 0, as in the data set."""
    classes, expected = vipseg_classes(), []
    ids = np.array([classes.id_of(name) for name in VIPSEG_NAMES])
    for seed in SEEDS:
        objects = np.unique([frame.instance for frame in street(seed)])[1:]
        for t, frame in enumerate(street(seed)):
            category = np.append(VIPSEG_CATEGORIES, np.zeros(256 - 11, int))[frame.semantic]
            number = np.searchsorted(objects, frame.instance)
            values = np.where(frame.instance > 0, category * 100 + number, category)
            put(root / f"panomasks/street_{seed}/{t:08d}.png", values.astype(np.uint16))
            pixels = stored(root / f"imgs/street_{seed}/{t:08d}.jpg", frame.image)
            instance = np.where(frame.instance > 0, values, 0)
            semantic = translated(frame, ids)
            expected.append(Expected(f"street_{seed}", f"{t:08d}", pixels, semantic, instance))
    (root / "val.txt").write_text("".join(f"street_{seed}\n" for seed in SEEDS))
    return expected


def write_vspw(root: Path) -> list[Expected]:
    """No newline ends the list; "others" (0) is on the void pixels of one frame."""
    expected = []
    for seed in SEEDS:
        for t, frame in enumerate(street(seed)):
            semantic = translated(frame, VIPSEG_CATEGORIES - 1)
            raw = np.where(semantic == 255, 0 if t == 0 else 255, semantic + 1).astype(np.uint8)
            put(root / f"data/street_{seed}/mask/{t:08d}.png", raw)
            pixels = stored(root / f"data/street_{seed}/origin/{t:08d}.jpg", frame.image)
            none = np.zeros_like(semantic)
            expected.append(Expected(f"street_{seed}", f"{t:08d}", pixels, semantic, none))
    (root / "val.txt").write_text("\n".join(f"street_{seed}" for seed in SEEDS))
    return expected


def write_youtube_vis(root: Path) -> list[Expected]:
    """Masks are grown by a few pixels, so that neighbours overlap."""
    expected, videos, annotations = [], [], []
    for number, seed in enumerate(SEEDS, start=1):
        frames, tracks = street(seed), {}
        for t, frame in enumerate(frames):
            grown = {}
            for track in np.unique(frame.instance[frame.instance > 0]).tolist():
                mask = cv2.dilate((frame.instance == track).astype(np.uint8), np.ones((5, 5)))
                class_id = int(frame.semantic[frame.instance == track][0])
                entry = tracks.setdefault(track, (class_id, [None] * len(frames)))
                entry[1][t] = {"size": [HEIGHT, WIDTH], "counts": run_lengths(mask)}
                grown[number * 1000 + track] = (mask > 0, YOUTUBE_CATEGORIES[class_id] - 1)
            semantic = np.full((HEIGHT, WIDTH), 255, np.uint8)
            objects = np.zeros((HEIGHT, WIDTH), np.int64)
            for track, (mask, class_id) in sorted(grown.items(), key=lambda g: -g[1][0].sum()):
                semantic[mask], objects[mask] = class_id, track
            file = f"street{seed}/{5 * t:05d}.jpg"
            pixels = stored(root / f"valid/JPEGImages/{file}", frame.image)
            masks = {track: mask for track, (mask, _) in grown.items()}
            names = f"street{seed}", f"{5 * t:05d}"
            expected.append(Expected(*names, pixels, semantic, objects, masks))
        files = [f"street{seed}/{5 * t:05d}.jpg" for t in range(len(frames))]
        size = {"width": WIDTH, "height": HEIGHT, "length": len(frames)}
        videos.append({"id": number, "file_names": files, **size})
        annotations += [
            {
                "id": number * 1000 + track,
                "video_id": number,
                "category_id": YOUTUBE_CATEGORIES[class_id],
                "iscrowd": 0,
                "segmentations": masks,
                "bboxes": [],
                "areas": [],
            }
            for track, (class_id, masks) in tracks.items()
        ]
    path = root / "annotations/valid.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"videos": videos, "annotations": annotations}))
    return expected


def run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed, column by column, zeros first."""
    counts, value = [0], 0
    for pixel in (mask > 0).ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def write_custom(root: Path) -> list[Expected]:
    root.mkdir(parents=True, exist_ok=True)
    rows = {"label_divisor": 2000, "classes": street_classes().to_rows()}
    (root / "classes.yaml").write_text(yaml.safe_dump(rows))
    expected = []
    for seed in SEEDS:
        for t, frame in enumerate(street(seed)):
            values = frame.semantic.astype(np.int64) * 2000 + frame.instance
            values[frame.semantic == 255] = 65535
            put(root / f"val/panoptic/drive_{seed}/{t}.png", values.astype(np.uint16))
            pixels = stored(root / f"val/images/drive_{seed}/{t}.png", frame.image)
            expected.append(
                Expected(f"drive_{seed}", str(t), pixels, frame.semantic, frame.instance)
            )
    return expected


FIXTURES = {
    "kitti_step": Fixture("kitti_step", "val", write_official_kitti_step),
    "kitti_step_flat": Fixture("kitti_step", "val", write_flat_kitti_step),
    "cityscapes_vps": Fixture("cityscapes_vps", "val", write_cityscapes_vps),
    "vipseg": Fixture("vipseg", "val", write_vipseg),
    "vspw": Fixture("vspw", "val", write_vspw),
    "youtube_vis_2019": Fixture("youtube_vis_2019", "valid", write_youtube_vis),
    "custom": Fixture("custom", "val", write_custom),
}


def opened(layout: str, root: Path) -> VideoDataset:
    """A data set that a fixture has written."""
    return open_dataset(FIXTURES[layout].dataset, root, FIXTURES[layout].split)


def change(path: Path, edit: Callable[[Any], object]) -> None:
    """Edit the content of a JSON file in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
