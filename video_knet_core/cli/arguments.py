"""Arguments that several commands have."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..config import ASSOCIATIONS, TrackingConfig
from ..engine.runtime import Runtime, default_model_path, open_runtime


def add_model(command: argparse.ArgumentParser) -> None:
    """--model and --threads."""
    command.add_argument(
        "--model", type=Path, metavar="FILE", help=".onnx or .safetensors; default: the shipped one"
    )
    command.add_argument("--threads", type=positive, default=2, metavar="N", help="default: 2")


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


def positive(text: str) -> int:
    """A number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


def size(text: str) -> tuple[int, int]:
    """Height and width of HxW, at most five digits each: larger ones overflow a count."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"must be height x width in pixels, as 384x1248, found {text!r}"
        )
    return int(match[1]), int(match[2])


def runtime_of(arguments: argparse.Namespace) -> Runtime:
    """Open the model that `add_model` let the user name."""
    return open_runtime(arguments.model or default_model_path(), threads=arguments.threads)
