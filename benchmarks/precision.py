#!/usr/bin/env python3
"""What half precision changes: fp16 against fp32 with trained weights, on real and made frames.

    python benchmarks/precision.py --data DATA [--checkpoint models/street_lite0.safetensors]

Real frames are the CamVid clip in DATA/camvid/val_clip (mIoU), made ones the held-out synthetic
streets (STQ). Both precisions run as a tracker does, each with its own state. They run twice:

- "onnxruntime" runs the exported graphs. Its CPU kernels compute half nodes in float32 between
  casts, so it can look better than a GPU does.
- "torch" runs the network itself, every operator of which rounds its result to a float16. It is
  slow on a CPU, so it gets fewer frames.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from video_knet_core.config import TrackingConfig
from video_knet_core.data.camvid import camvid_clip
from video_knet_core.engine.base import Runtime
from video_knet_core.engine.export import export_checkpoint
from video_knet_core.engine.onnx_runtime import OnnxRuntime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.evaluate.clips import evaluate_clips, synthetic_streets
from video_knet_core.metrics.vss import MeanIoU
from video_knet_core.model.checkpoint import load_model
from video_knet_core.model.precision import with_half_maps
from video_knet_core.predictor import VideoPredictor
from video_knet_core.types import NO_CLASS, Detections

SHIPPED = Path(__file__).parents[1] / "models" / "street_lite0.safetensors"
CAMVID_FPS = 15.0


@dataclass(frozen=True)
class Difference:
    """How far fp16 is from fp32 on one data set with one engine; shares are of all pixels."""

    engine: str
    data: str
    frames: int
    other_class: float
    """Share of pixels that have another class."""
    other_segment: float
    """Share of pixels outside the segments that are the same in both (greatest overlap first)."""
    kernels: float
    """Largest difference of a number of a kernel whose slot holds the same segment in both."""
    score: str
    """What `fp32` and `fp16` are: mIoU or STQ, 0..1."""
    fp32: float
    fp16: float


class Recorded:
    """A `Runtime` that keeps the segments of all its frames."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.name, self.info = runtime, runtime.name, runtime.info
        self.segments: list[Detections] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def step(self, image: NDArray[np.uint8], state: Any | None) -> tuple[Detections, Any]:
        segments, state = self.runtime.step(image, state)
        self.segments.append(segments)
        return segments, state


def camvid_score(runtime: Runtime, root: Path, frames: int) -> float:
    """mIoU on the first frames of the clip."""
    clip, predictor = camvid_clip(root), VideoPredictor(runtime)
    quality = MeanIoU(len(runtime.info.classes), ignore=NO_CLASS)
    for t in range(min(frames, len(clip))):
        truth = clip[t]
        frame = predictor.step(truth.image, round(t * 1e9 / CAMVID_FPS))
        quality.update(truth.semantic, frame.semantic_map())
    return quality.compute().miou


def street_score(runtime: Runtime, clips: int, frames: int) -> float:
    """STQ on the first frames of the held-out streets."""
    return evaluate_clips(runtime, synthetic_streets(clips), frames, {"": TrackingConfig()})[""].stq


def same_segments(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[dict[int, int], int]:
    """Slot + 1 of each segment in map `a` -> that in `b`, and the pixels where both agree."""
    overlaps = np.bincount(a.ravel().astype(int) * 256 + b.ravel(), minlength=65536)
    overlaps = overlaps.reshape(256, 256)
    agreed, pairs = int(overlaps[0, 0]), {}
    overlaps[0], overlaps[:, 0] = 0, 0
    while overlaps.any():
        i, j = divmod(int(overlaps.argmax()), 256)
        pairs[i], agreed = j, agreed + int(overlaps[i, j])
        overlaps[i], overlaps[:, j] = 0, 0
    return pairs, agreed


def class_map(segments: Detections) -> NDArray[np.int64]:
    """Class id of each pixel; -1 = none."""
    return np.concatenate(([-1], segments.class_ids))[segments.segment_map]


def compared(fp32: list[Detections], fp16: list[Detections]) -> tuple[float, float, float]:
    """`other_class`, `other_segment` and `kernels` of a `Difference`."""
    classes, segments, kernels = [], [], [0.0]
    for a, b in zip(fp32, fp16, strict=True):
        classes.append((class_map(a) != class_map(b)).mean())
        pairs, agreed = same_segments(a.segment_map, b.segment_map)
        segments.append(1 - agreed / a.segment_map.size)
        assert a.kernels is not None and b.kernels is not None
        kernels += [
            float(np.abs(a.kernels[i - 1] - b.kernels[i - 1]).max())
            for i, j in pairs.items()
            if i == j
        ]
    return float(np.mean(classes)), float(np.mean(segments)), max(kernels)


def differences(
    engine: str, fp32: Runtime, fp16: Runtime, arguments: argparse.Namespace, frames: int
) -> Iterator[Difference]:
    """A row for each data set."""
    root = arguments.data / "camvid" / "val_clip"
    scores = {
        ("CamVid", "mIoU"): lambda runtime: camvid_score(runtime, root, frames),
        ("street", "STQ"): lambda runtime: street_score(runtime, arguments.clips, frames),
    }
    for (data, score), measure in scores.items():
        runs = Recorded(fp32), Recorded(fp16)
        values = [measure(run) for run in runs]
        found = compared(runs[0].segments, runs[1].segments)
        yield Difference(engine, data, len(runs[0].segments), *found, score, *values)


def measure(arguments: argparse.Namespace) -> Iterator[Difference]:
    """All rows, each as soon as it is measured."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        graphs = []
        for precision in ("fp32", "fp16"):
            path = Path(folder, f"{precision}.onnx")
            export_checkpoint(arguments.checkpoint, path, precision)
            graphs.append(OnnxRuntime(path, arguments.threads))
        yield from differences("onnxruntime", graphs[0], graphs[1], arguments, arguments.frames)
    network = load_model(arguments.checkpoint)
    networks = TorchRuntime(network), TorchRuntime(with_half_maps(network))
    yield from differences("torch", *networks, arguments, arguments.torch_frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="holds camvid/val_clip/")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="default: the shipped one")
    parser.add_argument("--frames", type=int, default=30, help="of each clip, in ONNX Runtime")
    parser.add_argument("--torch-frames", type=int, default=4, help="of each clip, in torch")
    parser.add_argument("--clips", type=int, default=2, help="synthetic streets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    arguments = parser.parse_args()
    rows = []
    print("engine       data    frames  other class  other segment  kernels  score   fp32    fp16")
    for row in measure(arguments):
        rows.append(row)
        print(
            f"{row.engine:<12} {row.data:<7} {row.frames:>6} {row.other_class:>12.4%} "
            f"{row.other_segment:>14.4%} {row.kernels:>8.3f}  {row.score:<5} {row.fp32:7.4f} "
            f"{row.fp16:7.4f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
