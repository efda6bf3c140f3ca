#!/usr/bin/env python3
"""What a replay costs beside the predictor, and whether its memory grows with the bag.

    python benchmarks/replay.py [--model MODEL.onnx] [--frames 400] [--rounds 3]
                                [--jpeg QUALITY] [--memory-frames 20000] [--folder FOLDER]
                                [--format mcap|sqlite3|ros1]

Speed: the same images, 1242 x 375, through the bare predictor and through a replay, which reads,
decodes, converts and writes beside it; by turns, because a busy machine is busy for both. Other
programs disturb the wall clock more than the processor time, both are printed. Memory: the peak of
a replay of 200 and of many images, 120 x 80, with an engine that does nothing, each in a program
of its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from synthetic_street import SyntheticStreet
from video_knet_core.bags.making import FORMATS, BagFormat, make_bag
from video_knet_core.engine.base import ModelInfo
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.predictor import VideoPredictor
from video_knet_core.replay.bag_replay import replay
from video_knet_core.types import ClassInfo, ClassTable, Detections

PERIOD = 100_000_000
SIZE = (1242, 375)
SMALL = (120, 80)
FEW = 200


class IdleRuntime:
    """An engine that finds the same two segments in every image, at once."""

    name = "idle"
    info = ModelInfo(
        "idle",
        ClassTable((ClassInfo(0, "road", False, (0, 0, 0)), ClassInfo(1, "car", True, (9, 9, 9)))),
        SMALL[1],
        SMALL[0],
    )

    def __init__(self) -> None:
        halves = np.repeat(np.array([1, 2], np.uint8), SMALL[1] // 4)
        self._segments = Detections(
            segment_map=np.repeat(halves[:, None], SMALL[0] // 2, axis=1),
            class_ids=np.array([0, 1]),
            scores=np.array([0.9, 0.9], np.float32),
            areas=np.full(2, SMALL[0] * SMALL[1] // 8),
            embeddings=np.eye(2, dtype=np.float32),
        )

    def step(self, image: np.ndarray, state: Any) -> tuple[Detections, Any]:
        return self._segments, state

    def close(self) -> None:
        pass


def small_frames(count: int) -> Iterator[tuple[np.ndarray, int]]:
    """Noise, made as it is needed."""
    rng = np.random.default_rng(0)
    for number in range(count):
        yield rng.integers(0, 256, (SMALL[1], SMALL[0], 3), np.uint8), number * PERIOD


def peak_memory(frames: int, folder: Path, form: BagFormat) -> float:
    """MiB at most in use by a replay of so many images."""
    path = folder / f"small{frames}{'.bag' if form.format == 'ros1' else ''}"
    make_bag({"/camera/image_raw": small_frames(frames)}, path, form)
    command = [sys.executable, __file__, "--peak", str(path), "--folder", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return float(result.stdout.splitlines()[-1])


def print_peak(path: Path) -> None:
    """In a program of its own: replay a bag with an idle engine and print the peak."""
    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        replay(path, IdleRuntime(), Path(out))
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent, too
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


def measure_speed(
    model: Path, frames: int, rounds: int, folder: Path, form: BagFormat
) -> np.ndarray:
    """[rounds, 2, 2] wall clock and processor seconds of the bare predictor and of a replay."""
    street, runtime = SyntheticStreet(7, 288, 480), open_runtime(model)
    clip = [(cv2.resize(street.frame(t).image, SIZE), t * PERIOD) for t in range(frames)]
    make_bag({"/camera/image_raw": clip}, folder / "large", form)

    def bare() -> None:
        predictor = VideoPredictor(runtime)
        for image, stamp in clip:
            predictor.step(image, stamp)

    rows = []
    for _ in range(rounds + 1):
        whole = seconds(lambda: replay(folder / "large", runtime, folder / "out"))
        rows.append((seconds(bare), whole))
        shutil.rmtree(folder / "out")
    return np.array(rows[1:])  # the first is to get warm


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall clock and processor time of some work."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, help="default: the shipped model")
    parser.add_argument("--frames", type=int, default=400, help="for speed; default 400")
    parser.add_argument("--rounds", type=int, default=3, help="for speed; 0 = memory alone")
    parser.add_argument("--jpeg", type=int, help="quality of compressed images; default: raw")
    parser.add_argument("--format", choices=FORMATS, default="mcap", help="for memory")
    parser.add_argument("--memory-frames", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="for the bags, 30 kB for each small image")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        print_peak(args.peak)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        model = args.model or default_model_path()
        if args.rounds:
            print("frames/s: predictor   replay   ratio   ratio of processor time")
            form = BagFormat(jpeg=args.jpeg)
            rows = measure_speed(model, args.frames, args.rounds, folder, form)
            for (bare, bare_cpu), (whole, whole_cpu) in (*rows, np.median(rows, axis=0)):
                print(
                    f"{args.frames / bare:19.2f} {args.frames / whole:8.2f} {bare / whole:7.1%} "
                    f"{bare_cpu / whole_cpu:25.1%}"
                )
        form = BagFormat(args.format)
        few, many = (peak_memory(n, folder, form) for n in (FEW, args.memory_frames))
        print(
            f"peak memory: {few:.1f} MiB for {FEW} images, {many:.1f} MiB for "
            f"{args.memory_frames}: {many - few:+.1f} MiB"
        )


if __name__ == "__main__":
    main()
