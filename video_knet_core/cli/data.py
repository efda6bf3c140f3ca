"""`video-knet validate-data`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .errors import EXIT_FAULTS, UsageError


def add_validate(commands: argparse._SubParsersAction) -> None:
    """Add `validate-data`."""
    validate = commands.add_parser(
        "validate-data",
        help="read a labelled data set and name what is wrong with it",
        description="Finds missing frames, sizes that differ, ids out of range and empty masks. "
        "The exit code is 0 if there is no fault, 1 if there are some.",
    )
    validate.add_argument(
        "dataset",
        help="kitti_step, cityscapes_vps, vipseg, vspw, youtube_vis_2019, coco_panoptic, "
        "coco_instances, camvid or own",
    )
    validate.add_argument("root", type=Path, metavar="PATH", help="the folder of the data set")
    validate.add_argument("--split", help="train, val (valid) or test; default: all there are")
    validate.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from ..data.datasets import layout_of, splits_of
    from ..data.validation import validate

    found = splits_of(arguments.dataset, arguments.root)
    splits = [split for split in found if arguments.split in (None, split)]
    if not splits:
        wanted = [arguments.split] if arguments.split else layout_of(arguments.dataset).splits
        raise UsageError(
            f"{arguments.root} must have a split of {', '.join(wanted)} in the layout of "
            f"{arguments.dataset}, found {', '.join(found) or 'none'}"
        )
    count = 0
    for split in splits:
        for fault in validate(arguments.dataset, arguments.root, split):
            count += 1
            print(f"{split}: {fault}", flush=True)
    print(f"{', '.join(splits)}: {count} faults")
    return EXIT_FAULTS if count else 0
