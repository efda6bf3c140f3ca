#!/usr/bin/env python3
"""Where the time of a frame goes, from the image message to the output messages, beside the
minimum that the network can take on this machine.

    source scripts/env.sh && python benchmarks/latency.py [MODEL ...] [--backend NAME ...|all]

The stages of `video-knet bench`, with `receive` before them (the bytes of an image message are
deserialised and turned into RGB) and `publish` after them (table, panoptic and semantic image are
filled in and serialised), by the node's own functions. DDS itself, which carries the bytes, is not
in it; `benchmarks/node_overhead.py` measures the node with it. The roofline needs torch, and the
plot (--plot) matplotlib.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from video_knet_core.config import ModelConfig
from video_knet_core.engine.model_file import ModelFile
from video_knet_core.engine.selector import BACKENDS, default_model_path
from video_knet_core.evaluate.bench import Stages, Step, bench, bench_table
from video_knet_core.messages.image_messages import to_rgb
from video_knet_core.messages.result_messages import FrameToPublish
from video_knet_core.messages.topics import OUTPUTS
from video_knet_core.model.checkpoint import checkpoint_config
from video_knet_core.model.cost import step_without_weights
from video_knet_core.predictor import VideoPredictor
from video_knet_core.types import PanopticFrame
from video_knet_ros.outputs import CONVERSIONS

ELEMENT_BYTES = {"fp32": 4, "fp16": 2}
TYPES = {"fp32": torch.float32, "fp16": torch.float16}
MATRIX = 2048
COPY_BYTES = 1 << 28
"""More than any cache holds."""


def ros_step(predictor: VideoPredictor) -> Step:
    """A frame as the node does it, but for DDS."""
    classes = predictor.classes

    def step(image: NDArray[np.uint8], stamp: int) -> tuple[PanopticFrame, Stages]:
        message = CONVERSIONS.image_message(Image().header, "rgb8", image)
        message.header.stamp = CONVERSIONS.time_message(stamp)
        data = serialize_message(message)  # the camera's work
        start = time.perf_counter()
        message = deserialize_message(data, Image)
        pixels = to_rgb(message)
        received = time.perf_counter()
        frame = predictor.step(pixels, stamp)
        begin = time.perf_counter()
        header = message.header
        result = FrameToPublish(header, pixels, frame, classes, 0, 0)
        for name in ("instances", "panoptic", "semantic"):
            serialize_message(OUTPUTS[name].make(CONVERSIONS, result))
        published = time.perf_counter()
        ours = {"receive": (received - start) * 1e3, **asdict(frame.times)}
        return frame, ours | {"publish": (published - begin) * 1e3}

    return step


def best_s(work: Callable[[], object], device: str, times: int = 10) -> float:
    """The shortest of several runs, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


def peak_operations(device: str, precision: str) -> float:
    """Operations per second of a large matrix product."""
    matrix = torch.ones(MATRIX, MATRIX, device=device, dtype=TYPES[precision])
    return 2 * MATRIX**3 / best_s(lambda: matrix @ matrix, device)


def bandwidth(device: str) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / best_s(lambda: target.copy_(source), device)


def config_of(model: Path) -> tuple[ModelConfig, str]:
    """Configuration and precision of a checkpoint or of an exported model."""
    if model.suffix == ".safetensors":
        return checkpoint_config(model), "fp32"
    found = ModelFile.read(model)
    return found.config, found.precision


class LayerCounter(TorchDispatchMode):
    """Records the operations and the elements read or written of each layer: of every operation
    that torch can count, convolutions and matrix products.

    Whatever lies between them (activations, normalisation, resizing, merge) is left out, as if it
    cost nothing: what a machine needs for the layers is a bound that no engine can go below.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
            operations = count(*args, **(kwargs or {}), out_val=result)
            self.layers.append((operations, sum(tensor.numel() for tensor in tensors)))
        return result


def add_roofline(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> dict[str, float]:
    """Put the minimum milliseconds of a step into each row; returns the machine's peaks."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    found = [config_of(model) for model in args.models]
    fastest = min((precision for _, precision in found), key=ELEMENT_BYTES.__getitem__)
    tflops = args.peak_tflops or peak_operations(device, fastest) / 1e12
    gb_per_s = args.bandwidth or bandwidth(device) / 1e9
    for model, (config, precision) in zip(args.models, found, strict=True):
        with LayerCounter() as counter:
            step_without_weights(config, config.height, config.width)
        size = ELEMENT_BYTES[precision]
        # each layer is bound by its operations or by its memory traffic (Williams et al., 2009)
        seconds = sum(
            max(operations / (tflops * 1e12), elements * size / (gb_per_s * 1e9))
            for operations, elements in counter.layers
        )
        cost = {
            "gflop": sum(operations for operations, _ in counter.layers) / 1e9,
            "megabytes": sum(elements for _, elements in counter.layers) * size / 1e6,
            "roofline_ms": seconds * 1e3,
        }
        for row in (row for row in rows if row["model"] == model.name):
            row |= cost | {"times_roofline": row["stages_ms"]["step"]["p50"] / cost["roofline_ms"]}
    return {"tflops": tflops, "gb_per_s": gb_per_s}


def roofline_table(rows: Sequence[Mapping[str, Any]], peaks: Mapping[str, float]) -> list[str]:
    """Lines for people."""
    head = f"roofline at {peaks['tflops']:.2f} TFLOP/s and {peaks['gb_per_s']:.1f} GB/s"
    return [head, *(f"  {row['model']} {row['backend']}: {_bound(row)}" for row in rows)]


def _bound(row: Mapping[str, Any]) -> str:
    return (
        f"{row['gflop']:.1f} GFLOP and {row['megabytes']:.0f} MB take {row['roofline_ms']:.2f} ms "
        f"at least, the step is {row['times_roofline']:.1f} times that"
    )


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Median stages end to end, the total's p99 as a dot, the step's roofline as a line."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    figure, axis = pyplot.subplots(figsize=(10, 1.5 + 0.5 * len(rows)))
    for y, row in enumerate(reversed(rows)):
        left, stages = 0.0, row["stages_ms"]
        for color, stage in enumerate(s for s in stages if s != "total"):
            width = stages[stage]["p50"]
            label = stage if y == 0 else None
            axis.barh(y, width, left=left, color=f"C{color}", label=label)
            left += width
        axis.plot(stages["total"]["p99"], y, "k.", label="p99" if y == 0 else None)
        bound = row["roofline_ms"]
        label = "minimum for the step" if y == 0 else None
        axis.vlines(bound, y - 0.4, y + 0.4, color="black", linestyle=":", label=label)
    names = [
        f"{row['model']}\n{row['backend']}, {row['image'][1]} x {row['image'][0]}" for row in rows
    ]
    axis.set_yticks(range(len(rows)), names[::-1])
    axis.set(xlabel="milliseconds", xlim=(0, None))
    axis.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", type=Path, nargs="*", help="default: the shipped model")
    parser.add_argument(
        "--backend", nargs="+", default=["auto"], choices=("auto", "all", *BACKENDS)
    )
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-tflops", type=float, help="default: that of a matrix product here")
    parser.add_argument("--bandwidth", type=float, help="GB/s; default: that of a copy here")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    args = parser.parse_args()
    args.models = args.models or [default_model_path()]
    return args


def main() -> None:
    args = arguments()
    report = bench(args.models, args.backend, args.frames, (), args.threads, ros_step)
    print("\n".join(bench_table(report)))
    peaks = add_roofline(report["runs"], args)
    print("\n".join(roofline_table(report["runs"], peaks)))
    if args.json:
        args.json.write_text(json.dumps(report | {"peaks": peaks}, indent=2) + "\n")
    if args.plot:
        plot(report["runs"], args.plot)


if __name__ == "__main__":
    main()
