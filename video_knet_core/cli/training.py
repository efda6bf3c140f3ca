"""`video-knet train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import needs_torch


def add_train(commands: argparse._SubParsersAction) -> None:
    """Add `train`."""
    train = commands.add_parser(
        "train",
        help="train a model (needs torch)",
        description="On many GPUs: torchrun --nproc-per-node N -m video_knet_core.cli train ...",
    )
    train.add_argument("config", type=Path, help="config/train/*.yaml")
    train.add_argument("--out", type=Path, required=True, metavar="DIR")
    train.add_argument("--data", type=Path, metavar="DIR", help="root of the data sets")
    train.add_argument("--resume", action="store_true", help="go on where DIR stopped")
    train.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    with needs_torch("train"):
        from ..training.trainer import train_from_config

        train_from_config(
            arguments.config, arguments.out, arguments.data, arguments.resume, arguments.device
        )
