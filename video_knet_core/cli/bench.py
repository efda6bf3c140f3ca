"""`video-knet bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..engine.selector import BACKENDS, default_model_path
from ..output_files import check_output_file, write_text
from .arguments import positive, size, threads


def add_bench(commands: argparse._SubParsersAction) -> None:
    """Add `bench`."""
    bench = commands.add_parser(
        "bench",
        help="measure speed, memory and energy of engines here, side by side",
        description="Every model with every backend takes each frame of a synthetic street in "
        "turn. Tells the milliseconds of each stage (preprocess: resize; step: the engine; merge: "
        "regions and label map; track), frames per second, memory, energy where the machine "
        "tells, and the share of pixels that differ from the first row.",
    )
    bench.add_argument(
        "models",
        type=Path,
        nargs="*",
        metavar="MODEL",
        help=".onnx or .safetensors; default: the shipped model",
    )
    bench.add_argument(
        "--backend",
        nargs="+",
        choices=("auto", "all", *BACKENDS),
        default=["auto"],
        metavar="NAME",
        help=f"any of {', '.join(BACKENDS)}; auto (default), the best; all that work here",
    )
    bench.add_argument("--frames", type=positive, default=100, metavar="N", help="default: 100")
    bench.add_argument(
        "--size",
        type=size,
        nargs="+",
        default=[],
        metavar="HxW",
        help="size of the images; default: the model's own",
    )
    bench.add_argument(
        "--threads", type=threads, default=2, metavar="N", help="of engine and OpenCV; default: 2"
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    bench.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> None:
    from ..evaluate.bench import bench

    models = arguments.models or [default_model_path()]
    if arguments.json:
        check_output_file(arguments.json, models, ".json")
    report = bench(models, arguments.backend, arguments.frames, arguments.size, arguments.threads)
    print("\n".join(report.table()))
    if arguments.json:
        write_text(arguments.json, json.dumps(report.to_json(), indent=2) + "\n")
