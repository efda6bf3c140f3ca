"""Golden metric cases as data sets on disk, with predictions in the form that is handed in.

Written out here by hand, independent of the code under test.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
from dataset_fixtures import put
from label_videos import GOLDEN, golden, golden_videos

VOID = 255


def write_step_case(name: str, root: Path, out: Path) -> dict[str, np.ndarray]:
    """KITTI-STEP in ROOT, predictions in OUT; returns the arrays of the case."""
    case = golden(GOLDEN / f"{name}.npz")
    for number, video in enumerate(golden_videos(case)):
        for t, (gt, gt_ids, pred, pred_ids) in enumerate(zip(*video, strict=True)):
            frame = f"{number:04d}/{t:06d}.png"
            put(root / "images/val" / frame, np.zeros((*gt.shape, 3), np.uint8))
            put(root / "panoptic_maps/val" / frame, step_code(gt, gt_ids))
            put(out / frame, step_code(pred, pred_ids))
    return case


def step_code(semantic: np.ndarray, instance: np.ndarray) -> np.ndarray:
    return np.stack([semantic, instance // 256, instance % 256], axis=-1).astype(np.uint8)


def write_cityscapes_vps_case(name: str, root: Path, out: Path) -> dict[str, np.ndarray]:
    """Cityscapes-VPS in ROOT, predictions in OUT; the annotations of these name no frames."""
    case = golden(GOLDEN / f"{name}.npz")
    images, truth, predicted = [], [], []
    for number, video in enumerate(golden_videos(case)):
        for t, (gt, gt_ids, pred, pred_ids) in enumerate(zip(*video, strict=True)):
            image = f"{number + 1:04d}_{number * 6 + t + 1:04d}_ulm_000000_{t:06d}"
            put(root / f"val/img/{image}_newImg8bit.png", np.zeros((*gt.shape, 3), np.uint8))
            images.append({"id": image, "file_name": f"{image}_newImg8bit.png"})
            things = case["things"]
            png = f"{image}_final_mask.png"
            segments = write_segments(root / "val/panoptic_video" / png, gt, gt_ids, things)
            truth.append({"image_id": image, "file_name": png, "segments_info": segments})
            segments = write_segments(out / f"pan_pred/{image}.png", pred, pred_ids, ())
            predicted.append({"segments_info": segments})
    index = {"images": images, "annotations": truth}
    (root / "panoptic_gt_val_city_vps.json").write_text(json.dumps(index))
    (out / "pred.json").write_text(json.dumps({"annotations": predicted}))
    return case


def write_segments(path: Path, semantic: np.ndarray, instance: np.ndarray, things) -> list[dict]:
    """Write the PNG of segment ids; things without an id are crowds."""
    ids = np.where(semantic == VOID, 0, 1 + semantic.astype(np.int64) * 70000 + instance)
    put(path, np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8))
    return [
        {"id": int(i), "category_id": category, "iscrowd": int(category in things and not instance)}
        for i in np.unique(ids[ids > 0])
        for category, instance in [divmod(int(i) - 1, 70000)]
    ]


def write_vspw_case(name: str, root: Path, out: Path) -> dict[str, np.ndarray]:
    """VSPW in ROOT, predictions in OUT."""
    case = golden(GOLDEN / f"{name}.npz")
    videos = [f"video_{number}" for number in range(int(case["num_videos"]))]
    for number, video in enumerate(videos):
        frames = zip(case[f"gt_raw_{number}"], case[f"pred_{number}"], strict=True)
        for t, (raw, predicted) in enumerate(frames):
            image = np.zeros((*raw.shape, 3), np.uint8)
            put(root / f"data/{video}/origin/{t:08d}.png", image)
            put(root / f"data/{video}/mask/{t:08d}.png", raw)
            put(out / f"{video}/{t:08d}.png", predicted)
    (root / "val.txt").write_text("\n".join(videos))
    return case


def write_youtube_vis_case(name: str, root: Path, out: Path) -> dict[str, np.ndarray]:
    """YouTube-VIS in ROOT, OUT/results.json; the index lists its videos backwards."""
    gt, dt = (
        json.loads(gzip.decompress((GOLDEN / f"{name}_{kind}.json.gz").read_bytes()))
        for kind in ("gt", "dt")
    )
    for video in gt["videos"]:
        for file in video["file_names"]:
            image = np.zeros((video["height"], video["width"], 3), np.uint8)
            put(root / "valid/JPEGImages" / file, image)
    gt["videos"].reverse()
    for path, content in ((root / "annotations/valid.json", gt), (out / "results.json", dt)):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content))
    return golden(GOLDEN / f"{name}.npz")
