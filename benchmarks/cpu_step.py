#!/usr/bin/env python3
"""Engine steps of several models and backends against each other, in turn within one run.

    python benchmarks/cpu_step.py OLD.onnx NEW.onnx [onnxruntime-cpu:OTHER.onnx openvino:NEW.onnx]
                                  [--threads 2] [--frames 60]

Every model sees the same frames of a synthetic street and goes on from its own state. They take
turns, so that a noisy machine is noisy to all of them. Columns: wall-clock milliseconds of a step
(median, 99 % quantile, least), processor milliseconds of all threads (least and median, which
other programs disturb less), the ratio of the first model's median and of its least processor time
to this one's, and the largest share of label pixels of a frame that differ from the first model's.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from video_knet_core.data.synthetic_street import SyntheticStreet
from video_knet_core.engine.runtime import Runtime, open_runtime

WARM_UP = 3


@dataclass
class Contestant:
    """One model in one backend, and what was measured of it."""

    runtime: Runtime
    state: Any | None = None
    wall_ms: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    differing: float = 0.0
    """Largest share of pixels of a frame that differ from the first contestant's."""

    def step(self, image: np.ndarray) -> np.ndarray:
        """Time one step; its label map."""
        wall, processor = time.perf_counter(), time.process_time()
        segments, self.state = self.runtime.step(image, self.state)
        self.wall_ms.append((time.perf_counter() - wall) * 1e3)
        self.processor_ms.append((time.process_time() - processor) * 1e3)
        return segments.map


def compete(contestants: list[Contestant], frames: int) -> None:
    """Let all step through the same frames, in turn; forget the first steps."""
    info = contestants[0].runtime.info
    street = SyntheticStreet(7, info.height, info.width)
    for t in range(frames + WARM_UP):
        image = street.frame(t).image
        maps = [contestant.step(image) for contestant in contestants]
        for contestant, found in zip(contestants, maps, strict=True):
            contestant.differing = max(contestant.differing, float((found != maps[0]).mean()))
    for contestant in contestants:
        del contestant.wall_ms[:WARM_UP], contestant.processor_ms[:WARM_UP]


def opened(text: str, threads: int) -> Contestant:
    """ "MODEL" or "BACKEND:MODEL"."""
    backend, found, path = text.partition(":")
    if not found:
        backend, path = "onnxruntime-cpu", text
    return Contestant(open_runtime(Path(path), backend, threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="+", help="MODEL.onnx or BACKEND:MODEL.onnx")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    contestants = [opened(text, args.threads) for text in args.models]
    sizes = {(c.runtime.info.height, c.runtime.info.width) for c in contestants}
    if len(sizes) > 1:
        parser.error(f"the models must have one input size, found {sorted(sizes)}")
    compete(contestants, args.frames)
    print(f"{'p50':>7}{'p99':>7}{'min':>7}{'cpu min':>9}{'cpu p50':>9}", end="")
    print(f"{'x p50':>7}{'x cpu':>7}{'pixels':>9}  model")
    first = contestants[0]
    for text, c in zip(args.models, contestants, strict=True):
        median, worst = np.percentile(c.wall_ms, (50, 99))
        least = min(c.processor_ms)
        ratios = np.median(first.wall_ms) / median, min(first.processor_ms) / least
        print(f"{median:7.1f}{worst:7.1f}{min(c.wall_ms):7.1f}", end="")
        print(f"{least:9.1f}{np.median(c.processor_ms):9.1f}", end="")
        print(f"{ratios[0]:7.2f}{ratios[1]:7.2f}{c.differing:9.1e}  {text}")


if __name__ == "__main__":
    main()
