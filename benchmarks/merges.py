"""The fast merge against the authors', on the same predictions: pixels, segments, time.

    python benchmarks/merges.py --frames 20

Frames are synthetic streets of 375 x 1242 pixels through a checkpoint (default: the shipped one).
Both merges run in turn. Pixels agree if their class and, for things, their kernel slot do; maps are
compared at the image's size.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from synthetic_street import SyntheticStreet
from video_knet_core.config import PanopticConfig
from video_knet_core.model.checkpoint import load_model
from video_knet_core.model.merge import MergedMap, merge_panoptic

SIZE = (375, 1242)
CHECKPOINT = Path(__file__).resolve().parents[1] / "models" / "street_lite0.safetensors"


def enlarged(result: MergedMap) -> torch.Tensor:
    """[H,W] slot numbers at the image's size."""
    return interpolate(result.segment_map[None, None].float(), size=SIZE, mode="nearest")[0, 0]


def agreement(a: MergedMap, b: MergedMap) -> tuple[float, float]:
    """Share of equal pixels, and of segments (of either) that overlap their like with IoU > 0.5."""
    x, y = enlarged(a), enlarged(b)
    slots = sorted({*x.unique().tolist(), *y.unique().tolist()} - {0.0})
    ious = [((x == s) & (y == s)).sum() / ((x == s) | (y == s)).sum() for s in slots]
    return float((x == y).float().mean()), float(np.mean([iou > 0.5 for iou in ious]))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint)
    fast, things = model.config.panoptic, len(model.config.classes.things)
    reference = replace(fast, merge="reference")
    configs: dict[str, PanopticConfig] = {
        "fast": replace(fast, merge="fast"),
        "reference": reference,
    }
    times: dict[str, list[float]] = {name: [] for name in configs}
    scores, state = [], None
    street = SyntheticStreet(1_000_000, *SIZE)
    for t in range(arguments.frames):
        image = torch.from_numpy(street.frame(t).image).permute(2, 0, 1)[None].float()
        prediction, state = model(image, state)
        results = {}
        for name, config in configs.items():
            start = time.perf_counter()
            results[name] = merge_panoptic(
                prediction.class_logits[0], prediction.mask_logits[0], things, config, SIZE
            )
            times[name].append((time.perf_counter() - start) * 1e3)
        scores.append(agreement(results["fast"], results["reference"]))
    pixels, segments = np.array(scores).T
    print(f"{arguments.frames} frames of {SIZE[0]} x {SIZE[1]}")
    print(f"equal pixels   mean {pixels.mean():.2%}, least {pixels.min():.2%}")
    print(f"equal segments mean {segments.mean():.2%} (IoU above 0.5), least {segments.min():.2%}")
    for name, seen in times.items():
        print(f"{name:<9} merge {np.median(seen):6.1f} ms (median)")
    print(f"ratio {np.median(times['reference']) / np.median(times['fast']):.1f}")


if __name__ == "__main__":
    main()
