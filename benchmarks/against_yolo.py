#!/usr/bin/env python3
"""Time of a step beside that of YOLO's instance segmentation, at the same size and threads.

    source scripts/env.sh && python benchmarks/against_yolo.py [MODEL ...] [--threads N]

The `ultralytics` package (AGPL-3.0) exports its networks with random weights in a virtual
environment of its own, which is made in --folder; nothing of it is imported here. Of YOLO the
network alone is timed, without what makes masks of its outputs. Of ours the whole graph is, with
kernels, temporal context and panoptic merge; the last column is `VideoPredictor.step`, with resize,
tracker and label map, whose ratio is to YOLO's network in its fastest runtime. Everything runs by
turns in each runtime that is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from video_knet_core.engine import onnx_runtime, openvino_runtime
from video_knet_core.engine.base import BackendError
from video_knet_core.engine.model_file import ModelFile
from video_knet_core.engine.selector import default_model_path, open_runtime
from video_knet_core.machine import machine_facts
from video_knet_core.predictor import VideoPredictor

Work = Callable[[], object]

EXPORT = """
import os, sys
from ultralytics import YOLO
name, out, *size = sys.argv[1:]
os.replace(YOLO(f"{name}.yaml").export(format="onnx", imgsz=tuple(map(int, size))), out)
"""
TORCH = ["torch==2.13.0", "torchvision==0.28.0"]
TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(bool)": np.bool_}


def export_yolo(name: str, size: tuple[int, int], folder: Path) -> Path:
    """The ONNX file of a YOLO network for images of height x width."""
    out = folder.resolve() / f"{name}_{size[0]}x{size[1]}.onnx"
    python = folder.resolve() / "venv/bin/python"
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    if not out.exists():
        # torch first, in the build that this project takes
        for packages in (TORCH, ["ultralytics", "onnx", "onnxslim", "onnxscript", "onnxruntime"]):
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        command = [python, "-c", EXPORT, name, out, *map(str, size)]
        subprocess.run(command, check=True, cwd=folder, stdout=sys.stderr)
    return out


def works_of(path: Path, threads: int) -> dict[str, Work]:
    """A step by each engine that works here, opened as a robot does, on random inputs."""
    random = np.random.default_rng(0)
    session = onnx_runtime.open_session(path, threads, cuda=False)
    inputs = {
        i.name: random.integers(0, 255 if "uint8" in i.type else 2, i.shape).astype(TYPES[i.type])
        for i in session.get_inputs()
    }
    works: dict[str, Work] = {"onnxruntime-cpu": lambda: session.run(None, inputs)}
    with contextlib.suppress(BackendError):
        on_gpu = onnx_runtime.open_session(path, threads, cuda=True)
        works["onnxruntime-cuda"] = lambda: on_gpu.run(None, inputs)
    for name, bfloat16 in (("openvino", False), ("openvino-bf16", True)):
        with contextlib.suppress(BackendError):
            request = openvino_runtime.open_request(path, threads, bfloat16)
            works[name] = partial(request.infer, inputs)
    return works


def predictor_work(path: Path, threads: int, size: tuple[int, int]) -> Work:
    """Image in, tracks and label map out, by the backend that "auto" takes."""
    predictor = VideoPredictor(open_runtime(path, threads=threads))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    stamps = iter(range(0, 10**18, 10**8))
    return lambda: predictor.step(image, next(stamps))


def race(works: dict[tuple[str, str], Work], frames: int) -> dict[tuple[str, str], float]:
    """Median milliseconds of each, all by turns."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    for frame in range(-5, frames):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            if frame >= 0:
                times[key].append((time.perf_counter() - start) * 1e3)
    return {key: statistics.median(values) for key, values in times.items()}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    config = ModelFile.read(args.models[0]).config
    size = config.height, config.width
    yolos = [export_yolo(name, size, args.folder) for name in args.yolo]
    works: dict[tuple[str, str], Work] = {}
    for path in (*yolos, *args.models):
        found = works_of(path, args.threads)
        works |= {(path.stem, runtime): work for runtime, work in found.items()}
    for path in args.models:
        works[path.stem, "predictor"] = predictor_work(path, args.threads, size)
    median = race(works, args.frames)
    base = {runtime: ms for (name, runtime), ms in median.items() if name == yolos[0].stem}
    base["predictor"] = min(base.values())
    rows = [
        {"network": name, "runtime": runtime, "ms": ms, "ratio": ms / base[runtime]}
        for (name, runtime), ms in median.items()
    ]
    return {
        "machine": machine_facts(),
        "size": size,
        "threads": args.threads,
        "frames": args.frames,
        "rows": rows,
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for people: milliseconds and their ratio to those of the first network."""
    names, runtimes = (list(dict.fromkeys(row[k] for row in rows)) for k in ("network", "runtime"))
    cells = {(r["network"], r["runtime"]): f"{r['ms']:.1f} ({r['ratio']:.2f})" for r in rows}
    lines = [["", *runtimes]]
    lines += [[name, *(cells.get((name, r), "-") for r in runtimes)] for name in names]
    return ["".join(f"{cell:<24}" for cell in line).rstrip() for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", type=Path, nargs="*", help="exported; default: the shipped one")
    parser.add_argument("--yolo", nargs="+", default=["yolo11n-seg", "yolo26n-seg"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--folder", type=Path, default=Path("build/yolo"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    args.models = args.models or [default_model_path()]
    args.folder.mkdir(parents=True, exist_ok=True)
    report = compare(args)
    print("\n".join(table(report["rows"])))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
