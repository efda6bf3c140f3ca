#!/usr/bin/env python3
"""What every model configuration costs: parameters, operations, and a step with each backend.

    python benchmarks/zoo.py [--models street_lite0,vspw_pspnet_r101] [--backends torch]

Weights are random but for the shipped model, which changes no time. A step is that of a running
video at the native size, frame by frame; the median is printed. A backend that does not run here is
left empty. Prints a table in Markdown, a row as soon as it is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.engine.base import BackendError, Runtime
from video_knet_core.engine.export import export_onnx
from video_knet_core.engine.selector import open_runtime
from video_knet_core.engine.torch_runtime import TorchRuntime
from video_knet_core.model.checkpoint import load_model
from video_knet_core.model.cost import model_cost
from video_knet_core.model.video_knet import VideoKNet

REPO = Path(__file__).parents[1]
MODELS = sorted(path.stem for path in (REPO / "config" / "models").glob("*.yaml"))
BACKENDS = ("torch", "onnxruntime-cpu", "openvino")


def network(name: str) -> VideoKNet:
    """The shipped network if there is one of that name, else one with random weights."""
    checkpoint = REPO / "models" / f"{name}.safetensors"
    if checkpoint.exists():
        return load_model(checkpoint)
    torch.manual_seed(0)
    return VideoKNet(load_yaml(ModelConfig, REPO / "config" / "models" / f"{name}.yaml")).eval()


def step_ms(runtime: Runtime, frames: int) -> float:
    """Median time of a step after the first two, which make things ready."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (runtime.info.height, runtime.info.width, 3), np.uint8)
    state, times = None, []
    for _ in range(frames + 2):
        begin = time.perf_counter()
        _, state = runtime.step(image, state)
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times[2:]))


def measure(name: str, model: VideoKNet, backends: list[str], threads: int, frames: int) -> str:
    """The row of one configuration."""
    config = model.config
    total = model_cost(config, config.height, config.width)[-1]
    cells = [name, config.task, config.backbone.name, f"{config.height} x {config.width}"]
    cells += [f"{total.parameters / 1e6:.1f}", f"{total.gflops:,.0f}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.onnx")
        if set(backends) - {"torch"}:
            export_onnx(model, path, name)
        for backend in backends:
            try:
                runtime = TorchRuntime(model) if backend == "torch" else None
                runtime = runtime or open_runtime(path, backend, threads=threads)
            except BackendError as error:
                print(f"{name}: {error}", file=sys.stderr)
                cells.append("")
                continue
            cells.append(f"{step_ms(runtime, frames):,.0f}")
            runtime.close()
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="default: all of config/models")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frames", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backends = args.backends.split(",")
    columns = ["model", "task", "backbone", "input", "M parameters", "GFLOP"]
    columns += [f"{backend}, ms" for backend in backends]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in args.models.split(","):
        print(measure(name, network(name), backends, args.threads, args.frames), flush=True)


if __name__ == "__main__":
    main()
