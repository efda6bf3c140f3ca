"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..config import ASSOCIATIONS, TrackingConfig
from ..engine.base import Runtime
from ..engine.selector import (
    BACKENDS,
    default_model_path,
    open_runtime,
)
from ..output_files import expanded

MOST = 2**31 - 1
MOST_THREADS = 1024
MOST_SIDE = 16384
"""Pixels."""


def add_model(command: argparse.ArgumentParser) -> None:
    """--model, --backend and --threads."""
    command.add_argument(
        "--model", type=Path, metavar="FILE", help=".onnx or .safetensors; default: the shipped one"
    )
    command.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        metavar="NAME",
        help=f"one of {', '.join(BACKENDS)}; default: auto, the best that works here",
    )
    command.add_argument("--threads", type=threads, default=2, metavar="N", help="default: 2")


def add_json(command: argparse.ArgumentParser) -> None:
    """--json."""
    command.add_argument(
        "--json",
        action="store_true",
        help="print the result as one JSON document, and nothing else on stdout",
    )


def add_association(command: argparse.ArgumentParser) -> None:
    """--association."""
    command.add_argument(
        "--association",
        choices=ASSOCIATIONS,
        default=TrackingConfig.association,
        help="what tells a track again: embedding (default), ours; quasi_dense, the authors' "
        "tracker; or, to compare with: raw kernels, iou of masks, sort, mask_propagation by "
        "optical flow, appearance to an ImageNet network (needs torch)",
    )


def expand_paths(arguments: argparse.Namespace) -> None:
    """Replace `~` in all paths; a shell leaves it in `--out=~/result`."""
    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            setattr(arguments, name, expanded(value))
        elif isinstance(value, list):
            setattr(arguments, name, [expanded(v) if isinstance(v, Path) else v for v in value])


def positive(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST}, got {text[:30]}")
    return value


def threads(text: str) -> int:
    """A number of threads that a machine may have."""
    value = positive(text)
    if value > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected at most {MOST_THREADS}, got {value}")
    return value


def size(text: str) -> tuple[int, int]:
    """Height and width of HxW in pixels."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None or max(map(int, match.groups())) > MOST_SIDE:
        raise argparse.ArgumentTypeError(
            f"expected height x width of at most {MOST_SIDE} pixels, as 384x1248, got {text!r}"
        )
    return int(match[1]), int(match[2])


def runtime_of(arguments: argparse.Namespace) -> Runtime:
    """Open the model that `add_model` lets the user name; the caller closes it."""
    model = arguments.model or default_model_path()
    return open_runtime(model, arguments.backend, arguments.threads)
