#!/usr/bin/env python3
"""Build every exported graph at full size with TensorRT-RTX; no GPU is needed.

    python benchmarks/engine_builds.py [--models street_lite0,kitti_step_r50] [--forms deploy]

One build of each graph serves all targets. The street model has its shipped weights, the others
random ones, which change neither time nor size. Prints a row of a table in Markdown for each, and
ends with the reason at the first that cannot be built.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import load_yaml
from video_knet_core.engine.export import export_onnx
from video_knet_core.engine.model_file import ModelFile
from video_knet_core.engine.tensorrt.build import build_plan, load_library
from video_knet_core.model.checkpoint import load_model
from video_knet_core.model.video_knet import VideoKNet

REPO = Path(__file__).parents[1]
MODELS = sorted(path.stem for path in (REPO / "config" / "models").glob("*.yaml"))
TARGETS = ("sm86", "sm89", "sm120")


@dataclass(frozen=True)
class Build:
    """One graph; seconds are processor time of all threads, so that other work does not count."""

    model: str
    size: str
    precision: str
    form: str
    export_s: float
    onnx_mb: float
    build_s: float
    plan_mb: float


def network(name: str) -> VideoKNet:
    """The shipped network if there is one of that name, else one with random weights."""
    checkpoint = REPO / "models" / f"{name}.safetensors"
    if checkpoint.exists():
        return load_model(checkpoint)
    torch.manual_seed(0)
    return VideoKNet(load_yaml(ModelConfig, REPO / "config" / "models" / f"{name}.yaml")).eval()


def measure(name: str, precision: str, form: str, targets: list[str]) -> Build:
    """Export and build one graph; UnsupportedModelError if TensorRT-RTX refuses an operator."""
    model = network(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}_{precision}_{form}.onnx")
        start = time.process_time()
        export_onnx(model, path, name, precision, form)
        export_s, onnx_mb = time.process_time() - start, path.stat().st_size / 1e6
        start = time.process_time()
        plan = build_plan(ModelFile.read(path), "tensorrt-rtx", targets)
        build_s = time.process_time() - start
    size = f"{model.config.height}x{model.config.width}"
    return Build(name, size, precision, form, export_s, onnx_mb, build_s, len(plan) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default=",".join(MODELS), help="default: all of config/models")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--forms", default="deploy,raw")
    parser.add_argument("--targets", default=",".join(TARGETS), help="compute capabilities")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    arguments = parser.parse_args()
    choices = (arguments.models, arguments.precisions, arguments.forms)
    targets, rows = arguments.targets.split(","), []
    print(f"{load_library('tensorrt-rtx').title}, one plan for {', '.join(targets)}\n")
    print("| model | size | precision | form | export s | ONNX MB | build s | plan MB |")
    print("|---|---|---|---|---|---|---|---|")
    for choice in itertools.product(*(text.split(",") for text in choices)):
        row = measure(*choice, targets)
        rows.append(row)
        cells = (f"{v:.1f}" if isinstance(v, float) else str(v) for v in asdict(row).values())
        print(f"| {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
