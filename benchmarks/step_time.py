#!/usr/bin/env python3
"""Time of one frame without ROS: the engine's step, and what the predictor adds to it.

    python benchmarks/step_time.py [--model MODEL.onnx] [--threads 2] [--frames 60]

Image sizes take turns within one run, so that a noisy machine is noisy to all of them. Medians and
90 % quantiles in milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_core.engine.runtime import default_model_path, open_runtime
from video_knet_core.predictor import VideoPredictor

SIZES = ((360, 480), (375, 1242), (1024, 2048))
WARM_UP = 3


def measure(model: Path, threads: int, frames: int) -> dict[tuple[int, int], np.ndarray]:
    """[frames, 2] of engine and other milliseconds for each image size (height, width)."""
    runtime = open_runtime(model, threads=threads)
    street = SyntheticStreet(7, 288, 480)
    predictors = {size: VideoPredictor(runtime) for size in SIZES}
    times = defaultdict(list)
    for t in range(frames + WARM_UP):
        picture = street.frame(t).image
        for size in SIZES:
            image = cv2.resize(picture, size[::-1])
            start = time.perf_counter()
            frame = predictors[size].step(image, round(t * 1e8))
            total = (time.perf_counter() - start) * 1e3
            times[size].append((frame.inference_ms, total - frame.inference_ms))
    return {size: np.array(rows[WARM_UP:]) for size, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=None, help="default: the shipped model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{'image':>12} {'engine p50':>11} {'p90':>7} {'other p50':>10} {'p90':>7}  (ms)")
    results = measure(args.model or default_model_path(), args.threads, args.frames)
    for (height, width), rows in results.items():
        (engine, other), (engine90, other90) = np.percentile(rows, (50, 90), axis=0)
        size = f"{width}x{height}"
        print(f"{size:>12} {engine:11.1f} {engine90:7.1f} {other:10.2f} {other90:7.2f}")


if __name__ == "__main__":
    main()
