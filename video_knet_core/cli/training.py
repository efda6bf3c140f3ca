"""`video-knet train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..installation import config_file
from .errors import needs_torch


def add_train(commands: argparse._SubParsersAction) -> None:
    """Add `train`."""
    train = commands.add_parser(
        "train",
        help="train a model (needs torch)",
        description="On many GPUs: torchrun --nproc-per-node N -m video_knet_core.cli train ...",
    )
    train.add_argument("config", type=Path, help="a file, or a shipped one, as street_lite0")
    train.add_argument("--out", type=Path, required=True, metavar="DIR")
    train.add_argument("--data", type=Path, metavar="DIR", help="root of the data sets")
    train.add_argument("--resume", action="store_true", help="go on where DIR stopped")
    train.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    train.set_defaults(run=_train, kept=_kept)


def _train(arguments: argparse.Namespace) -> None:
    config = config_file(arguments.config, "train")
    with needs_torch("train"):
        from ..training.trainer import train_from_config

        train_from_config(config, arguments.out, arguments.data, arguments.resume, arguments.device)


def _kept(arguments: argparse.Namespace) -> str:
    """What an interruption leaves."""
    if not any(arguments.out.glob("last.state.*")):  # `RunFiles.state`, which needs torch
        return "no checkpoint was saved yet"
    return f"{arguments.out} keeps the last checkpoint, --resume continues from it"
