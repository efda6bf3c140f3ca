"""`video-knet validate-data`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_json
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
        "coco_instances, camvid or custom",
    )
    validate.add_argument("root", type=Path, metavar="PATH", help="the folder of the data set")
    validate.add_argument("--split", help="train, val (valid) or test; default: all there are")
    add_json(validate)
    validate.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from ..data.validation import validate

    splits, faults = _splits(arguments), []
    for split in splits:
        for fault in validate(arguments.dataset, arguments.root, split):
            faults.append({"split": split, "where": fault.where, "what": fault.what})
            if not arguments.json:
                print(f"{split}: {fault}", flush=True)
    if arguments.json:
        print(json.dumps({"splits": splits, "faults": faults}, indent=2))
    else:
        print(f"{', '.join(splits)}: {len(faults)} faults")
    return EXIT_FAULTS if faults else 0


def _splits(arguments: argparse.Namespace) -> list[str]:
    """The splits to read; UsageError if there are none."""
    from ..data.datasets import dataset_format

    known = dataset_format(arguments.dataset)
    there = known.available_splits(arguments.root)
    splits = [split for split in there if arguments.split in (None, split)]
    if not splits:
        expected = [arguments.split] if arguments.split else known.splits
        raise UsageError(
            f"expected a split of {', '.join(expected)} in {arguments.root}, in the layout of "
            f"{arguments.dataset}, got {', '.join(there) or 'none'}"
        )
    return splits
